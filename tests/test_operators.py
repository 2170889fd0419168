"""The fused operators: their TIR against golden files, and their numbers against PyTorch, scheduled and not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import UNOPTIMISED
from laid_out import Convolution, Copy, Dense, Pointwise, Pooling
from torch import nn

from tvm_shufflenet.hardware.isa import AVX2, AVX512, NEON
from tvm_shufflenet.hardware.machine import Machine, unknown
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.operators.pointwise import can_fuse_shuffle
from tvm_shufflenet.schedules import rules

HOST = find_target("local").tvm_config  # "native" would be plain x86-64
MACHINES = (unknown(NEON), unknown(AVX2), unknown(AVX512))
# Odd and awkward planes beside the networks' own.
PLANES = ((1, 1), (7, 7), (5, 9), (4, 4), (1, 6), (8, 8), (2, 7))
UNTOUCHED = 77.0

PLAIN = Pointwise(1, 6, 4, 4, in_channels=6, out_channels=8, groups=2)
GOLDEN = {
    "pointwise": PLAIN,
    "pointwise_residual_relu": Pointwise(1, 6, 4, 4, 6, 12, groups=3, relu=True, residual=True),
    "pointwise_relu_shuffle": Pointwise(1, 12, 7, 7, 12, 12, groups=3, relu=True, shuffle_groups=3),
    "pointwise_plain_convolution_shuffle": Pointwise(1, 4, 4, 4, 4, 12, relu=True, shuffle_groups=3),
    "pointwise_window": Pointwise(1, 4, 4, 4, 4, 6, relu=True, window=Window(6, 10, offset=4)),
    "pointwise_tables": Pointwise(1, 9, 4, 4, 4, 4, relu=True, gathered=True, window=Window(4, 9, scattered=True)),
    "copy": Copy(1, 6, 4, 4, 3, relu=True, window=Window(3, 8, offset=5, first=True)),
    "convolution_groups_stride_2": Convolution(1, 4, 9, 7, 6, groups=2, stride=(2, 2), relu=True),
    "dense": Dense(2, 7, 10),
    "dense_mean_relu": Dense(1, 5, 18, relu=True, plane=(3, 3)),
    "pooling_max": Pooling(1, 3, 9, 7),
    "pooling_max_non_negative": Pooling(1, 3, 9, 7, non_negative=True),
    "pooling_mean_without_padding": Pooling(1, 3, 5, 5, "average", count_include_pad=False, relu=True),
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


# Numbers


class Case:
    """One pointwise operator with random operands in PyTorch's layout, and what PyTorch makes of them."""

    def __init__(self, kernel: Pointwise, seed: int = 0):
        self.kernel, random = kernel, np.random.default_rng(seed)
        plane, out_channels = (kernel.height, kernel.width), kernel.out_channels
        self.data = random.standard_normal((kernel.batch, kernel.planes, *plane), dtype=np.float32)
        weight_shape = (out_channels, kernel.in_channels // kernel.groups, 1, 1)
        self.weight = random.standard_normal(weight_shape, dtype=np.float32)
        self.bias = random.standard_normal(out_channels, dtype=np.float32)
        self.addend = random.standard_normal((kernel.batch, out_channels, *plane), dtype=np.float32)
        self.gather, self.scatter = np.arange(kernel.in_channels), kernel.destination.offset + np.arange(out_channels)
        if kernel.gathered:
            self.gather = random.permutation(kernel.planes)[: kernel.in_channels]
        if kernel.destination.scattered:
            self.scatter = random.permutation(kernel.destination.total)[:out_channels]
        self.before = np.full(kernel.output_shape, UNTOUCHED, np.float32)

    def operands(self) -> list[np.ndarray]:
        """In the order of the function's parameters, the result last."""
        kernel = self.kernel
        found = [self.data, kernel.pack_weight(self.weight), self.bias]
        found += [self.gather.astype(np.int32)] if kernel.gathered else []
        found += [self.addend] if kernel.residual else []
        found += [self.scatter.astype(np.int32)] if kernel.destination.scattered else []
        found += [self.before] if kernel.destination.shared else []
        return [*found, self.before.copy()]

    def torch(self) -> np.ndarray:
        kernel, data = self.kernel, torch.from_numpy(self.data[:, self.gather])
        value = F.conv2d(data, torch.from_numpy(self.weight), torch.from_numpy(self.bias), groups=kernel.groups)
        value = value + torch.from_numpy(self.addend) if kernel.residual else value
        value = F.relu(value) if kernel.relu else value
        result = self.before.copy()
        result[:, self.scatter] = nn.ChannelShuffle(kernel.shuffle_groups)(value).numpy()
        return result

    def run(self, mod: tvm.IRModule) -> np.ndarray:
        compiled = tvm.compile(mod, UNOPTIMISED)
        arguments = [tvm.runtime.tensor(operand) for operand in self.operands()]
        compiled["main"](*arguments)
        return arguments[-1].numpy()

    def check(self, machine: Machine) -> None:
        """Unscheduled and with the template's default, against PyTorch; planes outside the window are untouched."""
        mod = tvm.IRModule({"main": self.kernel.function()})
        for scheduled in (mod, rules.default_schedule(mod, machine).mod):
            np.testing.assert_allclose(self.run(scheduled), self.torch(), rtol=1e-5, atol=1e-5)


@st.composite
def pointwise_operators(drawn) -> Pointwise:
    groups = drawn(st.sampled_from((1, 2, 3, 4)))
    shuffle_groups = drawn(st.sampled_from((1, groups, 2 * groups)))
    in_channels = groups * drawn(st.integers(1, 9))
    out_channels = max(groups, shuffle_groups) * drawn(st.sampled_from((1, 3, 4, 5, 8, 10, 16)))
    gathered, other, scattered = drawn(st.booleans()), drawn(st.integers(0, 5)), drawn(st.booleans())
    height, width = drawn(st.sampled_from(PLANES))
    return Pointwise(
        drawn(st.integers(1, 2)),
        in_channels + other * gathered,
        height,
        width,
        in_channels,
        out_channels,
        groups,
        relu=drawn(st.booleans()),
        residual=other == 0 and drawn(st.booleans()),
        shuffle_groups=shuffle_groups,
        gathered=gathered,
        window=Window(out_channels, out_channels + other, 0 if scattered else other, scattered, drawn(st.booleans())),
    )


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.isa.name)
@settings(deadline=None, max_examples=10, derandomize=True)
@given(kernel=pointwise_operators())
def test_pointwise_computes_what_torch_computes(machine, kernel):
    Case(kernel).check(machine)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.isa.name)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_nan_and_infinity_pass_through_as_in_torch(residual, relu, machine):
    case = Case(Pointwise(1, 12, 4, 4, 12, 24, groups=3, relu=relu, residual=residual))
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
    tvm.compile(tvm.IRModule({"main": kernel.function()}), tvm.target.Target(HOST))["main"](*arguments)
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
