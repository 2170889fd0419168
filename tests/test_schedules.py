"""The search spaces: every variant legal and none missing, defaults that apply, a mutator that moves one knob."""

from __future__ import annotations

import functools

import pytest
import torch
import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from tvm_shufflenet import models
from tvm_shufflenet.errors import ScheduleRejected
from tvm_shufflenet.models.shufflenet_v1 import ShuffleNetV1
from tvm_shufflenet.operators.depthwise import depthwise
from tvm_shufflenet.operators.pointwise import pointwise
from tvm_shufflenet.schedules import depthwise as depthwise_schedule
from tvm_shufflenet.schedules import pointwise as pointwise_schedule
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.mutate import MutateChoice
from tvm_shufflenet.schedules.pointwise import Shape
from tvm_shufflenet.schedules.rules import Machine
from tvm_shufflenet.schedules.space import divisors
from tvm_shufflenet.targets import targets
from tvm_shufflenet.tuning.driver import load_intrinsics

MACHINES = sorted({Machine(target.lanes, target.vector_registers) for target in targets().values()} | {Machine(16, 32)})
AWKWARD = [Shape(blocks, inputs, outputs, p) for p in (49, 196, 1, 35) for blocks, inputs, outputs in
           ((1, 3, 8), (3, 20, 80), (2, 25, 13), (4, 9, 17), (8, 7, 1), (1, 1, 1), (2, 100, 25))]  # fmt: skip


@functools.cache
def network_shapes(size: int) -> tuple[frozenset[Shape], frozenset[tuple[int, int]]]:
    """Pointwise workloads, and output planes of depthwise ones, in all networks of the zoo at ``size`` x ``size``."""
    pointwise_shapes, planes = set(), set()

    def note(layer, inputs, output):
        height, width = output.shape[2:]
        if layer.kernel_size == (1, 1):
            blocks = max(layer.groups, layer.shuffle_groups)
            shape = Shape(blocks, inputs[0].shape[1] // layer.groups, output.shape[1] // blocks, height * width)
            pointwise_shapes.add(shape)
        elif layer.groups > 1:
            planes.add((height, width))

    for groups in models.GROUPS:
        for width in models.WIDTHS.values():
            with torch.device("meta"):
                network, image = ShuffleNetV1(groups, width).eval(), torch.empty(1, 3, size, size)
            for layer in network.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.shuffle_groups = 1
                    layer.register_forward_hook(note)
            for unit in network.units:
                unit.compress.shuffle_groups = groups
            network(image)
    return frozenset(pointwise_shapes), frozenset(planes)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("size", [224, 160, 32])
def test_every_pointwise_workload_of_the_zoo_has_legal_variants(size, machine):
    shapes, _ = network_shapes(size)
    assert len(shapes) > 100
    for shape in shapes:
        check_pointwise(shape, machine)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("shape", AWKWARD, ids=str)
def test_awkward_planes_and_channels_have_legal_variants(shape, machine):
    check_pointwise(shape, machine)


def check_pointwise(shape: Shape, machine: Machine) -> None:
    found = pointwise_schedule.variants(shape, *machine)
    assert found, shape
    assert len(set(found)) == len(found)
    for variant in found:
        extent, row_extent = shape.pixels, shape.outputs
        if variant.axis == "channels":
            extent, row_extent = row_extent, extent
        assert extent % (variant.lanes * variant.vectors) == 0, (shape, variant)
        registers = variant.vectors * -(-variant.lanes // machine.lanes)
        for rows in variant.rows:
            assert row_extent % rows == 0, (shape, variant)
            assert rows * registers <= machine.registers - pointwise_schedule.RESERVED_REGISTERS, (shape, variant)


def test_vectors_are_full_wherever_an_axis_allows_it():
    """The fallbacks are for shapes that leave no other way."""
    for machine in MACHINES:
        for variant in pointwise_schedule.variants(Shape(3, 80, 20, 784), *machine):
            assert variant.lanes == machine.lanes if variant.axis == "pixels" else variant.lanes >= 4
            assert min(variant.rows) > 1
        assert {v.axis for v in pointwise_schedule.variants(Shape(3, 240, 80, 49), *machine)} == {"channels"}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_every_depthwise_plane_of_the_zoo_has_legal_variants(machine):
    planes = network_shapes(224)[1] | network_shapes(160)[1] | {(7, 7), (14, 14), (1, 1), (5, 7), (35, 35), (3, 112)}
    for height, width in planes:
        found = depthwise_schedule.variants(height, width, *machine)
        assert found, (height, width)
        for variant in found:
            assert width % variant.lanes == 0 and all(height % rows == 0 for rows in variant.rows)
            registers = width // variant.lanes * -(-variant.lanes // machine.lanes)
            budget = machine.registers - depthwise_schedule.RESERVED_REGISTERS
            # One row is the smallest tile there is, even where it is longer than all registers together.
            assert variant.rows == (1,) or max(variant.rows) * registers <= budget, (height, width, variant)


def test_divisors():
    assert divisors(12, 100) == [1, 2, 3, 4, 6, 12]
    assert divisors(12, 5) == [1, 2, 3, 4]
    assert divisors(7, 6) == [1] and divisors(1, 1) == [1]


# Whole schedules


WORKLOADS = {
    "pointwise": lambda: pointwise((1, 24, 7, 7), 48, groups=3, relu=True, shuffle_groups=3),
    "pointwise of 25 channels": lambda: pointwise((1, 10, 7, 7), 50, groups=2, relu=True),
    "pointwise residual": lambda: pointwise((1, 24, 14, 14), 24, groups=3, relu=True, residual=True),
    "depthwise": lambda: depthwise((1, 4, 14, 14), (3, 3), stride=(1, 1), padding=(1, 1, 1, 1), relu=False),
    "depthwise stride 2": lambda: depthwise((1, 4, 14, 14), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1), relu=False),
}


def workload(name: str) -> tvm.IRModule:
    return tvm.IRModule({"main": WORKLOADS[name]()})


def decisions(trace) -> list[tuple[tuple[int, ...], int]]:
    """Candidates and decision of every knob, in the trace's order."""
    knobs = [inst for inst in trace.insts if inst.kind.name == "SampleCategorical"]
    return [(tuple(int(candidate) for candidate in knob.attrs[0]), int(trace.decisions[knob])) for knob in knobs]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
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
    candidate = rules.default_candidate(mod, Machine(4, 32))
    replayed = Schedule(mod)
    candidate.sch.trace.apply_to_schedule(replayed, remove_postproc=False)
    tvm.ir.assert_structural_equal(candidate.sch.mod, replayed.mod)


def test_weights_of_a_candidate_are_packed():
    """The weight is free in layout: the candidate packs it in the order in which the schedule reads it."""
    function = WORKLOADS["pointwise residual"]()
    machine = Machine(4, 32)
    fixed = rules.default_candidate(tvm.IRModule({"main": function}), machine)
    free = rules.default_candidate(tvm.IRModule({"main": function.with_attr("layout_free_buffers", [1])}), machine)
    assert "layout_rewrite" in free.sch.mod.script()
    assert "layout_rewrite" not in fixed.sch.mod.script()
    assert decisions(free.sch.trace) == decisions(fixed.sch.trace)


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
            use(mod, Machine(4, 32))
    for strategy in ("template", "ansor"):
        assert isinstance(rules.space(mod, Machine(4, 32), strategy), ms.space_generator.PostOrderApply)


def test_ansor_searches_generated_sketches_of_our_operators_too():
    generated = rules.space(workload("pointwise"), Machine(4, 32), "ansor")
    assert isinstance(generated, ms.space_generator.PostOrderApply)
    ours = rules.space(workload("pointwise"), Machine(4, 32), "template")
    assert isinstance(ours, ms.space_generator.ScheduleFn)


# The mutator


def knobbed() -> Schedule:
    return next(iter(rules.TEMPLATES["pointwise"](Schedule(workload("pointwise"), seed=1), Machine(4, 32))))


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
    one_pixel = tvm.IRModule({"main": pointwise((1, 1, 1, 1), 1, groups=1, relu=False)})
    (schedule, *_) = rules.TEMPLATES["pointwise"](Schedule(one_pixel, seed=1), Machine(4, 32))
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
