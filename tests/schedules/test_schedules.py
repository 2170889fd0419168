"""The registry of templates: defaults that apply and replay, what has no template, a mutator that moves one knob."""

from __future__ import annotations

import pytest
import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from helpers.laid_out import Depthwise, Pointwise
from tvm_shufflenet.errors import ScheduleRejected
from tvm_shufflenet.hardware.isa import AVX512, NEON
from tvm_shufflenet.hardware.machine import machine_for, unknown
from tvm_shufflenet.hardware.targets import targets
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.mutate import MutateChoice
from tvm_shufflenet.schedules.space import divisors
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics

MACHINES = sorted({machine_for(target) for target in targets().values()} | {unknown(AVX512)}, key=repr)
WORKLOADS = {
    "pointwise": Pointwise(1, 24, 7, 7, 24, 48, groups=3, relu=True, shuffle_groups=3),
    "pointwise of 25 channels": Pointwise(1, 10, 7, 7, 10, 50, groups=2, relu=True),
    "pointwise residual": Pointwise(1, 24, 14, 14, 24, 24, groups=3, relu=True, residual=True),
    "depthwise": Depthwise(1, 4, 14, 14),
    "depthwise stride 2": Depthwise(1, 4, 14, 14, stride=(2, 2)),
}


def test_divisors():
    assert divisors(12, 100) == [1, 2, 3, 4, 6, 12]
    assert divisors(12, 5) == [1, 2, 3, 4]
    assert divisors(7, 6) == [1] and divisors(1, 1) == [1]


# Whole schedules


def workload(name: str) -> tvm.IRModule:
    return tvm.IRModule({"main": WORKLOADS[name].function()})


def decisions(trace) -> list[tuple[tuple[int, ...], int]]:
    """Candidates and decision of every knob, in the trace's order."""
    knobs = [inst for inst in trace.insts if inst.kind.name == "SampleCategorical"]
    return [(tuple(int(candidate) for candidate in knob.attrs[0]), int(trace.decisions[knob])) for knob in knobs]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.isa.name)
@pytest.mark.parametrize("name", WORKLOADS)
def test_the_default_takes_the_first_candidate_of_every_knob(name, machine):
    mod = workload(name)
    assert rules.template_name(mod) == name.split()[0]
    candidate = rules.default_candidate(mod, machine)
    assert decisions(candidate.sch.trace) and {decision for _, decision in decisions(candidate.sch.trace)} == {0}
    again = rules.default_candidate(mod, machine)
    tvm.ir.assert_structural_equal(candidate.sch.mod, again.sch.mod)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_default_s_trace_replays_to_the_same_schedule(name):
    """What a record stores is the trace alone."""
    mod = workload(name)
    candidate = rules.default_candidate(mod, unknown(NEON))
    replayed = Schedule(mod)
    candidate.sch.trace.apply_to_schedule(replayed, remove_postproc=False)
    tvm.ir.assert_structural_equal(candidate.sch.mod, replayed.mod)


def dense() -> tvm.IRModule:
    k = te.reduce_axis((0, 16), name="k")
    left, right = te.placeholder((8, 16), name="left"), te.placeholder((16, 8), name="right")
    product = te.compute((8, 8), lambda i, j: te.sum(left[i, k] * right[k, j], axis=k), name="dense")
    return tvm.IRModule({"main": te.create_prim_func([left, right, product])})


def test_other_operators_have_no_template():
    mod = dense()
    assert rules.template_name(mod) is None
    for use in (rules.default_schedule, rules.default_candidate):
        with pytest.raises(ScheduleRejected, match="no template"):
            use(mod, unknown(NEON))
    for strategy in ("template", "ansor"):
        assert isinstance(rules.space(mod, unknown(NEON), strategy), ms.space_generator.PostOrderApply)


def test_ansor_searches_generated_sketches_of_our_operators_too():
    generated = rules.space(workload("pointwise"), unknown(NEON), "ansor")
    assert isinstance(generated, ms.space_generator.PostOrderApply)
    ours = rules.space(workload("pointwise"), unknown(NEON), "template")
    assert isinstance(ours, ms.space_generator.ScheduleFn)


# The mutator


def knobbed() -> Schedule:
    return next(iter(rules.TEMPLATES["pointwise"](Schedule(workload("pointwise"), seed=1), unknown(NEON))))


def test_a_mutation_changes_exactly_one_decision_to_another_candidate():
    trace, mutator = knobbed().trace, MutateChoice()
    before, moved = decisions(trace), set()
    for _ in range(60):
        after = decisions(mutator.apply(trace))
        assert [candidates for candidates, _ in after] == [candidates for candidates, _ in before]
        changed = [index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert len(changed) == 1
        candidates, decision = after[changed[0]]
        assert 0 <= decision < len(candidates)
        moved.add((changed[0], decision))
    alternatives = sum(len(candidates) - 1 for candidates, _ in before)
    assert len(moved) == alternatives, "every other candidate of every knob is within one move"


def test_a_mutated_trace_still_applies():
    mutated = Schedule(workload("pointwise"))
    trace = MutateChoice().apply(knobbed().trace)
    trace.apply_to_schedule(mutated, remove_postproc=True)
    assert decisions(mutated.trace) == decisions(trace)


def test_a_trace_without_a_choice_is_not_mutated():
    one_pixel = tvm.IRModule({"main": Pointwise(1, 1, 1, 1, 1, 1).function()})
    (schedule, *_) = rules.TEMPLATES["pointwise"](Schedule(one_pixel, seed=1), unknown(NEON))
    assert {len(candidates) for candidates, _ in decisions(schedule.trace)} == {1}
    assert MutateChoice().apply(schedule.trace) is None


def test_the_mutator_draws_from_the_context_s_seed():
    load_intrinsics()

    def walk(seed: int) -> list:
        mutator = MutateChoice()
        mutator._initialize_with_tune_context(ms.TuneContext(workload("pointwise"), rand_state=seed))
        return [decisions(mutator.apply(knobbed().trace)) for _ in range(12)]

    assert walk(1) == walk(1)
    assert walk(1) != walk(2)
