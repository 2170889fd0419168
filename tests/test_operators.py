"""The fused operators: their TIR against golden files, and their numbers against PyTorch, scheduled and not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm.s_tir import Schedule

from tvm_shufflenet.operators.depthwise import depthwise
from tvm_shufflenet.operators.pointwise import can_fuse_shuffle, pointwise
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.rules import Machine

HOST = {"kind": "llvm", "mcpu": "native"}
MACHINES = (Machine(4, 32), Machine(8, 16), Machine(16, 32))
# Odd and awkward planes beside the networks' own.
PLANES = ((1, 1), (7, 7), (5, 9), (4, 4), (1, 6), (8, 8), (2, 7))

GOLDEN = {
    "pointwise": lambda: pointwise((1, 6, 4, 4), 8, groups=2, relu=False),
    "pointwise_residual_relu": lambda: pointwise((1, 6, 4, 4), 12, groups=3, relu=True, residual=True),
    "pointwise_relu_shuffle": lambda: pointwise((1, 12, 7, 7), 12, groups=3, relu=True, shuffle_groups=3),
    "pointwise_plain_convolution_shuffle": lambda: pointwise((1, 4, 4, 4), 12, groups=1, relu=True, shuffle_groups=3),
    "depthwise": lambda: depthwise((1, 4, 7, 7), (3, 3), stride=(1, 1), padding=(1, 1, 1, 1), relu=False),
    "depthwise_stride_2_relu": lambda: depthwise((1, 4, 8, 8), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1), relu=True),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_tir_is_the_golden_file_s(name, golden):
    function = GOLDEN[name]()
    written = tvm.script.from_source(golden(f"{name}.txt", function.script()))
    tvm.ir.assert_structural_equal(function, written)


def test_golden_files_can_fail(golden):
    """A comparison that accepts another operator would accept anything."""
    written = tvm.script.from_source(golden("pointwise.txt", GOLDEN["pointwise"]().script()))
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(GOLDEN["pointwise_residual_relu"](), written)


# Numbers


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


class Pointwise:
    """One pointwise operator: its TIR, random operands, and what PyTorch makes of them."""

    def __init__(self, batch, groups, group_in, block_out, plane, shuffle_groups=1, residual=False, relu=True):
        self.out_channels = block_out * max(groups, shuffle_groups)
        self.groups, self.shuffle_groups, self.relu = groups, shuffle_groups, relu
        data_shape = (batch, groups * group_in, *plane)
        self.shape = (batch, self.out_channels, *plane)
        self.operands = [draw(*data_shape), draw(self.out_channels, group_in, 1, 1), draw(1, self.out_channels, 1, 1)]
        if residual:
            self.operands.append(draw(*self.shape))
        self.function = pointwise(
            data_shape, self.out_channels, groups=groups, relu=relu, residual=residual, shuffle_groups=shuffle_groups
        )

    def torch(self) -> np.ndarray:
        data, weight, bias, *addend = map(torch.from_numpy, self.operands)
        value = F.conv2d(data, weight, bias.flatten(), groups=self.groups)
        value = value + addend[0] if addend else value
        value = F.relu(value) if self.relu else value
        return nn.ChannelShuffle(self.shuffle_groups)(value).numpy()


class Depthwise:
    """As Pointwise, for the depthwise operator."""

    def __init__(self, batch, channels, plane, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1), relu=True):
        data_shape = (batch, channels, *plane)
        self.stride, self.padding, self.relu = stride, padding, relu
        self.operands = [draw(*data_shape), draw(channels, 1, *kernel), draw(1, channels, 1, 1)]
        self.function = depthwise(data_shape, kernel, stride=stride, padding=padding, relu=relu)
        self.shape = self.torch().shape

    def torch(self) -> np.ndarray:
        data, weight, bias = map(torch.from_numpy, self.operands)
        top, left, bottom, right = self.padding
        padded = F.pad(data, (left, right, top, bottom))
        value = F.conv2d(padded, weight, bias.flatten(), stride=self.stride, groups=data.shape[1])
        return (F.relu(value) if self.relu else value).numpy()


def run(mod: tvm.IRModule, operator) -> np.ndarray:
    compiled = tvm.compile(mod, tvm.target.Target(HOST))
    output = tvm.runtime.tensor(np.full(operator.shape, 77, dtype=np.float32))
    compiled["main"](*map(tvm.runtime.tensor, operator.operands), output)
    return output.numpy()


def check(mod: tvm.IRModule, operator) -> None:
    np.testing.assert_allclose(run(mod, operator), operator.torch(), rtol=1e-5, atol=1e-5)


def check_unscheduled_and_scheduled(operator, machine: Machine) -> None:
    mod = tvm.IRModule({"main": operator.function})
    check(mod, operator)
    check(rules.default_schedule(mod, machine).mod, operator)


@st.composite
def pointwise_operators(drawn):
    groups = drawn(st.sampled_from((1, 2, 3, 4)))
    shuffle_groups = drawn(st.sampled_from((1, groups, 2 * groups)))
    return Pointwise(
        batch=drawn(st.integers(1, 2)),
        groups=groups,
        group_in=drawn(st.integers(1, 9)),
        block_out=drawn(st.sampled_from((1, 3, 4, 5, 8, 10, 16))),
        plane=drawn(st.sampled_from(PLANES)),
        shuffle_groups=shuffle_groups,
        residual=drawn(st.booleans()),
        relu=drawn(st.booleans()),
    )


@st.composite
def depthwise_operators(drawn):
    kernel = drawn(st.sampled_from(((3, 3), (5, 5), (1, 3), (2, 2))))
    height, width = drawn(st.sampled_from(PLANES))
    return Depthwise(
        batch=drawn(st.integers(1, 2)),
        channels=drawn(st.integers(1, 5)),
        plane=(max(height, kernel[0]), max(width, kernel[1])),
        kernel=kernel,
        stride=drawn(st.sampled_from(((1, 1), (2, 2), (1, 2)))),
        padding=drawn(st.sampled_from(((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 2, 1)))),
        relu=drawn(st.booleans()),
    )


SETTINGS = settings(deadline=None, max_examples=15, derandomize=True)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@SETTINGS
@given(operator=pointwise_operators())
def test_pointwise_computes_what_torch_computes(machine, operator):
    check_unscheduled_and_scheduled(operator, machine)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@SETTINGS
@given(operator=depthwise_operators())
def test_depthwise_computes_what_torch_computes(machine, operator):
    check_unscheduled_and_scheduled(operator, machine)


# Shapes whose spaces hold every sort of variant: whole vectors of pixels and of channels, and neither.
SPACES = {
    "pixels and channels": lambda: Pointwise(1, 3, 8, 16, (4, 4), shuffle_groups=3),
    "channels only": lambda: Pointwise(2, 2, 6, 16, (7, 7), residual=True),
    "neither": lambda: Pointwise(1, 2, 5, 25, (7, 7), shuffle_groups=2),
    "one pixel": lambda: Pointwise(1, 4, 4, 17, (1, 1)),
    "depthwise": lambda: Depthwise(1, 3, (8, 8)),
    "depthwise of an odd plane": lambda: Depthwise(1, 2, (7, 35), stride=(2, 1)),
    "depthwise of a prime plane": lambda: Depthwise(2, 2, (5, 17)),
}


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_a_random_point_of_every_variant_is_right(name, machine):
    operator = SPACES[name]()
    mod = tvm.IRModule({"main": operator.function})
    template = rules.TEMPLATES[rules.template_name(mod)]
    points = [point.mod for point in template(Schedule(mod, seed=11), machine)]
    assert points
    for point in points:
        check(point, operator)


def spoiled(operator):
    """NaN and both infinities in the data, and where there is one in the addend, each in a place of its own."""
    for operand in (operator.operands[0], *operator.operands[3:]):
        operand[0, 0].flat[:3] = np.nan, np.inf, -np.inf
        operand[-1, -1].flat[-3:] = -np.inf, np.nan, np.inf
    return operator


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", ["pointwise", "residual", "depthwise"])
def test_nan_and_infinity_pass_through_as_in_torch(kind, relu, machine):
    operator = spoiled(
        Depthwise(1, 2, (7, 8), relu=relu)
        if kind == "depthwise"
        else Pointwise(1, 3, 4, 8, (4, 4), shuffle_groups=3, residual=kind == "residual", relu=relu)
    )
    assert np.isnan(operator.torch()).any()
    check_unscheduled_and_scheduled(operator, machine)


# What the operators refuse


def test_only_a_shuffle_at_least_as_fine_as_the_groups_can_be_fused():
    assert all(can_fuse_shuffle(groups, 1) and can_fuse_shuffle(groups, groups) for groups in (1, 2, 3, 8))
    assert can_fuse_shuffle(1, 8) and can_fuse_shuffle(2, 4)
    assert not can_fuse_shuffle(4, 2) and not can_fuse_shuffle(4, 6)
    with pytest.raises(ValueError, match="shuffle by 2"):
        pointwise((1, 8, 4, 4), 8, groups=4, relu=True, shuffle_groups=2)
