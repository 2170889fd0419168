"""TVM's importer with our converters before its own, which checks what each of them made."""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
import torch
import tvm
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from . import elementwise, indexing, linear, reductions, resizing, windows  # noqa: F401  they register their converters
from .accepted import ACCEPTED
from .arguments import away_from_default, bound, schema_of, write_out
from .call import CONVERTERS, Call, Unsupported, dtype_name

# Their values are not those of the next run, or nobody knows them.
UNDEFINED = ("empty", "new_empty", "empty_permuted", "empty_strided", "new_empty_strided")


class Importer(ExportedProgramImporter):
    """``node`` is the one that is being converted: TVM's own errors do not say which.

    What depends on constants alone is computed by PyTorch. ``accepted`` are the operators with a converter.
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
            constant = self._constant(node)
            if constant is not None:
                return constant
            if name in ACCEPTED and name not in CONVERTERS and schema_of(node) is not None:
                ignored = [argument for argument in away_from_default(node) if argument not in ACCEPTED[name]]
                if ignored:
                    raise Unsupported(f"its argument {', '.join(ignored)} is not deployed")
            if schema_of(node) is not None:
                write_out(node)
            made = converter(node)
            if isinstance(made, relax.Call | relax.TupleGetItem):
                made = self.block_builder.emit(made)
            self._compare(node, made)
            return made

        return convert

    def from_exported_program(self, program: torch.export.ExportedProgram, *options) -> tvm.IRModule:
        held = {**program.constants, **program.state_dict}
        names = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target in held}
        self.known = {
            node: held[names[node.name]]
            for node in program.graph.nodes
            if node.op == "placeholder" and isinstance(held.get(names.get(node.name)), torch.Tensor)
        }
        for node in self.computed(program):
            self.convert_map.setdefault(node.target.__name__, self._checked("", self._constant))
        return super().from_exported_program(program, *options)

    @staticmethod
    def computed(program: torch.export.ExportedProgram) -> set[Node]:
        """The calls that depend on constants alone."""
        held = {**program.constants, **program.state_dict}
        names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.target in held}
        constant = {node for node in program.graph.nodes if node.op == "placeholder" and node.name in names}
        found = set()
        for node in program.graph.nodes:
            if node.op == "call_function" and _is_computed(node, constant):
                found.add(node)
                constant.add(node)
        return found

    def _constant(self, node: Node) -> relax.Expr | None:
        """The value of a call of constants alone, which PyTorch computes; None for other calls."""
        if not _is_computed(node, self.known):
            return None
        if node.target._schema.name.removeprefix("aten::") in UNDEFINED:
            value = torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype)
        else:
            arguments = torch.fx.node.map_arg((node.args, node.kwargs), self.known.__getitem__)
            with torch.no_grad():
                value = node.target(*arguments[0], **arguments[1])
        self.known[node] = value
        return relax.const(np.ascontiguousarray(value.numpy()), dtype_name(value.dtype))

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


def _is_computed(node: Node, constant: Container[Node]) -> bool:
    """Whether an operator makes one tensor of the nodes ``constant``, or of numbers."""
    tensor = schema_of(node) is not None and isinstance(node.meta.get("val"), torch.Tensor)
    return tensor and all(each in constant for each in node.all_input_nodes)


def _same_shape(found: relax.TensorType, wanted: torch.Tensor) -> bool:
    """Whether the known extents are equal. An extent that the data decide is unknown to both."""
    if found.ndim != wanted.ndim:
        return False
    pairs = zip(found.shape or (), wanted.shape, strict=False)
    return all(int(mine) == theirs for mine, theirs in pairs if hasattr(mine, "value") and isinstance(theirs, int))


def _text(shape) -> str:
    return f"({', '.join(str(dim) for dim in shape or ())})"
