"""The static plan of a network: which kernels run in which order on which tensors, and where each tensor lies.

A Relax function that calls nothing but kernels is a straight list of calls. Its values become storages: an input or
output of the caller's, a constant among the weights, or a range of the one arena that an instance allocates. What
Relax writes in place, or only looks at in another shape, stays in the same storage.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tvm
from tvm import ir, relax

from ..errors import ImportFailed
from ..graph.bindings import operator
from ..library.overwriting import VIEWS, check_writes
from .arena import Range, aligned, place
from .kernels import Kernel

CALLS = ("relax.call_tir", "relax.call_tir_inplace")


@dataclass(frozen=True)
class Tensor:
    """What the caller passes: contiguous elements of ``dtype`` in the layout that the network was exported with."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * element_bytes(self.dtype)


@dataclass(frozen=True)
class Place:
    """An address: ``offset`` bytes into the ``arena`` or the ``weights``, or number ``offset`` of the caller's
    ``inputs`` or ``outputs``."""

    region: str
    offset: int


@dataclass(frozen=True)
class Step:
    """One call of a kernel. ``shared`` are places for what the kernel's phases hand to each other."""

    kernel: Kernel
    arguments: tuple[Place, ...]
    shared: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Copy:
    """An output that is computed elsewhere: an input, a constant, or a tensor that is answered twice."""

    source: Place
    output: int
    bytes: int


@dataclass(frozen=True)
class Program:
    """A network without an interpreter. ``weights`` is one block of constants, each aligned to 64 bytes;
    ``workspace_bytes`` are needed for each thread."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    copies: tuple[Copy, ...]
    weights: bytes
    arena_bytes: int
    workspace_bytes: int


@dataclass(eq=False)
class Storage:
    """Memory that values of the network share; ``first`` and ``last`` are the steps that use it."""

    bytes: int
    place: Place | None = None
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
    storages: list[Storage]
    shared: list[Storage]


class Planner:
    """Walks one Relax function. Raises ImportFailed for what is neither a kernel's call nor a view."""

    def __init__(self, kernels: Mapping[str, Kernel]):
        self.kernels = kernels
        self.calls: list[_Call] = []
        self.storages: list[Storage] = []  # of the arena
        self.weights = _Weights()
        self.values: dict[relax.Var, Storage | tuple] = {}

    def run(self, function: relax.Function) -> Program:
        for index, param in enumerate(function.params):
            tensor = _tensor(param.name, param.ty)
            self.values[param] = Storage(tensor.bytes, Place("inputs", index))
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
            copies=tuple(replace(copy, source=source.place) for copy, source in copies),
            weights=b"".join(self.weights.blocks),
            arena_bytes=arena_bytes,
            workspace_bytes=max((kernel.private_bytes for kernel in self.kernels.values()), default=0),
        )

    # Values

    def _value(self, expr: relax.Expr, of_type: ir.Type) -> Storage | tuple:
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(each, each.ty) for each in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, expr.tuple_value.ty)[int(expr.index)]
        if isinstance(expr, ir.GenericConst) and hasattr(expr.value, "numpy"):
            value = expr.value.numpy()
            return Storage(value.nbytes, Place("weights", self.weights.offset(value)))
        if operator(expr) in CALLS:
            return self._call(expr, of_type)
        if operator(expr) in VIEWS:
            return self._value(expr.args[0], expr.args[0].ty)
        name = operator(expr) or type(expr).__name__
        raise ImportFailed(
            f"the network calls {name}, which TVM's runtime computes", "it is no kernel", "compile it with --format vm"
        )

    def _call(self, call: relax.Call, of_type: ir.Type) -> Storage | tuple:
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
            arguments[index] if storage is None else storage for index, storage in zip(indices, fresh, strict=True)
        )
        if any(result.place is not None for result in results):
            raise ImportFailed("an operator writes to an input or a constant of the network")
        storages = [*arguments, *(each for each in fresh if each is not None)]
        shared = [self._storage(size) for size in kernel.shared]
        self.calls.append(_Call(kernel, storages, shared))
        for storage in (*storages, *shared):
            storage.used_by(step)
        return results if isinstance(of_type, ir.TupleType) else results[0]

    def _fresh(self, of_type: ir.Type) -> Storage:
        return self._storage(_tensor("", of_type).bytes)

    def _storage(self, size: int) -> Storage:
        self.storages.append(Storage(size))
        return self.storages[-1]

    # Places

    def _answer(self, answers: Sequence[Storage], outputs: Sequence[Tensor]) -> list[tuple[Copy, Storage]]:
        """Results are computed where the caller wants them; only what cannot be is copied at the end."""
        copies = []
        for index, (storage, tensor) in enumerate(zip(answers, outputs, strict=True)):
            if storage.place is None and storage.bytes == tensor.bytes:
                storage.place = Place("outputs", index)
            else:
                copies.append((Copy(None, index, tensor.bytes), storage))
        return copies

    def _place(self, answers: Sequence[Storage]) -> int:
        homeless = [storage for storage in self.storages if storage.place is None]
        for storage in answers:
            storage.used_by(len(self.calls))  # copied after the last call
        offsets, total = place([Range(each.bytes, each.first, each.last) for each in homeless])
        for storage, offset in zip(homeless, offsets, strict=True):
            storage.place = Place("arena", offset)
        return total

    def _step(self, call: _Call) -> Step:
        places = tuple(storage.place for storage in call.storages)
        return Step(call.kernel, places, tuple(storage.place for storage in call.shared))


def plan(module: tvm.IRModule, kernels: Mapping[str, Kernel]) -> Program:
    """The program of ``main``, whose operators are calls of ``kernels``. Raises ImportFailed."""
    with_views = relax.transform.RewriteDataflowReshape()(module)
    check_writes(with_views)
    return Planner(kernels).run(with_views["main"])


def element_bytes(dtype: str) -> int:
    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


def _fields(of_type: ir.Type) -> list[ir.Type]:
    if isinstance(of_type, ir.TupleType):
        return [leaf for each in of_type.fields for leaf in _fields(each)]
    return [of_type]


def _flat(value: Storage | tuple) -> list[Storage]:
    return [leaf for each in value for leaf in _flat(each)] if isinstance(value, tuple) else [value]


def _tensor(name: str, of_type: ir.Type) -> Tensor:
    shape = _static(of_type.shape)
    if shape is None:
        raise ImportFailed(f"a tensor of the network has a dynamic shape: {of_type}", "", "export it with fixed shapes")
    return Tensor(name, shape, str(of_type.dtype.dtype if hasattr(of_type.dtype, "dtype") else of_type.dtype))


def _static(shape) -> tuple[int, ...] | None:
    dims = getattr(shape, "values", shape)
    if dims is None:
        return None
    return tuple(int(dim) for dim in dims) if all(hasattr(dim, "value") for dim in dims) else None
