"""Which space a workload is searched in: one of the templates here, or TVM's own generated sketches."""

from __future__ import annotations

from typing import NamedTuple

from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from ..errors import ScheduleRejected
from . import depthwise, pointwise
from .mutate import MutateChoice


class Machine(NamedTuple):
    """What a template needs to know of the target: float32 lanes of a vector register, and how many there are."""

    lanes: int
    registers: int


def template_name(mod: IRModule) -> str | None:
    """The template that schedules this workload, or None where only generated sketches can."""
    sch = Schedule(mod)
    blocks = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    return next((name for name in TEMPLATES if {name, "epilogue"} <= blocks), None)


def _pointwise_schedules(sch: Schedule, machine: Machine):
    shape = pointwise.read_shape(sch.get(sch.get_sblock("pointwise")))
    for variant in pointwise.variants(shape, *machine):
        copy = sch.copy()
        pointwise.pointwise_template(copy, variant)
        yield copy


def _depthwise_schedules(sch: Schedule, machine: Machine):
    *_, height, width = [int(axis.dom.extent) for axis in sch.get(sch.get_sblock("epilogue")).iter_vars]
    for variant in depthwise.variants(height, width, *machine):
        copy = sch.copy()
        depthwise.depthwise_template(copy, variant)
        yield copy


TEMPLATES = {"pointwise": _pointwise_schedules, "depthwise": _depthwise_schedules}


def space(mod: IRModule, machine: Machine, strategy: str) -> ms.SpaceGenerator:
    """The design space of ``mod`` under ``strategy``: ``template`` where one matches, else TVM's generated sketches."""
    name = template_name(mod) if strategy == "template" else None
    if name is None:
        return ms.space_generator.PostOrderApply()

    def schedules(sch: Schedule) -> list[Schedule]:
        return list(TEMPLATES[name](sch, machine))

    return ms.space_generator.ScheduleFn(
        schedules, sch_rules=[], postprocs=_postprocs(), mutator_probs={MutateChoice(): 1.0}
    )


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


def _postprocs() -> list[ms.Postproc]:
    """Weights are packed in the order in which the schedule reads them, when the library is compiled."""
    return [ms.postproc.RewriteLayout()]


def default_candidate(mod: IRModule, machine: Machine) -> ms.MeasureCandidate:
    """The template's best guess as a candidate like those of the search. Raises ScheduleRejected without a template."""
    schedule = default_schedule(mod, machine)
    schedule.enter_postproc()
    for postproc in _postprocs():
        if not postproc.apply(schedule):
            raise ScheduleRejected(f"the default schedule does not survive {postproc}")
    arguments = ms.arg_info.ArgInfo.from_entry_func(schedule.mod, remove_preproc=True)
    return ms.MeasureCandidate(schedule, arguments)


def default_schedule(mod: IRModule, machine: Machine) -> Schedule:
    """The template's first variant, first candidate of every knob. Raises ScheduleRejected without a template."""
    name = template_name(mod)
    if name is None:
        raise ScheduleRejected("no template schedules this operator")
    trace = next(iter(TEMPLATES[name](Schedule(mod, seed=1), machine))).trace
    for knob in list(trace.decisions):
        trace = trace.with_decision(knob, 0, remove_postproc=True)
    schedule = Schedule(mod, seed=1)
    trace.apply_to_schedule(schedule, remove_postproc=True)
    return schedule
