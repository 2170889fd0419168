"""The distinct operators of a network, each a workload to schedule and tune.

MetaSchedule's own extraction does not see calls that write in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import relax
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.tirx import IterVar, Mul

from .bindings import Bindings, constant, operator, shape_of

_CALLS = ("relax.call_tir", "relax.call_tir_inplace")


@dataclass(frozen=True)
class OperatorTask:
    """One PrimFunc as a module in MetaSchedule's normal form, and how often the network calls it. ``weights`` are the
    first constant of more than one axis in each call that has any."""

    name: str
    mod: tvm.IRModule
    occurrences: int
    weights: tuple[tvm.ir.GenericConst, ...] = ()

    @property
    def flops(self) -> float:
        """Operations of one call: two for each step of a reduction, one for each element that is merely computed."""
        return float(sum(_steps(block) * (2 if _reduces(block) else 1) for block in self._blocks()))

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one call that end in its result: those of padding that is thrown away do not count."""
        blocks = self._blocks()
        results = _results(blocks[-1])
        return sum(
            min(_results(block), results) * (_steps(block) // _results(block))
            for block in blocks
            if _reduces(block) and _multiplies(block)
        )

    @property
    def arguments(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """Shape and dtype of each tensor that a call takes, the result's last."""
        return tuple(argument_shapes(self.mod))

    def _blocks(self) -> list:
        schedule = Schedule(self.mod)
        return [schedule.get(block) for block in schedule.get_child_blocks(schedule.get_sblock("root"))]


def argument_shapes(mod: tvm.IRModule) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each argument of a workload."""
    infos = ms.arg_info.ArgInfo.from_prim_func(mod["main"])
    return [(tuple(int(dim) for dim in info.shape), str(info.dtype)) for info in infos]


def _steps(block) -> int:
    return math.prod(int(axis.dom.extent) for axis in block.iter_vars)


def _results(block) -> int:
    """Elements that a block computes: its steps without those of reductions."""
    return math.prod(int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == IterVar.DataPar)


def _reduces(block) -> bool:
    return block.init is not None


def _multiplies(block) -> bool:
    """Whether what a block adds up are products of floats; products of integers are indices."""

    def visit(node):
        is_product = isinstance(node, Mul) and "float" in str(node.ty)
        return tvm_ffi.VisitInterrupt(node) if is_product else None

    return tvm_ffi.structural_walk(block.body, visit) is not None


def _constants(call: relax.Call) -> list[tvm.ir.GenericConst]:
    """Of more than one axis, in the order of the call's arguments."""
    fields = call.args[1].fields if isinstance(call.args[1], relax.Tuple) else [call.args[1]]
    return [each for each in fields if (shape := shape_of(each)) and len(shape) > 1 and constant(each) is not None]


def operator_tasks(module: tvm.IRModule) -> list[OperatorTask]:
    """The workloads that ``main`` calls, in the order of their first call. Equal functions are one workload."""
    normalize = tvm.get_global_func("tvm.s_tir.meta_schedule.normalize_mod")
    found: dict[int, OperatorTask] = {}
    for binding in Bindings(module["main"]).list:
        if operator(binding.value) not in _CALLS:
            continue
        callee = binding.value.args[0]
        mod = normalize(module[callee])
        key = tvm_ffi.structural_hash(mod)
        task = found.get(key) or OperatorTask(str(callee.name_hint), mod, 0)
        weights = (*task.weights, *_constants(binding.value)[:1])
        found[key] = replace(task, occurrences=task.occurrences + 1, weights=weights)
    return list(found.values())
