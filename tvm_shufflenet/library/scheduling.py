"""Schedules the operators of a fused network: by a record, by the nearest record, or by a template's default."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import tvm
from tvm import relax
from tvm.relax import transform
from tvm.s_tir import meta_schedule as ms

from ..errors import RecordMismatch, lines_of
from ..graph.phases import phase
from ..graph.pipeline import Fused
from ..graph.tasks import OperatorTask
from ..hardware.machine import Machine, machine_for
from ..hardware.targets import Target
from ..schedules import rules
from ..schedules.admitted import check_straight
from ..schedules.nearest import Neighbour, near_trace
from . import alternate, lowering

# A time no record has: a default schedule only stands in where there is none.
NEVER = 1e9
NEAR_RECORD = "near record"


@dataclass(frozen=True)
class Operator:
    """One distinct operator of a library: how often it occurs, and what scheduled it.

    ``schedule`` is ``record`` (with ``record_us``, its time when it was tuned, and the CPU it was ``tuned_for``),
    ``near record`` (no record: the template's candidate that is most like the record of a workload nearly the same,
    ``tuned_for`` that CPU), ``template`` (none is near: the template's default) or ``none`` (no template either: TVM's
    plain loops). ``multiply_adds`` are those of one call, ``arguments`` the shape and dtype of each tensor that it
    takes, ``layers`` the names of the model's layers whose weights it holds.
    """

    name: str
    occurrences: int
    schedule: str
    record_us: float | None = None
    tuned_for: str | None = None
    multiply_adds: int = 0
    arguments: tuple[tuple[tuple[int, ...], str], ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scheduled:
    """A network of operators that are ready to be compiled, and what is known about each of them.

    ``workloads`` are the operators before they were scheduled, by name; none where all are as TVM generates them.
    ``weights`` are the constants that each operator is called with, as in OperatorTask.
    """

    module: tvm.IRModule
    operators: tuple[Operator, ...]
    target: Target
    workloads: Mapping[str, tvm.IRModule] = field(default_factory=dict)
    weights: Mapping[str, tuple[tvm.ir.GenericConst, ...]] = field(default_factory=dict)

    @functools.cached_property
    def planned(self) -> tvm.IRModule:
        """The network with its memory planned. Raises DeployError where it would overwrite what is needed."""
        with self.target.tvm():
            return lowering.with_storages(self.module)

    @functools.cached_property
    def memory_bytes(self) -> tuple[int, int]:
        """Of the storages that the memory planner shares among activations, and of the constants."""
        storages = weights = 0

        def visit(expr):
            nonlocal storages, weights
            if isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == "relax.memory.alloc_storage":
                storages += math.prod(int(dim) for dim in expr.args[0].values)
            elif isinstance(expr, tvm.ir.GenericConst) and hasattr(expr.value, "numpy"):
                weights += expr.value.numpy().nbytes

        relax.analysis.post_order_visit(self.planned["main"], visit)
        return storages, weights


def schedule_untuned(fused: Fused) -> Scheduled:
    """No operator has a schedule: with ``graph.pipeline.stock``, TVM's own untuned code, the baseline."""
    operators = tuple(_of_task(task, Operator(task.name, task.occurrences, "none")) for task in fused.tasks)
    weights = {task.name: task.weights for task in fused.tasks}
    return Scheduled(fused.module, operators, fused.target, weights=weights)


def schedule_tuned(
    fused: Fused,
    database: ms.database.MemoryDatabase,
    threads: int = 1,
    neighbours: Sequence[Neighbour] = (),
) -> Scheduled:
    """The operators with the best records of ``database``; where it has none, after the nearest of ``neighbours`` if
    that is near, else by the templates' defaults.

    All share an operator's work among ``threads``: ``database`` holds records for so many. What stands in is added to
    it as records that any real one beats.
    """
    target, tasks = fused.target, fused.tasks
    machine = machine_for(target, threads)
    operators = tuple(_of_task(task, _choose(task, target, machine, database, neighbours)) for task in tasks)
    try:
        with target.tvm(), database:
            scheduled = phase("scheduled", transform.MetaScheduleApplyDatabase())(fused.module)
        for function in scheduled.functions.values():
            if isinstance(function, tvm.tirx.PrimFunc):
                check_straight(function)
    except Exception as exc:
        raise RecordMismatch(
            f"a record's schedule does not apply to its operator: {lines_of(exc)[-1]}",
            "it was edited, or made by another version of the templates",
            "tvm-shufflenet records verify DIR, which names it",
        ) from exc
    if target.board is not None:
        scheduled = phase("alternated", alternate.AlternateTraversal(threads))(scheduled)
    weights = {task.name: task.weights for task in tasks}
    return Scheduled(scheduled, operators, target, {task.name: task.mod for task in tasks}, weights)


def _choose(
    task: OperatorTask,
    target: Target,
    machine: Machine,
    database: ms.database.MemoryDatabase,
    neighbours: Sequence[Neighbour],
) -> Operator:
    mod, name, count = task.mod, task.name, task.occurrences
    record = database.query_tuning_record(mod, target.tvm(), name)
    if record is not None and float(record.run_secs[0]) < NEVER:
        best_us = 1e6 * min(float(seconds) for seconds in record.run_secs)
        return Operator(name, count, "record", best_us, str(record.target.attrs["mcpu"]))
    if rules.template_name(mod) is None:
        return Operator(name, count, "none")
    near = near_trace(mod, task.arguments, machine, neighbours)
    candidate = rules.default_candidate(mod, machine) if near is None else rules.candidate(mod, near[0])
    workload = database.commit_workload(mod)
    database.commit_tuning_record(
        ms.database.TuningRecord(candidate.sch.trace, workload, [NEVER], target.tvm(), candidate.args_info)
    )
    return Operator(name, count, "template") if near is None else Operator(name, count, NEAR_RECORD, None, near[1].cpu)


def _of_task(task: OperatorTask, operator: Operator) -> Operator:
    return replace(operator, multiply_adds=task.multiply_adds, arguments=task.arguments)
