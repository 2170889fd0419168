"""The pointwise template: its space is legal everywhere, and every variant computes what PyTorch computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.s_tir import Schedule

from helpers.kernels import HOST, module
from helpers.laid_out import Pointwise
from helpers.pointwise_cases import PointwiseCase, pointwise_operators
from tvm_shufflenet.hardware.isa import AVX2, AVX512, SSE
from tvm_shufflenet.hardware.machine import Machine, machine_for, unknown
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.schedules import pointwise, rules
from tvm_shufflenet.schedules.pointwise import RUN, Shape, Variant

WIDE, NARROW = unknown(AVX512), unknown(AVX2)
A72, A53, A76 = (machine_for(find_target(f"cortex-{core}")) for core in ("a72", "a53", "a76"))
MACHINES = {"avx512": WIDE, "avx2": NARROW, "sse": unknown(SSE), "a72": A72, "a53": A53, "a76": A76}
MACHINES |= {f"{name}, 4 threads": replace(machine, threads=4) for name, machine in MACHINES.items()}
FEW = {name: MACHINES[name] for name in ("avx512", "avx2", "a72", "avx512, 4 threads", "a76, 4 threads")}

NETWORKS = [(1, 24, 60, 3136), (3, 80, 20, 784), (3, 40, 160, 196), (3, 320, 80, 49), (1, 58, 58, 784),
            (1, 116, 116, 196), (1, 464, 1024, 49), (1, 976, 2048, 49), (8, 12, 48, 784), (8, 48, 192, 49)]  # fmt: skip
AWKWARD = [(blocks, inputs, outputs, pixels) for pixels in (49, 196, 1, 35, 100, 17) for blocks, inputs, outputs in
           ((1, 3, 8), (3, 20, 27), (2, 25, 34), (4, 9, 17), (8, 7, 1), (1, 1, 1), (2, 200, 58))]  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_the_space_is_legal(name):
    machine = MACHINES[name]
    for shape in (Shape(*extents) for extents in NETWORKS + AWKWARD):
        found = pointwise.variants(shape, machine)
        assert 0 < len(found) <= pointwise.MAX_VARIANTS and len(set(found)) == len(found), shape
        for variant in found:
            assert shape.outputs % variant.chunks == 0 and shape.pixels % variant.strip == 0, (shape, variant)
            assert variant.depth > 0 and (variant.staged or variant.depth >= shape.inputs), (shape, variant)
            for rows in variant.rows:
                used = pointwise.registers_used(variant, rows)
                assert rows == 1 or used <= machine.registers, (shape, variant)
                if not variant.staged:  # several tasks of one pass consist of whole tiles
                    assert variant.chunks == 1 or shape.outputs // variant.chunks % rows == 0, (shape, variant)
                    width = variant.vectors * variant.lanes
                    assert variant.strip == shape.pixels or variant.strip % width == 0, (shape, variant)
            if variant.by_lane:
                assert variant.chunks == 1 or shape.outputs // variant.chunks % RUN == 0, (shape, variant)


@pytest.mark.parametrize("extents", NETWORKS, ids=str)
def test_several_threads_have_something_to_do(extents):
    """The best guess splits an operator wherever its extents allow it without waste."""
    shape = Shape(*extents)
    for machine in (replace(WIDE, threads=2), replace(A72, threads=2)):
        best = pointwise.variants(shape, machine)[0]
        tasks = shape.blocks * best.chunks * (shape.pixels // best.strip)
        assert tasks % 2 == 0 or tasks >= 7, (shape, best)


def test_planes_of_49_pixels_waste_no_vector():
    """8 output channels of 48 pixels in 24 vectors, and of the last pixel in one: LLVM must pack these scalars."""
    best = pointwise.variants(Shape(3, 80, 320, 49), WIDE)[0]
    assert (best.vectors, best.rows[0], best.strip) == (4, 8, 49)
    kernel = Pointwise(1, 240, 7, 7, 240, 960, groups=3, relu=True, shuffle_groups=3)
    scheduled = rules.default_schedule(module(kernel), WIDE).mod
    target = tvm.target.Target({"kind": "llvm", "mcpu": "skylake-avx512", "mattr": ["-prefer-256-bit"]})
    lines = tvm.compile(scheduled, target).mod.inspect_source("s").splitlines()
    assert sum("vfmadd" in line for line in lines) >= 50
    assert not any("vfmadd" in line and "ss\t" in line for line in lines), "the last pixel is still scalar"


def test_neon_multiplies_by_lane():
    """No weight is loaded on its own: each multiply-add takes a lane of a vector of them."""
    kernel = Pointwise(1, 240, 28, 28, 240, 120, groups=3)
    scheduled = rules.default_schedule(module(kernel), A72).mod
    lines = tvm.compile(scheduled, find_target("cortex-a72").tvm()).mod.inspect_source("s").splitlines()
    multiplied = [line for line in lines if "fmla\tv" in line]
    assert len(multiplied) >= 16 and all(".s[" in line for line in multiplied)
    assert not any("ld1r" in line for line in lines[lines.index(multiplied[0]) : lines.index(multiplied[-1])])


# Numbers


CASES = {
    "49 pixels, shuffled": Pointwise(1, 48, 7, 7, 48, 240, groups=3, relu=True, shuffle_groups=3),
    "49 pixels, residual": Pointwise(1, 64, 7, 7, 64, 54, groups=2, relu=True, residual=True),
    "49 pixels, deep": Pointwise(1, 330, 7, 7, 330, 34),
    "196 pixels, tables": Pointwise(
        1, 70, 14, 14, 29, 58, relu=True, gathered=True, window=Window(58, 116, scattered=True)
    ),
    "196 pixels, window": Pointwise(2, 18, 14, 14, 16, 20, relu=True, window=Window(20, 30, offset=10)),
    "784 pixels": Pointwise(1, 60, 28, 28, 60, 60, groups=3, relu=True, shuffle_groups=3),
    "35 pixels, 27 channels": Pointwise(1, 13, 5, 7, 13, 27, residual=True),
}


def run(case: PointwiseCase, mod: tvm.IRModule) -> np.ndarray:
    """The result, from code for this very machine: its own vectors, multiply-adds and all."""
    arguments = [tvm.runtime.tensor(operand) for operand in case.operands()]
    tvm.compile(mod, HOST.tvm())["main"](*arguments)
    return arguments[-1].numpy()


def schedules(kernel: Pointwise, machine: Machine, seed: int) -> list[tuple[Variant, tvm.IRModule]]:
    """A random point of every variant of the kernel's space."""
    schedule = Schedule(module(kernel), seed=seed)
    shape = pointwise.read_shape(schedule.get(schedule.get_sblock("pointwise")))
    points = rules.TEMPLATES["pointwise"](schedule, machine)
    return [(v, point.mod) for v, point in zip(pointwise.variants(shape, machine), points, strict=True)]


@pytest.mark.parametrize("machine", FEW)
@pytest.mark.parametrize("name", CASES)
def test_every_variant_computes_what_torch_computes(name, machine):
    case = PointwiseCase(CASES[name])
    expected = case.torch()
    for variant, mod in schedules(case.kernel, FEW[machine], seed=5)[::3]:
        np.testing.assert_allclose(run(case, mod), expected, rtol=2e-5, atol=2e-5, err_msg=str(variant))


EVERY_STAGE = [
    Variant(4, 3, (8,), True, outer, chunks, strip, depth, staged)
    for outer, chunks, strip, depth, staged in (
        (True, 1, 196, 44, False), (False, 1, 196, 44, False), (True, 2, 196, 44, True), (False, 1, 28, 44, True),
        (True, 1, 196, 16, True), (False, 2, 28, 12, True), (True, 1, 98, 24, True),
    )
]  # fmt: skip


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("variant", EVERY_STAGE, ids=lambda v: f"{v.pixels_outer} {v.chunks} {v.strip} {v.depth}")
def test_every_stage_in_every_order(variant, lanes):
    """Whatever the ranking thinks of them: passes that do not divide the inputs, chunks, strips that are ragged."""
    case = PointwiseCase(Pointwise(1, 44, 14, 14, 44, 40, relu=True))
    variant = replace(variant, lanes=lanes, by_lane=lanes == 4)
    for rows in (4, 8) if lanes == 4 else (3, 8):
        schedule = Schedule(module(case.kernel), seed=1)
        pointwise.pointwise_template(schedule, replace(variant, rows=(rows,)))
        np.testing.assert_allclose(run(case, schedule.mod), case.torch(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("machine", FEW)
@settings(deadline=None, max_examples=5, derandomize=True)
@given(kernel=pointwise_operators(), seed=st.integers(1, 9))
def test_random_operators_in_random_variants(machine, kernel, seed):
    case = PointwiseCase(kernel)
    expected = case.torch()
    for variant, mod in schedules(kernel, FEW[machine], seed)[seed % 4 :: 5]:
        np.testing.assert_allclose(run(case, mod), expected, rtol=2e-5, atol=2e-5, err_msg=str(variant))
