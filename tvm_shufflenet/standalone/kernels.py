"""Compiles scheduled PrimFuncs to plain C functions that need neither a runtime nor an allocator.

TVM's own lowering runs up to the point where it would wrap a function into its packed calling convention, check shapes,
and call its runtime for threads and memory. Here a function takes pointers instead, and is cut into phases:

    void kernel(int32_t begin, int32_t end, T *argument..., T *shared..., T *private...)

A phase that was a parallel loop runs its iterations from ``begin`` to ``end``, so whoever calls it deals them out;
every other phase runs as a whole. ``shared`` is memory that the phases of a function hand to each other, ``private``
memory that each thread has its own of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tvm
import tvm_ffi
from tvm import ir, tirx
from tvm.ir.instrument import pass_instrument
from tvm.tirx.build import codegen_build

from ..errors import ImportFailed, lines_of
from ..graph.phases import phase
from ..hardware.targets import Target
from ..library import lowering
from ..library.build import OBJECT_BYTES
from ..library.lowering import lies_on_stack, size_of
from ..support.surroundings import require_space
from .arena import aligned

PREFIX = "op_"
INT = "int32"
SETUP = (tirx.DeclBuffer, tirx.Bind, tirx.AllocBuffer)  # statements that cost nothing when every thread does them


@dataclass(frozen=True)
class Phase:
    """One C function. ``extent`` is the number of iterations that may be dealt out, None where it runs as a whole."""

    symbol: str
    extent: int | None
    private: tuple[int, ...]

    @property
    def private_offsets(self) -> list[int]:
        return [sum(map(aligned, self.private[:index])) for index in range(len(self.private))]


@dataclass(frozen=True)
class Kernel:
    """An operator's phases in order; ``shared`` in bytes."""

    name: str
    arguments: int
    phases: tuple[Phase, ...]
    shared: tuple[int, ...] = ()

    @property
    def private_bytes(self) -> int:
        """What each thread needs."""
        return max(sum(map(aligned, phase.private)) for phase in self.phases)


def compile_kernels(module: tvm.IRModule, target: Target, output: Path) -> dict[str, Kernel]:
    """Compile every PrimFunc of ``module`` into the object file ``output``; the kernels by the names they had.

    Raises ImportFailed for operators that need TVM's runtime.
    """
    functions, kernels, target = {}, {}, _portable(target)
    for name, function in _lowered(module, target).items():
        kernels[name], phases = _plain(name, function)
        functions |= phases
    finalize = tvm.tirx.get_default_tir_pipeline(target.tvm())[1]()
    finished = finalize(tirx.transform.ConvertSSA()(tvm.IRModule(functions)))
    require_space(output.parent, OBJECT_BYTES)
    try:
        codegen_build(finished, target.tvm()).write_to_file(str(output), "o")
    except tvm.error.InternalError as exc:
        raise ImportFailed(
            "an operator does not compile without TVM's runtime", lines_of(exc)[0], "compile it with --format vm"
        ) from exc
    return kernels


def _portable(target: Target) -> Target:
    """``target`` without the register that Android and others keep for themselves: one library serves them all."""
    return replace(target, mattr=(*target.mattr, "+reserve-x18")) if target.is_arm else target


@pass_instrument
class _StopBeforePacking:
    """Leaves out the passes that make packed functions, and those of types that only packed functions can have."""

    LEFT_OUT = ("tirx.MakePackedAPI", "tirx.FP8StorageLegalize", "tirx.BF16StorageLegalize")

    def should_run(self, _mod, info) -> bool:
        return info.name not in self.LEFT_OUT


def _lowered(module: tvm.IRModule, target: Target) -> dict[str, tirx.PrimFunc]:
    """The PrimFuncs of ``module`` by name, lowered to flat buffers, vectors and loops."""
    found = {name: function for name, function in module.functions_items() if isinstance(function, tirx.PrimFunc)}
    named = {name: function.with_attr("global_symbol", name.name_hint) for name, function in found.items()}
    host = target.tvm()
    lower = tvm.tirx.get_tir_pipeline(lowering.PIPELINE)[0]
    with tvm.transform.PassContext(instruments=[_StopBeforePacking()]):
        lowered = lower(tirx.transform.BindTarget(host.with_host(host))(tvm.IRModule(named)))
    lowered = phase("standalone")(lowered)
    return {name.name_hint: lowered[name.name_hint] for name in found}


def _plain(name: str, function: tirx.PrimFunc) -> tuple[Kernel, dict[str, tirx.PrimFunc]]:
    if not all(isinstance(param.ty, tirx.BufferType) for param in function.params):
        raise ImportFailed(f"operator {name} takes more than tensors", "", "compile it with --format vm")
    statements = list(function.body.seq) if isinstance(function.body, tirx.SeqStmt) else [function.body]
    setup = [each for each in statements if isinstance(each, SETUP)]
    work = [each for each in statements if not isinstance(each, SETUP)]
    together = len(work) > 1 and (not any(map(_is_parallel, work)) or any(map(_loads, setup)))
    if together or len(work) == 1:
        parts = [_Part(function, statements)]
    else:
        parts = [_Part(function, [*setup, each], shares=True) for each in work]
    phases, functions = [], {}
    for index, part in enumerate(parts):
        symbol = PREFIX + name + (f"_{index}" if len(parts) > 1 else "")
        functions[symbol] = part.function(symbol)
        phases.append(Phase(symbol, part.extent, tuple(part.private)))
    return Kernel(name, len(function.params), tuple(phases), tuple(parts[0].shared)), functions


def _is_parallel(statement: tirx.Stmt) -> bool:
    return (
        isinstance(statement, tirx.For)
        and int(statement.kind) == int(tirx.ForKind.PARALLEL)
        and isinstance(statement.extent, tirx.IntImm)
    )


def _loads(statement: tirx.Stmt) -> bool:
    """Whether a value that is computed once would have to be computed again in another phase."""
    found = tvm_ffi.structural_walk(statement, (ir.TensorLoad, lambda _: tvm_ffi.VisitInterrupt(True)))
    return isinstance(statement, tirx.Bind) and found is not None


class _Part:
    """A function of some of the statements of ``original``. What it allocates itself becomes ``private``, or with
    ``shares`` what it allocates outside its loops ``shared``."""

    def __init__(self, original: tirx.PrimFunc, statements: list[tirx.Stmt], shares: bool = False):
        self.original, self.statements, self.shares = original, statements, shares
        self.begin, self.end = tirx.Var("begin", INT), tirx.Var("end", INT)
        self.extent: int | None = None
        self.shared: list[int] = []
        self.private: list[int] = []
        self._shared_handles: list[tirx.Var] = []
        self._private_handles: list[tirx.Var] = []

    def function(self, symbol: str) -> tirx.PrimFunc:
        handles = [_handle(param) for param in self.original.params]
        declared = [tirx.DeclBuffer(param, data=h) for param, h in zip(self.original.params, handles, strict=True)]
        body = tirx.SeqStmt([*declared, *map(self._statement, self.statements)])
        # Without a device in the IR, TVM refuses to lower allocations on the stack.
        zero, cpu = tirx.IntImm(INT, 0), tirx.IntImm(INT, 1)
        body = tirx.AttrStmt(zero, "device_id", zero, tirx.AttrStmt(zero, "device_type", cpu, body))
        params = [self.begin, self.end, *handles, *self._shared_handles, *self._private_handles]
        made = tirx.PrimFunc(params, body, attrs=self.original.attrs)
        return made.with_attr({"global_symbol": symbol, "tirx.noalias": True})

    def _statement(self, statement: tirx.Stmt) -> tirx.Stmt:
        if self.shares and isinstance(statement, tirx.AllocBuffer):
            return self._given(statement, self.shared, self._shared_handles)
        if _is_parallel(statement) and self.extent is None and self._alone(statement):
            self.extent = int(statement.extent)
            first = statement.min + self.begin
            statement = _serial(statement, first, self.end - self.begin)
        return tvm_ffi.structural_mutate(statement, ((tirx.AllocBuffer, self._allocation), (tirx.For, self._loop)))

    def _alone(self, statement: tirx.Stmt) -> bool:
        """Whether nothing else in this function would be done again by every thread."""
        return all(each is statement or isinstance(each, SETUP) for each in self.statements)

    def _loop(self, loop: tirx.For, mutator) -> tirx.Stmt:
        """A parallel loop inside another loop runs on the thread that reaches it."""
        if int(loop.kind) == int(tirx.ForKind.PARALLEL):
            loop = _serial(loop, loop.min, loop.extent)
        return mutator.default_mutate(loop)

    def _allocation(self, allocation: tirx.AllocBuffer, _mutator) -> tirx.Stmt:
        if lies_on_stack(allocation):
            return allocation
        return self._given(allocation, self.private, self._private_handles)

    @staticmethod
    def _given(allocation: tirx.AllocBuffer, sizes: list[int], handles: list[tirx.Var]) -> tirx.Stmt:
        sizes.append(size_of(allocation.buffer))
        handles.append(_handle(allocation.buffer))
        return tirx.DeclBuffer(allocation.buffer, data=handles[-1])


def _serial(loop: tirx.For, first, extent) -> tirx.For:
    return tirx.For(loop.loop_var, first, extent, tirx.ForKind.SERIAL, loop.body, annotations=loop.annotations)


def _handle(buffer: tirx.Var) -> tirx.Var:
    return tirx.Var(f"{buffer.name}_data", ir.PointerType(buffer.ty.dtype, "global"))
