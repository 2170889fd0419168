"""The pooling operator: maximum or mean of a sliding window + ReLU, into a window of planes. Arithmetic only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import ir, tirx
from tvm.script.ir_builder import tirx as T

from .base import EPILOGUE, Operator
from .building import INDEX, cast, parameter, rectified
from .destination import Window, own
from .sliding import Convert, Sliding, converted, unchanged

BLOCK = "pooling"
LOWEST = float("-inf")


@dataclass(frozen=True)
class Arithmetic:
    """How a window is reduced: scratch of ``dtype``, what padding and accumulators hold, and the two functions."""

    dtype: str
    start: ir.Expr
    convert: Convert
    combine: Callable[[ir.Expr, ir.Expr], ir.Expr]


@dataclass(frozen=True)
class Pooling(Operator):
    """Pooling of every channel plane. ``kind`` is ``max`` or ``average``.

    ``padding`` is (top, left, bottom, right). ``count_include_pad`` divides a mean by the whole window, else by the
    pixels of the image in it. ``ceil_mode`` lets the last window hang over the padding, as PyTorch does; ``window`` is
    where the results go (default: a tensor of their own). With ``non_negative`` data, as after a ReLU, a maximum is
    found among bit patterns: below zero there are only -0.0 and NaN.

    It takes data: (N, C, H, W); for a shared tensor with ``scattered`` the int32 table of output planes: (C,), and the
    tensor itself, which is not read; and writes result: (N, total, OH, OW).
    """

    batch: int
    channels: int
    height: int
    width: int
    kind: str = "max"
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)
    count_include_pad: bool = True
    ceil_mode: bool = False
    relu: bool = False
    window: Window | None = None
    non_negative: bool = False

    @property
    def destination(self) -> Window:
        return self.window or own(self.channels)

    @property
    def sliding(self) -> Sliding:
        """The window's geometry, bottom and right padding grown by what ``ceil_mode`` adds."""
        top, left, bottom, right = self.padding
        if self.ceil_mode:
            bottom += self._overhang(self.height, top, bottom, self.kernel[0], self.stride[0])
            right += self._overhang(self.width, left, right, self.kernel[1], self.stride[1])
        return Sliding(self.height, self.width, self.kernel, self.stride, (top, left, bottom, right), self.layout)

    @staticmethod
    def _overhang(extent: int, before: int, after: int, kernel: int, stride: int) -> int:
        """Further padding that one more window needs; none where it would begin beyond the image and its padding."""
        rest = (extent + before + after - kernel) % stride
        if rest == 0:
            return 0
        start = extent + before + after - kernel - rest + stride
        return stride - rest if start < extent + before else 0

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.destination.total, self.sliding.out_height, self.sliding.out_width

    @classmethod
    def example(cls) -> Pooling:
        return cls(1, 2, 4, 4)

    def emit(self) -> None:
        batch, channels, sliding, window = self.batch, self.channels, self.sliding, self.destination
        height, width, rounded = sliding.out_height, sliding.out_width, sliding.rounded_width
        arithmetic = self._arithmetic()
        data = parameter("data", (batch, channels, self.height, self.width), self.dtype)
        scatter = parameter("scatter", (channels,), INDEX) if window.scattered else None
        if window.shared:
            parameter("shared", self.output_shape, self.dtype)
        result = parameter("result", self.output_shape, self.dtype)
        padded = T.sblock_alloc_buffer(sliding.scratch_shape(batch, channels), arithmetic.dtype)
        accumulated = T.sblock_alloc_buffer((batch, channels, height, rounded), arithmetic.dtype)

        sliding.pad(data, padded, arithmetic.start, arithmetic.convert)
        with T.grid(batch, channels, height, rounded, *self.kernel) as loops, T.sblock(BLOCK):
            n, c, h, w, r, s = T.axis.remap("SSSSRR", loops)
            place = sliding.place(n, c, h, w, r, s)
            T.reads(padded[place])
            T.writes(accumulated[n, c, h, w])
            with T.init():
                T.buffer_store(accumulated, arithmetic.start, [n, c, h, w])
            T.buffer_store(accumulated, arithmetic.combine(padded[place], accumulated[n, c, h, w]), [n, c, h, w])

        with T.grid(batch, channels, height, width) as loops, T.sblock(EPILOGUE):
            n, c, h, w = T.axis.remap("SSSS", loops)
            plane = scatter[c] if scatter is not None else window.offset + c
            T.reads(accumulated[n, c, h, w], *([scatter[c]] if scatter is not None else []))
            T.writes(result[n, slice(0, window.total) if scatter is not None else plane, h, w])
            value = T.reinterpret(self.dtype, accumulated[n, c, h, w]) if self.bitwise else accumulated[n, c, h, w]
            value = value if self.kind == "max" else value * self._share(h, w)
            T.buffer_store(result, cast(rectified(value, self.relu), self.dtype), [n, plane, h, w])

    @property
    def bitwise(self) -> bool:
        """Whether the maximum is that of unsigned integers."""
        return self.kind == "max" and self.non_negative

    def _arithmetic(self) -> Arithmetic:
        if self.kind == "average":
            zero = tirx.const(0, self.total)
            return Arithmetic(self.total, zero, converted(self.total), lambda value, so_far: so_far + value)
        if self.bitwise:
            unsigned = f"uint{8 * self.precision.bytes}"
            return Arithmetic(unsigned, tirx.const(0, unsigned), _bits(unsigned), tirx.max)
        return Arithmetic(self.dtype, tirx.const(LOWEST, self.dtype), unchanged, _larger)

    def _share(self, h, w):
        """What a sum is multiplied with: one over the number of pixels that PyTorch counts."""
        along = ((h, self.height, 0), (w, self.width, 1))
        counts = [self._count(place, extent, axis) for place, extent, axis in along]
        if all(isinstance(count, int) for count in counts):
            return tirx.const(1.0 / (counts[0] * counts[1]), self.total)
        return tirx.const(1, self.total) / tirx.Cast(self.total, counts[0] * counts[1])

    def _count(self, place, extent: int, axis: int):
        """Pixels counted along one axis: an int where they are everywhere as many."""
        kernel, stride = self.kernel[axis], self.stride[axis]
        before, after = self.padding[axis], self.padding[axis + 2]
        outputs = (self.sliding.out_height, self.sliding.out_width)[axis]
        low, high = (-before, extent + after) if self.count_include_pad else (0, extent)
        last = (outputs - 1) * stride - before + kernel
        if low <= -before and last <= high:
            return kernel
        start = place * stride - before
        return tirx.min(start + kernel, high) - tirx.max(start, low)


def _bits(unsigned: str) -> Convert:
    """The bit patterns without the sign, in whose order as ``unsigned`` integers every NaN is above infinity: there is
    no other sign than those of -0.0 and of NaN."""
    magnitude = tirx.const(2 ** (tvm.DataType(unsigned).bits - 1) - 1, unsigned)

    def convert(vector: ir.Expr, lanes: int) -> ir.Expr:
        dtype = unsigned if lanes == 1 else f"{unsigned}x{lanes}"
        mask = magnitude if lanes == 1 else T.broadcast(magnitude, lanes)
        return tirx.bitwise_and(T.reinterpret(dtype, vector), mask)

    return convert


def _larger(value: ir.Expr, so_far: ir.Expr) -> ir.Expr:
    """The maximum as PyTorch has it: a NaN on either side stays. TVM compiles max(a, b) to "a > b ? a : b"."""
    return tirx.Select(tirx.isnan(value), value, tirx.max(value, so_far))
