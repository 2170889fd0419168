"""Pointwise operators of every kind, drawn at random, and what PyTorch makes of one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
import tvm
from hypothesis import strategies as st
from torch import nn

from helpers.kernels import UNOPTIMISED, UNTOUCHED
from helpers.laid_out import Pointwise
from tvm_shufflenet.hardware.machine import Machine
from tvm_shufflenet.operators import pointwise
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.schedules import rules

# Odd and awkward planes beside the networks' own.
PLANES = ((1, 1), (7, 7), (5, 9), (4, 4), (1, 6), (8, 8), (2, 7))


@st.composite
def pointwise_operators(drawn) -> pointwise.Pointwise:
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


class PointwiseCase:
    """One pointwise operator with random operands in PyTorch's layout, and what PyTorch makes of them."""

    def __init__(self, kernel: pointwise.Pointwise, seed: int = 0):
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
