"""The fused depthwise operator: depthwise convolution + bias + ReLU. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .base import EPILOGUE, Operator
from .building import parameter, rectified
from .sliding import Sliding

BLOCK = "depthwise"


@dataclass(frozen=True)
class Depthwise(Operator):
    """One depthwise convolution; ``padding`` is (top, left, bottom, right), filled with zeros.

    It takes data: (N, C, H, W); weight: (C, R, S); bias: (C,); and writes result: (N, C, OH, OW).
    """

    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    relu: bool = False

    @property
    def window(self) -> Sliding:
        return Sliding(self.height, self.width, self.kernel, self.stride, self.padding, self.layout)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.channels, self.window.out_height, self.window.out_width

    def pack_weight(self, weight: np.ndarray) -> np.ndarray:
        """(C, 1, R, S) as PyTorch has it -> (C, R, S)."""
        return np.ascontiguousarray(weight.reshape(self.channels, *self.kernel))

    @classmethod
    def example(cls) -> Depthwise:
        return cls(1, 2, 4, 4)

    def emit(self) -> None:
        batch, channels, window, (rows, columns) = self.batch, self.channels, self.window, self.kernel
        height, width, rounded = window.out_height, window.out_width, window.rounded_width
        data = parameter("data", (batch, channels, self.height, self.width), self.dtype)
        weight = parameter("weight", (channels, rows, columns), self.dtype)
        bias = parameter("bias", (channels,), self.accumulator)
        result = parameter("result", self.output_shape, self.dtype)
        padded = T.sblock_alloc_buffer(window.scratch_shape(batch, channels), self.dtype)
        accumulated = T.sblock_alloc_buffer((batch, channels, height, rounded), self.accumulator)

        window.pad(data, padded, tirx.const(0, self.dtype))
        with T.grid(batch, channels, height, rounded, rows, columns) as loops, T.sblock(BLOCK):
            n, c, h, w, r, s = T.axis.remap("SSSSRR", loops)
            place = window.place(n, c, h, w, r, s)
            T.reads(padded[place], weight[c, r, s], bias[c])
            T.writes(accumulated[n, c, h, w])
            with T.init():
                T.buffer_store(accumulated, bias[c], [n, c, h, w])
            T.buffer_store(accumulated, accumulated[n, c, h, w] + padded[place] * weight[c, r, s], [n, c, h, w])

        with T.grid(batch, channels, height, width) as loops, T.sblock(EPILOGUE):
            n, c, h, w = T.axis.remap("SSSS", loops)
            T.reads(accumulated[n, c, h, w])
            T.writes(result[n, c, h, w])
            value = accumulated[n, c, h, w]
            T.buffer_store(result, rectified(value, self.relu), [n, c, h, w])
