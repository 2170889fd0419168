"""TVM's importer with our converters first; checks the arguments and the result of every call."""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
import torch
import tvm
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from . import (  # noqa: F401  they register their converters
    activations,
    arithmetic,
    filling,
    functions,
    indexing,
    layout,
    linear,
    logic,
    reductions,
    resizing,
    windows,
)
from .accepted import ACCEPTED, NUMBERS_ALONE, UNUSED
from .arguments import away_from_default, bound, schema_of, write_out
from .call import CONVERTERS, Call, Unsupported, dtype_name

# What PyTorch computes where it depends on constants alone: nothing that reads a file, say.
COMPUTABLE = {*CONVERTERS, *ACCEPTED, *UNUSED[NUMBERS_ALONE]}
# Nobody knows their elements.
UNDEFINED = ("empty", "empty_permuted")
MOST_CONSTANT_BYTES = 1 << 30


class Importer(ExportedProgramImporter):
    """``node`` is the one that is being converted: TVM's own errors do not say which.

    PyTorch computes what depends on constants alone. ``accepted`` are the operators with a converter.
    """

    node: Node | None = None

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Node, torch.Tensor] = {}

    @property
    def accepted(self) -> set[str]:
        return set(self.convert_map)

    def create_convert_map(self) -> dict[str, Callable]:
        theirs = super().create_convert_map()
        converters = {name: theirs[name] for name in ACCEPTED if name not in CONVERTERS}
        converters |= {name: self._ours(converter) for name, converter in CONVERTERS.items()}
        converters["getitem"] = lambda node: indexing.item(self.env[node.args[0]], node.args[1])
        converters["_assert_tensor_metadata.default"] = lambda _: None  # of what the compiler knows anyway
        return {name: self._checked(name, converter) for name, converter in converters.items()}

    def _ours(self, converter: Callable) -> Callable:
        def convert(node: Node):
            arguments = list(bound(node).values())
            call = Call(node, arguments, self.block_builder)
            return converter(call, *self._retrieve_args(arguments))

        return convert

    def _checked(self, name: str, converter: Callable) -> Callable:
        """``converter`` of calls that are written out in full, whose value is compared with what PyTorch says of it."""

        def convert(node: Node):
            self.node = node
            made = self._constant(node)
            if made is None and schema_of(node) is not None:
                _check_arguments(name, node)
                write_out(node)
                made = self._without_elements(node)
            if made is None:
                made = converter(node)
            if isinstance(made, relax.Call | relax.TupleGetItem):
                made = self.block_builder.emit(made)
            self._compare(node, made)
            return made

        return convert

    def from_exported_program(self, program: torch.export.ExportedProgram, *options) -> tvm.IRModule:
        self.known = _held(program)
        for node in self.computed(program):
            self.convert_map.setdefault(node.target.__name__, self._checked("", self._constant))
        return super().from_exported_program(program, *options)

    @staticmethod
    def computed(program: torch.export.ExportedProgram) -> set[Node]:
        """The calls that depend on constants alone."""
        constant, found = set(_held(program)), set()
        for node in program.graph.nodes:
            if node.op == "call_function" and _is_computed(node, constant):
                found.add(node)
                constant.add(node)
        return found

    def _constant(self, node: Node) -> relax.Expr | None:
        """The value of a call of constants alone, which PyTorch computes; None for other calls."""
        if not _is_computed(node, self.known):
            return None
        size = node.meta["val"].numel() * node.meta["val"].element_size()
        if size > MOST_CONSTANT_BYTES:
            raise Unsupported(f"a constant of {size >> 20} MB")
        if node.target._schema.name.removeprefix("aten::") in UNDEFINED:
            value = torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype)
        else:
            arguments = torch.fx.node.map_arg((node.args, node.kwargs), self.known.__getitem__)
            with torch.no_grad():
                value = node.target(*arguments[0], **arguments[1])
        self.known[node] = value
        return relax.const(value.contiguous().numpy(), dtype_name(value.dtype))

    @staticmethod
    def _without_elements(node: Node) -> relax.Expr | None:
        """The value of a call whose result has no elements, whatever it computes; None for others."""
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or 0 not in value.shape:
            return None
        return relax.const(np.zeros(value.shape, dtype_name(value.dtype)), dtype_name(value.dtype))

    def _compare(self, node: Node, made: object) -> None:
        """Raise Unsupported where a tensor has not the shape and dtype that PyTorch gives it."""
        wanted = node.meta.get("val")
        if not isinstance(wanted, torch.Tensor) or not isinstance(made, relax.Expr):
            return
        found = made.ty
        if isinstance(found, relax.TensorType) and str(found.dtype) != dtype_name(wanted.dtype):
            raise Unsupported(f"TVM gives {found.dtype} for {str(wanted.dtype).removeprefix('torch.')}")
        if isinstance(found, relax.TensorType) and not _same_shape(found, wanted):
            raise Unsupported(f"TVM gives a tensor of shape {_text(found.shape)} for {_text(wanted.shape)}")


def _check_arguments(name: str, node: Node) -> None:
    """Raise Unsupported where TVM's converter ignores an argument that is set. Our own converters take all of them."""
    if name not in ACCEPTED or name in CONVERTERS:
        return
    ignored = [argument for argument in away_from_default(node) if argument not in ACCEPTED[name]]
    if ignored:
        raise Unsupported(f"its argument {', '.join(ignored)} is not deployed")


def _held(program: torch.export.ExportedProgram) -> dict[Node, torch.Tensor]:
    """Parameters, buffers and constants by the nodes that stand for them."""
    held = {**program.constants, **program.state_dict}
    names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target in held}
    found = {node: held[names[node.name]] for node in program.graph.nodes if node.name in names}
    return {node: value.detach() for node, value in found.items() if isinstance(value, torch.Tensor)}


def _is_computed(node: Node, constant: Container[Node]) -> bool:
    """Whether an operator makes one tensor of the nodes ``constant``, or of numbers."""
    known = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
    if not known or node.target.__name__ not in COMPUTABLE or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    return all(each in constant for each in node.all_input_nodes)


def _same_shape(found: relax.TensorType, wanted: torch.Tensor) -> bool:
    """Whether the known extents are equal. An extent that the data decide is unknown to both."""
    if found.ndim != wanted.ndim:
        return False
    pairs = zip(found.shape or (), wanted.shape, strict=False)
    return all(int(mine) == theirs for mine, theirs in pairs if hasattr(mine, "value") and isinstance(theirs, int))


def _text(shape) -> str:
    return f"({', '.join(str(getattr(dim, 'value', dim)) for dim in shape or ())})"
