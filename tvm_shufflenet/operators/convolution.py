"""The fused convolution: dense or grouped K x K convolution + bias + ReLU. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .base import EPILOGUE, Operator
from .building import parameter, rectified
from .sliding import Sliding, converted

BLOCK = "convolution"


@dataclass(frozen=True)
class Convolution(Operator):
    """One convolution; ``padding`` is (top, left, bottom, right), filled with zeros.

    It takes data: (N, I, H, W); weight: see ``pack_weight``; bias: (O,); and writes result: (N, O, OH, OW). The
    layout's strip divides the output channels of a group. Data of another dtype, ``source``, is converted on its way:
    a network's input is float32 whatever it computes in.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    relu: bool = False
    source: str | None = None

    @property
    def window(self) -> Sliding:
        return Sliding(self.height, self.width, self.kernel, self.stride, self.padding, self.layout)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.out_channels, self.window.out_height, self.window.out_width

    @classmethod
    def example(cls) -> Convolution:
        return cls(1, 2, 4, 4, out_channels=2)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        strip = self.layout.strip
        strips = self.out_channels // self.groups // strip
        return self.groups, strips, self.in_channels // self.groups, *self.kernel, strip

    def pack_weight(self, weight: np.ndarray) -> np.ndarray:
        """(O, I / groups, R, S) as PyTorch has it -> (groups, O / groups / strip, I / groups, R, S, strip)."""
        groups, strips, _, _, _, strip = self.weight_shape
        by_strip = weight.reshape(groups, strips, strip, -1, *self.kernel)
        return np.ascontiguousarray(by_strip.transpose(0, 1, 3, 4, 5, 2))

    def emit(self) -> None:
        batch, groups, window, strip = self.batch, self.groups, self.window, self.layout.strip
        group_in, group_out = self.in_channels // groups, self.out_channels // groups
        height, width, rounded = window.out_height, window.out_width, window.rounded_width
        data = parameter("data", (batch, self.in_channels, self.height, self.width), self.source or self.dtype)
        weight = parameter("weight", self.weight_shape, self.dtype)
        bias = parameter("bias", (self.out_channels,), self.accumulator)
        result = parameter("result", self.output_shape, self.dtype)
        padded = T.sblock_alloc_buffer(window.scratch_shape(batch, self.in_channels), self.dtype)
        accumulated = T.sblock_alloc_buffer((batch, groups, group_out, height, rounded), self.accumulator)

        window.pad(data, padded, tirx.const(0, self.dtype), converted(self.dtype))
        extents = (batch, groups, group_out, height, rounded, group_in, *self.kernel)
        with T.grid(*extents) as loops, T.sblock(BLOCK):
            n, g, o, h, w, k, r, s = T.axis.remap("SSSSSRRR", loops)
            place = window.place(n, g * group_in + k, h, w, r, s)
            T.reads(padded[place], weight[g, o // strip, k, r, s, o % strip], bias[g * group_out + o])
            T.writes(accumulated[n, g, o, h, w])
            with T.init():
                T.buffer_store(accumulated, bias[g * group_out + o], [n, g, o, h, w])
            product = padded[place] * weight[g, o // strip, k, r, s, o % strip]
            T.buffer_store(accumulated, accumulated[n, g, o, h, w] + product, [n, g, o, h, w])

        with T.grid(batch, groups, group_out, height, width) as loops, T.sblock(EPILOGUE):
            n, g, o, h, w = T.axis.remap("SSSSS", loops)
            T.reads(accumulated[n, g, o, h, w])
            T.writes(result[n, g * group_out + o, h, w])
            value = accumulated[n, g, o, h, w]
            value = rectified(value, self.relu)
            T.buffer_store(result, value, [n, g * group_out + o, h, w])
