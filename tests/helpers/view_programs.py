"""Random straight-line networks of convolutions, splits and concatenations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from tvm_shufflenet.models.zoo.shufflenet_v1 import channel_shuffle

KINDS = ("pointwise", "depthwise", "relu", "concat", "concat", "add", "shuffle", "left", "right", "pool")
# Mostly recent values, so that programs are deep; -1 is the newest.
STEP = st.tuples(st.sampled_from(KINDS), st.sampled_from((-1, -1, -2, -3)), st.sampled_from((-1, -2, -3, -4)))


def conv(inputs: int, outputs: int, kernel: int = 1, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options).requires_grad_(False)


class Program(nn.Module):
    """A random straight-line network. Each step reads earlier values by index and adds one."""

    def __init__(self, steps: list[tuple]):
        super().__init__()
        torch.manual_seed(len(steps))
        self.steps, self.layers = steps, nn.ModuleDict()
        channels = [8]
        for index, (kind, *operands) in enumerate(steps):
            inputs = channels[operands[0] % len(channels)]
            other = channels[operands[1] % len(channels)]
            if kind == "pointwise":
                self.layers[str(index)] = conv(inputs, inputs)
            elif kind == "depthwise":
                self.layers[str(index)] = conv(inputs, inputs, 3, padding=1, groups=inputs)
            channels.append(self.channels(kind, inputs, other))

    @staticmethod
    def channels(kind: str, inputs: int, other: int) -> int:
        if kind == "concat":
            return inputs + other
        return inputs // 2 if kind in ("left", "right") and inputs % 2 == 0 else inputs

    def forward(self, data):
        values = [data]
        for index, (kind, *operands) in enumerate(self.steps):
            x, y = values[operands[0] % len(values)], values[operands[1] % len(values)]
            even = x.shape[1] % 2 == 0
            if kind in ("pointwise", "depthwise"):
                x = self.layers[str(index)](x)
            elif kind == "relu":
                x = F.relu(x)
            elif kind == "concat":
                x = torch.cat([x, y], 1)
            elif kind == "add":
                x = x + y if x.shape == y.shape else x
            elif kind == "shuffle":
                x = channel_shuffle(x, 2) if even else x
            elif kind in ("left", "right"):
                x = x.chunk(2, 1)[kind == "right"] if even else x
            elif kind == "pool":
                x = F.avg_pool2d(x, 3, stride=1, padding=1)
            values.append(x)
        return values[-1]
