"""Alternating traversal: each operator walks a tensor in the opposite direction to the operator before it.

A tensor that is a little larger than the cache has lost its beginning when its end is written, so the next operator,
which begins at the beginning, finds none of it: the worst that a least-recently-used cache can do. Where it walks
backwards it begins with what is still there. No result changes: what a loop computes that is reversed here does not
depend on what it has computed before, and no sum changes its order.

``AlternateTraversal`` runs on scheduled functions, so workloads and their records know nothing of it, and only marks
loops. ``RunBackwards`` turns them round behind TVM's own passes: these multiply the reversed index out into every
address, which cost the innermost loops up to 40 %, and cut a smaller last tile off only at the end.

It pays where the second cache is small and memory slow: docs/fused-operators.md has the figures. A server's core loses
2 to 5 % by it, so it is for targets whose core is known to be a Cortex-A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import tvm
import tvm.tirx.transform
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir.stmt import SBlockRealize
from tvm.tirx import IterVar

from ..graph.bindings import Bindings, operands, operator, shape_of

MARK = "_backwards"  # ends the name of a loop's variable: annotations do not outlive the loop's partition
THREADS = "traversal_threads"

_CALLS = ("relax.call_tir", "relax.call_tir_inplace")
_TURNING = (tirx.ForKind.SERIAL, tirx.ForKind.PARALLEL)


@tvm.transform.module_pass(opt_level=0, name="AlternateTraversal")
class AlternateTraversal:
    """Mark the functions that ``main`` should run backwards; ``threads`` is how many share a parallel loop."""

    def __init__(self, threads: int = 1):
        self.threads = threads

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        result = mod.clone()
        for variable in walked_backwards(Bindings(mod["main"])):
            result.update_func(variable, marked(mod[variable]).with_attr(THREADS, self.threads))
        return result


def walked_backwards(bindings: Bindings) -> set[tvm.ir.GlobalVar]:
    """The functions that should run backwards.

    The first call decides, by the largest operand that has been walked before: a network repeats its units, so the
    later calls find their operands as the first one did.
    """
    backwards: dict[tvm.ir.GlobalVar, bool] = {}
    walked: dict[relax.Var, bool] = {}
    for binding in bindings.list:
        if operator(binding.value) not in _CALLS:
            continue
        callee, arguments = binding.value.args[0], operands(binding.value.args[1])
        if callee not in backwards:
            largest = max((var for var in arguments if var in walked), key=_elements, default=None)
            backwards[callee] = largest is not None and not walked[largest]
        walked.update(dict.fromkeys([*arguments, binding.var], backwards[callee]))
    return {callee for callee, chosen in backwards.items() if chosen}


def _elements(var: relax.Var) -> int:
    return math.prod(shape_of(var) or ())


def marked(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """``function`` with its outer loops marked to run backwards, down to where one stage follows another."""
    loops = [loop for loop in _outer_loops(function.body) if _turns(loop)]
    names = {
        loop.loop_var: tirx.Var(loop.loop_var.name + MARK, loop.loop_var.ty)
        for loop in loops
        if loop.loop_var not in _reduction_variables(loop)
    }
    return function.with_body(tvm_ffi.structural_map(function.body, (tirx.Var, lambda var: names.get(var, var))))


def _outer_loops(stmt: tirx.Stmt) -> Iterator[tirx.For]:
    """The loops around all that is computed, of each nest in ``stmt``."""
    if isinstance(stmt, SBlockRealize) and not stmt.iter_values:
        stmt = stmt.block.body
    for nest in stmt if isinstance(stmt, tirx.SeqStmt) else [stmt]:
        while isinstance(nest, tirx.For):
            yield nest
            nest = nest.body


def _turns(loop: tirx.For) -> bool:
    """Whether a loop runs through several whole numbers from zero, how many being known."""
    counted = isinstance(loop.min, tirx.IntImm) and isinstance(loop.extent, tirx.IntImm)
    return loop.kind in _TURNING and counted and int(loop.min) == 0 and int(loop.extent) > 1


def _reduction_variables(stmt: tirx.Stmt) -> set[tirx.Var]:
    """Variables on which a position along a reduction depends: their order is that of a sum."""
    found: set[tirx.Var] = set()

    def visit(realize: SBlockRealize) -> None:
        for axis, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
            if axis.iter_type != IterVar.DataPar:
                tvm_ffi.structural_walk(value, (tirx.Var, found.add))

    tvm_ffi.structural_walk(stmt, (SBlockRealize, visit))
    return found


@tirx.transform.prim_func_pass(opt_level=0, name="RunBackwards")
class RunBackwards:
    """Turn the marked loops of a lowered function round."""

    def transform_function(self, function: tirx.PrimFunc, _mod, _context) -> tirx.PrimFunc:
        if THREADS not in function.attrs:
            return function
        threads = int(function.attrs[THREADS])

        def turn(loop: tirx.For) -> tirx.For:
            return _backwards(loop, threads) if loop.loop_var.name.endswith(MARK) else loop

        return function.with_body(tvm_ffi.structural_map(function.body, (tirx.For, turn)))


def _backwards(loop: tirx.For, threads: int) -> tirx.For:
    """``loop`` backwards; a parallel one within each thread's share, so that each meets the data in its own cache."""
    extent = int(loop.extent)
    share = -(-extent // threads) if loop.kind == tirx.ForKind.PARALLEL else extent
    step = tirx.Var(loop.loop_var.name.removesuffix(MARK), loop.loop_var.ty)
    begin = step // share * share
    place = begin + tirx.min(begin + share, extent) - 1 - step if share < extent else extent - 1 - step
    body = tirx.SeqStmt([tirx.Bind(loop.loop_var, place), loop.body])
    return tirx.For(step, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations)
