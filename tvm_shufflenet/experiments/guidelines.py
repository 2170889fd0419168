"""The networks that ShuffleNet v2 (arXiv:1807.11164, section 2) measures its guidelines on: stacks of one block.

Each takes and returns (N, channels, H, W) float32. Its convolutions have a bias, which is what a batch norm leaves of
itself; where the paper names no ReLU there is none. Weights keep the variance of what passes through, so that an error
anywhere in a stack shows at its end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

BOTTLENECK_RATIO = 4  # ResNet's: channels outside a bottleneck for each one inside


def convolution(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, summed: int = 1) -> nn.Conv2d:
    """One of ``summed`` convolutions whose results are added."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    nn.init.normal_(layer.weight, std=(summed * (inputs // groups) * kernel**2) ** -0.5)
    nn.init.normal_(layer.bias, std=0.1)
    return layer


def ratio(first: int, second: int) -> nn.Module:
    """G1, Table 1: two 1x1 convolutions, ``first`` to ``second`` channels and back."""
    return nn.Sequential(convolution(first, second), convolution(second, first))


def grouped(channels: int, groups: int) -> nn.Module:
    """G2, Table 2: one pointwise group convolution."""
    return convolution(channels, channels, groups=groups)


def series(channels: int, count: int) -> nn.Module:
    """G3, Table 3 and Figure 1 (a) to (c) of the appendix: ``count`` 1x1 convolutions, one after the other."""
    return nn.Sequential(*(convolution(channels, channels) for _ in range(count)))


class Parallel(nn.Module):
    """G3, Table 3 and Figure 1 (d) and (e) of the appendix: ``count`` 1x1 convolutions beside each other, summed.

    At as many channels in as out, equal multiply-adds at the paper's narrower widths leave only a sum.
    """

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.fragments = nn.ModuleList(convolution(channels, channels, summed=count) for _ in range(count))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        total = self.fragments[0](data)
        for fragment in self.fragments[1:]:
            total = total + fragment(data)
        return total


class Bottleneck(nn.Module):
    """G4, Table 4: ResNet's 1x1, 3x3, 1x1, with or without its ReLUs and its shortcut."""

    def __init__(self, channels: int, relu: bool, shortcut: bool):
        super().__init__()
        middle = channels // BOTTLENECK_RATIO
        self.first, self.last = convolution(channels, middle), convolution(middle, channels)
        self.middle = convolution(middle, middle, 3)
        self.activation, self.shortcut = F.relu if relu else nn.Identity(), shortcut

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        found = self.last(self.activation(self.middle(self.activation(self.first(data)))))
        return self.activation(found + data if self.shortcut else found)


def stacked(block: Callable[[], nn.Module], count: int) -> nn.Module:
    """``count`` blocks after each other, of the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(block() for _ in range(count))).eval()
