"""Schedules after the nearest record: what is near, what is taken over, that it is right, and what a package says."""

from __future__ import annotations

import json
import math
import sys

import msgspec
import numpy as np
import pytest
import torch
import tvm
from hypothesis import assume, given
from hypothesis import strategies as st
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from helpers.kernels import HOST, check, draw, module, run
from helpers.laid_out import Convolution, Dense, Depthwise, Pointwise, Pooling
from helpers.recording import put
from helpers.scripts import load
from tvm_shufflenet import models
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.hardware.machine import Machine, machine_for
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.nearest import NEAR, Neighbour, distance, near_trace, outline
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.support.containers import plain
from tvm_shufflenet.tuning.records.shipped import BEST, write_best
from tvm_shufflenet.tuning.records.store import RecordStore, workload_hash
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
A72 = machine_for(find_target("cortex-a72"))
LOCAL = machine_for(HOST)

# A workload, and one that is near it.
PAIRS = {
    "pointwise": (Pointwise(1, 48, 14, 14, 48, 60, 3, relu=True), Pointwise(1, 60, 14, 14, 60, 60, 3, relu=True)),
    "7x7": (Pointwise(1, 64, 7, 7, 64, 54, 2, residual=True), Pointwise(1, 64, 7, 7, 64, 60, 2, residual=True)),
    "depthwise": (Depthwise(1, 20, 14, 14), Depthwise(1, 24, 14, 14)),
    "convolution": (Convolution(1, 3, 32, 32, 24, stride=(2, 2)), Convolution(1, 3, 32, 32, 20, stride=(2, 2))),
    "pooling": (Pooling(1, 8, 28, 28), Pooling(1, 9, 28, 28)),
    "dense": (Dense(1, 60, 100, plane=(7, 7)), Dense(1, 64, 100, plane=(7, 7))),
}


def traces(kernel, machine: Machine, seed: int = 5) -> list:
    """A random point of every variant of the kernel's template."""
    mod = module(kernel)
    points = rules.TEMPLATES[rules.template_name(mod)](Schedule(mod, seed=seed), machine)
    return [point.trace for point in points]


def arguments(kernel) -> list:
    return argument_shapes(module(kernel))


def neighbour(kernel, trace) -> Neighbour:
    return Neighbour(arguments(kernel), plain(trace.as_json()), "some-cpu")


def after(kernel, machine: Machine, *neighbours: Neighbour):
    return near_trace(module(kernel), arguments(kernel), machine, neighbours)


def numbers(trace) -> list[int]:
    """Constants and values of knobs."""
    instructions, decisions = plain(trace.as_json())
    found = outline(instructions)
    return found.constants + [knob[index] for knob, (_, index) in zip(found.knobs, decisions, strict=True)]


# Distance


@st.composite
def shapes(drawn, kinds=((4, "float32"), (2, "float32"), (1, "int32"), (4, "float32"))):
    extents = st.integers(1, 1000)
    return [(tuple(drawn(extents) for _ in range(rank)), dtype) for rank, dtype in kinds]


@given(one=shapes(), other=shapes(), lanes=st.sampled_from((4, 8, 16)))
def test_distance_is_symmetric_and_zero_to_itself_alone(one, other, lanes):
    assert distance(one, one, lanes) == 0
    assert distance(one, other, lanes) == pytest.approx(distance(other, one, lanes))
    assume(one != other)
    assert 0 < distance(one, other, lanes) < math.inf


@given(one=shapes(), index=st.integers(0, 3))
def test_other_parts_are_infinitely_far(one, index):
    shape, dtype = one[index]
    for part in ((*shape, 1), dtype), (shape, "float64"):
        assert distance(one, [*one[:index], part, *one[index + 1 :]], 4) == math.inf
    assert distance(one, one[:-1], 4) == math.inf


def test_a_plane_that_ends_within_a_vector_is_far_from_one_that_does_not():
    even, odd = arguments(Depthwise(1, 20, 14, 14)), arguments(Depthwise(1, 20, 15, 15))
    assert distance(even, odd, 4) > 1 > NEAR
    assert distance(even, arguments(Depthwise(1, 20, 14, 16)), 4) < NEAR


# What is taken over


@pytest.mark.parametrize("name", PAIRS)
def test_a_record_s_own_shape_gets_exactly_its_schedule(name):
    kernel, _ = PAIRS[name]
    for trace in traces(kernel, A72)[::8]:
        recorded = trace.simplified(remove_postproc=True)  # as a search leaves it
        expected = rules.candidate(module(kernel), trace).sch.mod
        for record in (trace, recorded):
            found, _ = after(kernel, A72, neighbour(kernel, record))
            tvm.ir.assert_structural_equal(rules.candidate(module(kernel), found).sch.mod, expected)


@pytest.mark.parametrize("name", PAIRS)
def test_what_comes_out_is_legal_and_computes_what_the_operator_does(name):
    there, kernel = PAIRS[name]
    operands = [draw(*shape, seed=place) for place, (shape, _) in enumerate(arguments(kernel)[:-1])]
    expected = run(module(kernel), operands, np.zeros(kernel.output_shape, np.float32))
    found = [after(kernel, LOCAL, neighbour(there, trace)) for trace in traces(there, LOCAL)[::6]]
    made = [rules.candidate(module(kernel), trace).sch.mod for trace, _ in filter(None, found)]
    assert len(made) > len(found) / 2
    for mod in list({workload_hash(mod): mod for mod in made}.values())[:3]:
        check(mod, operands, expected)


def test_a_far_record_is_not_used():
    there = Pointwise(1, 48, 14, 14, 48, 60, 3, relu=True)
    (record, *_) = (neighbour(there, trace) for trace in traces(there, A72))
    for far in (Pointwise(1, 480, 14, 14, 480, 600, 3, relu=True), Pointwise(1, 48, 28, 28, 48, 60, 3, relu=True)):
        assert after(far, A72, record) is None
    assert after(Pointwise(1, 48, 14, 14, 48, 60, 3, relu=True, residual=True), A72, record) is None
    assert after(there, A72) is None


def test_constants_grow_with_the_shape():
    """A strip that is the whole plane of the record is the whole plane here, though no number is the same."""
    there, kernel = Pointwise(1, 48, 14, 14, 48, 60, 3), Pointwise(1, 48, 14, 16, 48, 60, 3)
    whole = [trace for trace in traces(there, A72) if 196 in numbers(trace)][:3]
    assert whole
    for trace in whole:
        found, _ = after(kernel, A72, neighbour(there, trace))
        assert 224 in numbers(found) and 196 not in numbers(found)


def test_the_nearer_of_two_is_used():
    near, nearer, kernel = (Depthwise(1, channels, 14, 14) for channels in (20, 22, 24))
    first, *_, last = traces(near, A72)
    one, other = neighbour(near, first), neighbour(nearer, last)
    for order in ((one, other), (other, one)):
        found, used = after(kernel, A72, *order)
        assert used is other
        assert numbers(found) == numbers(after(kernel, A72, other)[0]) != numbers(after(kernel, A72, one)[0])


def test_a_generated_schedule_is_passed_over():
    """What another strategy found is nothing that the template could make."""
    load_intrinsics()
    there, kernel = PAIRS["pointwise"]
    generator = ms.space_generator.PostOrderApply()
    context = ms.TuneContext(module(kernel), target=HOST.tvm(), space_generator=generator, rand_state=1)
    generated = neighbour(kernel, context.generate_design_space()[-1].trace)
    assert after(kernel, A72, generated) is None
    further = neighbour(there, traces(there, A72)[0])
    assert after(kernel, A72, generated, further)[1] is further


# Where they come from, and what is said


def test_shipped_lines_without_arguments_are_no_neighbours(tmp_path):
    target = find_target("cortex-a72").tvm()
    work = RecordStore(tmp_path / "work", target)
    for name in ("pointwise", "7x7"):
        put(work, module(PAIRS[name][0]), kind="modelled", target=target)
    lines = [msgspec.to_builtins(best) for best in work.best("emulated:cortex-a72")]
    assert len(work.neighbours()) == len(lines) == 2 and work.neighbours(threads=2) == []
    del lines[0]["arguments"]
    (tmp_path / BEST).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (only,) = RecordStore(tmp_path, target).neighbours()
    assert plain(only.arguments) == plain(lines[1]["arguments"]) and only.cpu == "cortex-a72"


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_the_manifest_says_near_record_and_whose(tmp_path):
    """A record for a Cortex-A72 is lent to another target, to a network with an operator like it and one unlike it."""
    torch.manual_seed(0)
    layers = [layer for outputs in (48, 52, 480) for layer in (torch.nn.LazyConv2d(outputs, 1), torch.nn.ReLU())]
    network, image = torch.nn.Sequential(*layers).eval(), (1, 48, 14, 14)
    network(torch.zeros(image))
    imported = import_model(models.Model("layers", image, network))
    lender, target = find_target("cortex-a72"), find_target("arm64")
    work = RecordStore(tmp_path / "work", lender.tvm())
    known = next(task for task in fuse(imported.module, lender).tasks if task.arguments[-1][0][1] == 48)
    put(work, known.mod, kind="modelled", target=lender.tvm())
    write_best(tmp_path / "shipped", work.best("emulated:cortex-a72"))
    store = RecordStore(tmp_path / "own", target.tvm(), tmp_path / "shipped", lender.tvm())
    package = compile_package(imported, target, store, tmp_path / "package")
    said = {operator.arguments[-1].shape[1]: operator for operator in package.manifest.operators}
    assert {channels: (each.schedule, each.tuned_for) for channels, each in said.items()} == {
        48: ("record", "cortex-a72"),
        52: ("near record", "cortex-a72"),
        480: ("template", None),
    }


# benchmarks/nearest.py


def test_the_benchmark_s_means_are_geometric():
    script = load("nearest")
    found = [script.LeftOut("depthwise", 4.0, 2.0, used=True), script.LeftOut("depthwise", 1.0, 1.0, used=False)]
    assert script.line("depthwise", found).split() == ["depthwise", "2", "2.000", "1.414", "50%"]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_the_benchmark_leaves_a_record_out(monkeypatch, capsys):
    words = ["--target", "cortex-a53", "--models", "shufflenet_v1_g3_x1_0", "--limit", "1"]
    monkeypatch.setattr(sys, "argv", ["nearest", *words])
    assert load("nearest").main() == 0
    *_, header, _, total = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["template", "workloads", "default", "nearest"]
    name, workloads, default, nearest, used = total.split()
    assert (name, workloads) == ("all", "1") and used in ("0%", "100%")
    assert 0.5 < float(nearest) < 3 and 0.5 < float(default) < 3
