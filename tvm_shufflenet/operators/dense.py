"""The fully connected operator, with the global average pool before it: mean + matrix product + bias + ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .base import EPILOGUE, Operator
from .building import cast, parameter, rectified

BLOCK = "dense"


@dataclass(frozen=True)
class Dense(Operator):
    """``inputs`` to ``outputs`` features; with a ``plane`` (H, W) the inputs are the means of planes of that size.

    It takes data: (N, inputs) or, for a mean, (N, inputs, H, W); weight: see ``pack_weight``; bias: (outputs,); and
    writes result: (N, outputs), which like the bias has the precision's ``total`` for its dtype.
    """

    batch: int
    inputs: int
    outputs: int
    relu: bool = False
    plane: tuple[int, int] | None = None

    @property
    def output_shape(self) -> tuple[int, int]:
        return self.batch, self.outputs

    @property
    def result_dtype(self) -> str:
        return self.total

    @property
    def strips(self) -> int:
        return -(-self.outputs // self.layout.strip)

    def pack_weight(self, weight: np.ndarray) -> np.ndarray:
        """(outputs, inputs) as PyTorch has it -> (strips, inputs, strip), the last strip filled up with zeros."""
        filled = np.pad(weight, ((0, -self.outputs % self.layout.strip), (0, 0)))
        return np.ascontiguousarray(filled.reshape(self.strips, -1, self.inputs).transpose(0, 2, 1))

    @classmethod
    def example(cls) -> Dense:
        return cls(1, 2, 2)

    def emit(self) -> None:
        batch, inputs, outputs, strips, strip = self.batch, self.inputs, self.outputs, self.strips, self.layout.strip
        data = parameter("data", (batch, inputs, *(self.plane or ())), self.dtype)
        weight = parameter("weight", (strips, inputs, strip), self.dtype)
        bias = parameter("bias", (outputs,), self.total)
        result = parameter("result", self.output_shape, self.result_dtype)
        features = self._mean(data) if self.plane else data
        accumulated = T.sblock_alloc_buffer((batch, strips, strip), self.total)

        with T.grid(batch, strips, strip, inputs) as loops, T.sblock(BLOCK):
            n, t, o, k = T.axis.remap("SSSR", loops)
            T.reads(features[n, k], weight[t, k, o])
            T.writes(accumulated[n, t, o])
            with T.init():
                T.buffer_store(accumulated, tirx.const(0, self.total), [n, t, o])
            product = cast(features[n, k], self.total) * cast(weight[t, k, o], self.total)
            T.buffer_store(accumulated, accumulated[n, t, o] + product, [n, t, o])

        with T.grid(batch, outputs) as loops, T.sblock(EPILOGUE):
            n, o = T.axis.remap("SS", loops)
            T.reads(accumulated[n, o // strip, o % strip], bias[o])
            T.writes(result[n, o])
            value = accumulated[n, o // strip, o % strip] + bias[o]
            T.buffer_store(result, rectified(value, self.relu), [n, o])

    def _mean(self, data):
        """The mean of each plane, (N, inputs): sums in lanes first, as sums of floats go one by one."""
        batch, inputs, (height, width) = self.batch, self.inputs, self.plane
        pixels, lanes = height * width, self.layout.sums
        whole = pixels - pixels % lanes
        mean = T.sblock_alloc_buffer((batch, inputs), self.total)
        partial = self._sums(data, whole // lanes) if whole else None
        with T.grid(batch, inputs) as loops, T.sblock("mean"):
            n, k = T.axis.remap("SS", loops)
            rest = [cast(data[n, k, p // width, p % width], self.total) for p in range(whole, pixels)]
            sums = [partial[n, k, lane] for lane in range(lanes)] if partial is not None else []
            T.reads(data[n, k, 0:height, 0:width], *([partial[n, k, 0:lanes]] if partial is not None else []))
            T.writes(mean[n, k])
            T.buffer_store(mean, _tree(sums + rest) * tirx.const(1.0 / pixels, self.total), [n, k])
        return mean

    def _sums(self, data, steps: int):
        """Pixels of each plane summed up in so many sums by turns, (N, inputs, sums)."""
        batch, inputs, (_, width), lanes = self.batch, self.inputs, self.plane, self.layout.sums
        sums = T.sblock_alloc_buffer((batch, inputs, lanes), self.total)
        with T.grid(batch, inputs, lanes, steps) as loops, T.sblock("sums"):
            n, k, lane, step = T.axis.remap("SSSR", loops)
            row, column = (step * lanes + lane) // width, (step * lanes + lane) % width
            T.reads(data[n, k, row, column])
            T.writes(sums[n, k, lane])
            with T.init():
                T.buffer_store(sums, tirx.const(0, self.total), [n, k, lane])
            T.buffer_store(sums, sums[n, k, lane] + cast(data[n, k, row, column], self.total), [n, k, lane])
        return sums


def _tree(terms: list):
    """The sum of terms, halves first: as few additions after one another as can be."""
    half = len(terms) // 2
    return terms[0] if half == 0 else _tree(terms[:half]) + _tree(terms[half:])
