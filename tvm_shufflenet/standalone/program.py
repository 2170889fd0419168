"""The static plan of a network: which kernels run in which order, and where each tensor lies.

A Relax function that calls nothing but kernels is a straight list of calls. Its values become allocations: an input or
output of the caller's, a constant among the weights, or a range of the one arena that an instance allocates. What
Relax writes in place, or only looks at in another shape, stays in the same allocation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm
from tvm import ir, relax

from ..errors import ImportFailed
from ..graph.bindings import operator
from ..library.overwriting import VIEWS, check_writes
from ..signature import TensorSpec
from .arena import Range, aligned, place
from .kernels import Kernel

CALLS = ("relax.call_tir", "relax.call_tir_inplace")


@dataclass(frozen=True)
class Address:
    """An address: ``offset`` bytes into the ``arena`` or the ``weights``, or number ``offset`` of the caller's
    ``inputs`` or ``outputs``."""

    region: str
    offset: int


@dataclass(frozen=True)
class Step:
    """One call of a kernel. ``shared`` are addresses of what the kernel's phases hand to each other."""

    kernel: Kernel
    arguments: tuple[Address, ...]
    shared: tuple[Address, ...] = ()


@dataclass(frozen=True)
class OutputCopy:
    """An output that is computed elsewhere: an input, a constant, or a tensor that is answered twice."""

    source: Address
    output: int
    bytes: int


@dataclass(frozen=True)
class Program:
    """A network without an interpreter, between contiguous tensors of the caller's. ``weights`` is one block of
    constants, each aligned to 64 bytes; ``workspace_bytes`` are needed for each thread."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    copies: tuple[OutputCopy, ...]
    weights: bytes
    arena_bytes: int
    workspace_bytes: int


@dataclass(eq=False)
class Allocation:
    """Memory that values of the network share; ``first`` and ``last`` are the steps that use it."""

    bytes: int
    address: Address | None = None
    first: int | None = None
    last: int | None = None

    def used_by(self, step: int) -> None:
        self.first = step if self.first is None else self.first
        self.last = step


@dataclass
class _Weights:
    """Constants one behind the other; equal ones are kept once, as tables of channels often are."""

    blocks: list[bytes] = field(default_factory=list)
    size: int = 0
    known: dict[bytes, int] = field(default_factory=dict)

    def offset(self, value: np.ndarray) -> int:
        content = np.ascontiguousarray(value).tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self.known:
            self.known[key] = self.size
            self.blocks.append(content.ljust(aligned(len(content)), b"\0"))
            self.size += len(self.blocks[-1])
        return self.known[key]


@dataclass
class _Call:
    kernel: Kernel
    allocations: list[Allocation]
    shared: list[Allocation]


class Planner:
    """Walks one Relax function. Raises ImportFailed for what is neither a kernel's call nor a view."""

    def __init__(self, kernels: Mapping[str, Kernel]):
        self.kernels = kernels
        self.calls: list[_Call] = []
        self.allocations: list[Allocation] = []  # of the arena
        self.weights = _Weights()
        self.values: dict[relax.Var, Allocation | tuple] = {}

    def run(self, function: relax.Function) -> Program:
        for index, param in enumerate(function.params):
            tensor = _tensor(param.name, param.ty)
            self.values[param] = Allocation(tensor.bytes, Address("inputs", index))
        for block in function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._value(binding.value, binding.var.ty)
        types = _fields(function.body.body.ty)
        answers = _flat(self._value(function.body.body, function.body.body.ty))
        outputs = tuple(_tensor(f"output{index}", each) for index, each in enumerate(types))
        copies = self._answer(answers, outputs)
        arena_bytes = self._place(answers)
        return Program(
            inputs=tuple(_tensor(param.name, param.ty) for param in function.params),
            outputs=outputs,
            steps=tuple(self._step(call) for call in self.calls),
            copies=tuple(replace(copy, source=source.address) for copy, source in copies),
            weights=b"".join(self.weights.blocks),
            arena_bytes=arena_bytes,
            workspace_bytes=max((kernel.private_bytes for kernel in self.kernels.values()), default=0),
        )

    # Values

    def _value(self, expr: relax.Expr, of_type: ir.Type) -> Allocation | tuple:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(each, each.ty) for each in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, expr.tuple_value.ty)[int(expr.index)]
        if isinstance(expr, ir.GenericConst) and hasattr(expr.value, "numpy"):
            value = expr.value.numpy()
            return Allocation(value.nbytes, Address("weights", self.weights.offset(value)))
        if operator(expr) in CALLS:
            return self._call(expr, of_type)
        if operator(expr) in VIEWS:
            return self._value(expr.args[0], expr.args[0].ty)
        name = operator(expr) or type(expr).__name__
        raise ImportFailed(
            f"the network calls {name}, which TVM's runtime computes", "it is no kernel", "compile it with --format vm"
        )

    def _call(self, call: relax.Call, of_type: ir.Type) -> Allocation | tuple:
        kernel, step = self.kernels[call.args[0].name_hint], len(self.calls)
        if len(call.args) > 2:
            raise ImportFailed("an operator of the network has a dynamic shape", "", "compile it with --format vm")
        arguments = _flat(self._value(call.args[1], call.args[1].ty))
        in_place = operator(call) == "relax.call_tir_inplace"
        indices = [int(index) for index in call.attrs.inplace_indices] if in_place else [-1] * len(_fields(of_type))
        fresh = [
            None if index >= 0 else self._fresh(each) for index, each in zip(indices, _fields(of_type), strict=True)
        ]
        results = tuple(
            arguments[index] if allocation is None else allocation
            for index, allocation in zip(indices, fresh, strict=True)
        )
        if any(result.address is not None for result in results):
            raise ImportFailed("an operator writes to an input or a constant of the network")
        allocations = [*arguments, *(each for each in fresh if each is not None)]
        shared = [self._allocate(size) for size in kernel.shared]
        self.calls.append(_Call(kernel, allocations, shared))
        for allocation in (*allocations, *shared):
            allocation.used_by(step)
        return results if isinstance(of_type, ir.TupleType) else results[0]

    def _fresh(self, of_type: ir.Type) -> Allocation:
        return self._allocate(_tensor("", of_type).bytes)

    def _allocate(self, size: int) -> Allocation:
        self.allocations.append(Allocation(size))
        return self.allocations[-1]

    # Places

    def _answer(
        self, answers: Sequence[Allocation], outputs: Sequence[TensorSpec]
    ) -> list[tuple[OutputCopy, Allocation]]:
        """Results are computed where the caller wants them; only what cannot be is copied at the end."""
        copies = []
        for index, (allocation, tensor) in enumerate(zip(answers, outputs, strict=True)):
            if allocation.address is None and allocation.bytes == tensor.bytes:
                allocation.address = Address("outputs", index)
            else:
                copies.append((OutputCopy(None, index, tensor.bytes), allocation))
        return copies

    def _place(self, answers: Sequence[Allocation]) -> int:
        homeless = [allocation for allocation in self.allocations if allocation.address is None]
        for allocation in answers:
            allocation.used_by(len(self.calls))  # copied after the last call
        offsets, total = place([Range(each.bytes, each.first, each.last) for each in homeless])
        for allocation, offset in zip(homeless, offsets, strict=True):
            allocation.address = Address("arena", offset)
        return total

    def _step(self, call: _Call) -> Step:
        addresses = tuple(allocation.address for allocation in call.allocations)
        return Step(call.kernel, addresses, tuple(allocation.address for allocation in call.shared))


def plan(module: tvm.IRModule, kernels: Mapping[str, Kernel]) -> Program:
    """The program of ``main``, whose operators are calls of ``kernels``. Raises ImportFailed."""
    with_views = relax.transform.RewriteDataflowReshape()(module)
    check_writes(with_views)
    return Planner(kernels).run(with_views["main"])


def _fields(of_type: ir.Type) -> list[ir.Type]:
    if isinstance(of_type, ir.TupleType):
        return [leaf for each in of_type.fields for leaf in _fields(each)]
    return [of_type]


def _flat(value: Allocation | tuple) -> list[Allocation]:
    return [leaf for each in value for leaf in _flat(each)] if isinstance(value, tuple) else [value]


def _tensor(name: str, of_type: ir.Type) -> TensorSpec:
    shape = _static(of_type.shape)
    if shape is None:
        raise ImportFailed(f"a tensor of the network has a dynamic shape: {of_type}", "", "export it with fixed shapes")
    return TensorSpec(name, shape, str(of_type.dtype.dtype if hasattr(of_type.dtype, "dtype") else of_type.dtype))


def _static(shape) -> tuple[int, ...] | None:
    dims = getattr(shape, "values", shape)
    if dims is None:
        return None
    return tuple(int(dim) for dim in dims) if all(hasattr(dim, "value") for dim in dims) else None
