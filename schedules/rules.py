"""Chooses the space a workload is searched in: one of the templates here, or TVM's generated sketches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace

from ..errors import ScheduleRejected
from ..hardware.machine import Machine
from ..operators import registry
from ..precision import FLOAT32, Precision, precision_of
from .mutate import MutateChoice
from .template import schedules_these


def precision_of_operator(mod: IRModule) -> Precision:
    """What it computes in: of its tensors' dtypes the narrowest. What it reads or writes may be wider."""
    arguments = ms.arg_info.ArgInfo.from_prim_func(mod["main"])
    found = (precision_of(str(each.dtype)) for each in arguments)
    return min(filter(None, found), key=lambda each: each.bytes, default=FLOAT32)


def _of_its_precision(schedules: Callable) -> Callable:
    """A template's ``schedules``, told the machine as it is for the operator's precision."""

    def told(sch: Schedule, machine: Machine) -> Iterator[Schedule]:
        return schedules(sch, machine.computing_in(precision_of_operator(sch.mod)))

    return told


TEMPLATES = {entry.name: _of_its_precision(entry.template.schedules) for entry in registry.entries()}


def template_name(mod: IRModule) -> str | None:
    """The template that schedules this workload, or None where only generated sketches can."""
    sch = Schedule(mod)
    blocks = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    return next((entry.name for entry in registry.entries() if schedules_these(entry.template, blocks)), None)


def space(mod: IRModule, machine: Machine, strategy: str) -> ms.SpaceGenerator:
    """The design space of ``mod`` under ``strategy``: ``template`` where one matches, else TVM's generated sketches."""
    name = template_name(mod) if strategy == "template" else None
    if name is None:
        return ms.space_generator.PostOrderApply()

    def schedules(sch: Schedule) -> list[Schedule]:
        return list(TEMPLATES[name](sch, machine))

    return ms.space_generator.ScheduleFn(schedules, sch_rules=[], postprocs=[], mutator_probs={MutateChoice(): 1.0})


def rule_kind(context: ms.TuneContext) -> str | None:
    """Which of TVM's rule sets a generated space comes from: it follows from the target's features, silently.

    None for a template, which has no rules. The sets differ in how many tilings use tensor intrinsics.
    """
    rules = [type(rule).__name__ for rule in context.space_generator.sch_rules or ()]
    if not rules:
        return None
    kinds = ("llvm", "asimd", None, "dotprod") if "arm_cpu" in context.target.keys else ("llvm", "avx512 or vnni")
    with_intrinsics = rules.count("MultiLevelTilingWithIntrin")
    kind = kinds[with_intrinsics] if with_intrinsics < len(kinds) else None
    return kind or f"{with_intrinsics} intrinsics"


def default_candidate(mod: IRModule, machine: Machine) -> ms.MeasureCandidate:
    """The template's best guess as a candidate like those of the search. Raises ScheduleRejected without a template."""
    return _as_candidate(default_schedule(mod, machine))


def candidate(mod: IRModule, trace: Trace) -> ms.MeasureCandidate:
    """``mod`` scheduled by ``trace``, as a candidate like those of the search."""
    return _as_candidate(_traced(mod, trace))


def _as_candidate(schedule: Schedule) -> ms.MeasureCandidate:
    schedule.enter_postproc()
    return ms.MeasureCandidate(schedule, ms.arg_info.ArgInfo.from_entry_func(schedule.mod, remove_preproc=True))


def default_schedule(mod: IRModule, machine: Machine) -> Schedule:
    """The template's first variant, first candidate of every knob. Raises ScheduleRejected without a template."""
    name = template_name(mod)
    if name is None:
        raise ScheduleRejected("no template schedules this operator")
    trace = next(iter(TEMPLATES[name](Schedule(mod, seed=1), machine))).trace
    for knob in list(trace.decisions):
        trace = trace.with_decision(knob, 0, remove_postproc=True)
    return _traced(mod, trace)


def _traced(mod: IRModule, trace: Trace) -> Schedule:
    schedule = Schedule(mod, seed=1)
    trace.apply_to_schedule(schedule, remove_postproc=True)
    return schedule
