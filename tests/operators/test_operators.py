"""The fused operators: their TIR against golden files, and their numbers against PyTorch, scheduled and not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import given, settings

from helpers.kernels import HOST, MACHINES, UNTOUCHED, check_default
from helpers.laid_out import Convolution, Copy, Dense, Depthwise, Pointwise, Pooling
from helpers.pointwise_cases import PointwiseCase, pointwise_operators
from helpers.references import operands
from tvm_shufflenet.operators import dense, registry
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.operators.pointwise import can_fuse_shuffle
from tvm_shufflenet.precision import FLOAT16

PLAIN = Pointwise(1, 6, 4, 4, in_channels=6, out_channels=8, groups=2)
GOLDEN = {
    "pointwise": PLAIN,
    "pointwise_residual_relu": Pointwise(1, 6, 4, 4, 6, 12, groups=3, relu=True, residual=True),
    "pointwise_relu_shuffle": Pointwise(1, 12, 7, 7, 12, 12, groups=3, relu=True, shuffle_groups=3),
    "pointwise_shuffle_finer_than_groups": Pointwise(1, 4, 3, 5, 4, 8, groups=2, shuffle_groups=4),
    "pointwise_plain_convolution_shuffle": Pointwise(1, 4, 4, 4, 4, 12, relu=True, shuffle_groups=3),
    "pointwise_window": Pointwise(1, 4, 4, 4, 4, 6, relu=True, window=Window(6, 10, offset=4)),
    "pointwise_tables": Pointwise(1, 9, 4, 4, 4, 4, relu=True, gathered=True, window=Window(4, 9, scattered=True)),
    "depthwise": Depthwise(1, 3, 5, 7),
    "depthwise_stride_2_relu": Depthwise(1, 3, 9, 7, stride=(2, 2), relu=True),
    "copy": Copy(1, 6, 4, 4, 3, relu=True, window=Window(3, 8, offset=5, first=True)),
    "copy_scattered": Copy(1, 6, 3, 5, 3, relu=False, window=Window(3, 8, scattered=True)),
    "convolution_groups_stride_2": Convolution(1, 4, 9, 7, 6, groups=2, stride=(2, 2), relu=True),
    "dense": Dense(2, 7, 10),
    "dense_mean_relu": Dense(1, 5, 18, relu=True, plane=(3, 3)),
    "pooling_max": Pooling(1, 3, 9, 7),
    "pooling_max_non_negative": Pooling(1, 3, 9, 7, non_negative=True),
    "pooling_mean_without_padding": Pooling(1, 3, 5, 5, "average", count_include_pad=False, relu=True),
    "pointwise_float16": Pointwise(1, 12, 7, 7, 12, 12, 3, relu=True, residual=True, precision=FLOAT16),
    "depthwise_float16": Depthwise(1, 3, 5, 7, relu=True, precision=FLOAT16),
    "copy_float16": Copy(1, 6, 3, 5, 3, relu=False, window=Window(3, 8, scattered=True), precision=FLOAT16),
    "convolution_float16": Convolution(1, 4, 9, 7, 6, stride=(2, 2), source="float32", precision=FLOAT16),
    "dense_mean_float16": Dense(1, 5, 18, plane=(3, 3), precision=FLOAT16),
    "dense_float16": Dense(2, 7, 10, relu=True, precision=FLOAT16),
    "pooling_max_float16": Pooling(1, 3, 9, 7, precision=FLOAT16),
    "pooling_max_non_negative_float16": Pooling(1, 3, 9, 7, non_negative=True, precision=FLOAT16),
    "pooling_mean_float16": Pooling(1, 3, 5, 5, "average", count_include_pad=False, relu=True, precision=FLOAT16),
    "pooling_mean_window": Pooling(1, 3, 5, 7, "average", window=Window(3, 5, offset=2)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_tir_is_the_golden_file_s(name, golden):
    function = GOLDEN[name].function()
    written = tvm.script.from_source(golden(f"{name}.txt", function.script()))
    tvm.ir.assert_structural_equal(function, written)


def test_golden_files_can_fail(golden):
    """A comparison that accepts another operator would accept anything."""
    written = tvm.script.from_source(golden("pointwise.txt", PLAIN.function().script()))
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(replace(PLAIN, relu=True).function(), written)


def test_every_operator_has_a_golden_file_and_every_golden_file_is_read():
    assert {registry.entry_of(kernel).name for kernel in GOLDEN.values()} == {row.name for row in registry.ROWS}
    assert {path.name for path in (Path(__file__).parents[1] / "golden").iterdir()} == {
        f"{name}.txt" for name in GOLDEN
    }


# Numbers

# Rows and planes with tails of one to three elements behind the last vector of four, for strides of one and two.
AWKWARD = ((5, 9), (3, 6), (5, 11))


def awkward(kernel, plane: tuple[int, int]):
    """The operator of a golden file on another plane; a dense one with as many outputs as the plane is wide."""
    if isinstance(kernel, dense.Dense):
        changed = replace(kernel, outputs=plane[1], plane=kernel.plane and plane)
    else:
        changed = replace(kernel, height=plane[0], width=plane[1])
    return registry.laid_out(changed, MACHINES[0])


@pytest.mark.parametrize("plane", AWKWARD, ids=lambda plane: "{}x{}".format(*plane))
@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_operator_computes_what_torch_computes(name, plane):
    kernel = awkward(GOLDEN[name], plane)
    check_default(kernel, MACHINES[0], *operands(kernel))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.isa.name)
@settings(deadline=None, max_examples=10, derandomize=True)
@given(kernel=pointwise_operators())
def test_pointwise_computes_what_torch_computes(machine, kernel):
    PointwiseCase(kernel).check(machine)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.isa.name)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_nan_and_infinity_pass_through_as_in_torch(residual, relu, machine):
    case = PointwiseCase(Pointwise(1, 12, 4, 4, 12, 24, groups=3, relu=relu, residual=residual))
    for operand in (case.data, case.addend):
        operand[0, 0].flat[:3] = np.nan, np.inf, -np.inf
        operand[-1, -1].flat[-3:] = -np.inf, np.nan, np.inf
    assert np.isnan(case.torch()).any()
    case.check(machine)


@pytest.mark.parametrize("window", [Window(3, 8, offset=5), Window(3, 8, scattered=True)], ids=["range", "scattered"])
@pytest.mark.parametrize("relu", [False, True])
def test_a_copy_writes_its_planes_and_no_others(window, relu):
    kernel = Copy(2, 6, 5, 3, 3, relu, window)
    data = np.random.default_rng(1).standard_normal((2, 6, 5, 3), dtype=np.float32)
    data[0, 0, 0, 0] = np.nan
    before, planes = np.full(kernel.output_shape, UNTOUCHED, np.float32), [7, 0, 4] if window.scattered else [5, 6, 7]
    tables = [np.array(table, np.int32) for table in ([4, 0, 2], planes)][: 1 + window.scattered]
    arguments = [tvm.runtime.tensor(each) for each in (data, *tables, before, before.copy())]
    tvm.compile(tvm.IRModule({"main": kernel.function()}), HOST.tvm())["main"](*arguments)
    expected = before.copy()
    expected[:, planes] = np.maximum(data[:, [4, 0, 2]], 0) if relu else data[:, [4, 0, 2]]
    np.testing.assert_array_equal(arguments[-1].numpy(), expected)


# What the operators refuse


def test_only_a_shuffle_at_least_as_fine_as_the_groups_can_be_fused():
    assert all(can_fuse_shuffle(groups, 1) and can_fuse_shuffle(groups, groups) for groups in (1, 2, 3, 8))
    assert can_fuse_shuffle(1, 8) and can_fuse_shuffle(2, 4)
    assert not can_fuse_shuffle(4, 2) and not can_fuse_shuffle(4, 6)
    with pytest.raises(ValueError, match="shuffle by 2"):
        Pointwise(1, 8, 4, 4, 8, 8, groups=4, shuffle_groups=2).function()
