"""The fully connected operator, with the global average pool before it: mean + matrix product + bias + ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .building import parameter, prim_func, rectified

BLOCK = "dense"
# Output features that lie together in a packed weight: every vector register's lanes divide it.
STRIP = 16
# Sums that the mean of a plane is made of.
LANES = 8


@dataclass(frozen=True)
class Dense:
    """``inputs`` to ``outputs`` features; with a ``plane`` (H, W) the inputs are the means of planes of that size."""

    batch: int
    inputs: int
    outputs: int
    relu: bool = False
    plane: tuple[int, int] | None = None

    @property
    def output_shape(self) -> tuple[int, int]:
        return self.batch, self.outputs

    @property
    def strips(self) -> int:
        return -(-self.outputs // STRIP)

    def pack_weight(self, weight: np.ndarray) -> np.ndarray:
        """(outputs, inputs) as PyTorch has it -> (strips, inputs, STRIP), the last strip filled up with zeros."""
        padded = np.zeros((self.strips * STRIP, self.inputs), np.float32)
        padded[: self.outputs] = weight
        return np.ascontiguousarray(padded.reshape(self.strips, STRIP, self.inputs).transpose(0, 2, 1))

    def function(self) -> tirx.PrimFunc:
        """The operator as a PrimFunc, float32.

        It takes data: (N, inputs) or, for a mean, (N, inputs, H, W); weight: see ``pack_weight``; bias: (outputs,);
        and writes result: (N, outputs).
        """
        return prim_func(self._body)

    def _body(self) -> None:
        batch, inputs, outputs, strips = self.batch, self.inputs, self.outputs, self.strips
        data = parameter("data", (batch, inputs, *(self.plane or ())))
        weight = parameter("weight", (strips, inputs, STRIP))
        bias = parameter("bias", (outputs,))
        result = parameter("result", self.output_shape)
        features = self._mean(data) if self.plane else data
        accumulated = T.sblock_alloc_buffer((batch, strips, STRIP), "float32")

        with T.grid(batch, strips, STRIP, inputs) as loops, T.sblock(BLOCK):
            n, t, o, k = T.axis.remap("SSSR", loops)
            T.reads(features[n, k], weight[t, k, o])
            T.writes(accumulated[n, t, o])
            with T.init():
                T.buffer_store(accumulated, T.float32(0), [n, t, o])
            T.buffer_store(accumulated, accumulated[n, t, o] + features[n, k] * weight[t, k, o], [n, t, o])

        with T.grid(batch, outputs) as loops, T.sblock("epilogue"):
            n, o = T.axis.remap("SS", loops)
            T.reads(accumulated[n, o // STRIP, o % STRIP], bias[o])
            T.writes(result[n, o])
            value = accumulated[n, o // STRIP, o % STRIP] + bias[o]
            T.buffer_store(result, rectified(value, self.relu), [n, o])

    def _mean(self, data):
        """The mean of each plane, (N, inputs): sums in lanes first, as sums of floats go one by one."""
        batch, inputs, (height, width) = self.batch, self.inputs, self.plane
        pixels = height * width
        whole = pixels - pixels % LANES
        mean = T.sblock_alloc_buffer((batch, inputs), "float32")
        partial = self._sums(data, whole // LANES) if whole else None
        with T.grid(batch, inputs) as loops, T.sblock("mean"):
            n, k = T.axis.remap("SS", loops)
            rest = [data[n, k, p // width, p % width] for p in range(whole, pixels)]
            sums = [partial[n, k, lane] for lane in range(LANES)] if partial is not None else []
            T.reads(data[n, k, 0:height, 0:width], *([partial[n, k, 0:LANES]] if partial is not None else []))
            T.writes(mean[n, k])
            T.buffer_store(mean, _tree(sums + rest) * T.float32(1.0 / pixels), [n, k])
        return mean

    def _sums(self, data, steps: int):
        """Every LANES-th pixel of each plane summed up, (N, inputs, LANES)."""
        batch, inputs, (_, width) = self.batch, self.inputs, self.plane
        sums = T.sblock_alloc_buffer((batch, inputs, LANES), "float32")
        with T.grid(batch, inputs, LANES, steps) as loops, T.sblock("sums"):
            n, k, lane, step = T.axis.remap("SSSR", loops)
            row, column = (step * LANES + lane) // width, (step * LANES + lane) % width
            T.reads(data[n, k, row, column])
            T.writes(sums[n, k, lane])
            with T.init():
                T.buffer_store(sums, T.float32(0), [n, k, lane])
            T.buffer_store(sums, sums[n, k, lane] + data[n, k, row, column], [n, k, lane])
        return sums


def _tree(terms: list):
    """The sum of terms, halves first: as few additions after one another as can be."""
    half = len(terms) // 2
    return terms[0] if half == 0 else _tree(terms[:half]) + _tree(terms[half:])
