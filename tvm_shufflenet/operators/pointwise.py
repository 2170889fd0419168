"""The fused pointwise operator: grouped 1x1 convolution + bias + residual + ReLU + channel shuffle. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .base import EPILOGUE, Operator
from .building import INDEX, parameter, rectified
from .destination import Window, own

BLOCK = "pointwise"


def can_fuse_shuffle(groups: int, shuffle_groups: int) -> bool:
    """Whether storing by blocks of whole groups is the shuffle: so for any shuffle that is at least as fine."""
    return shuffle_groups == 1 or shuffle_groups % groups == 0


@dataclass(frozen=True)
class Pointwise(Operator):
    """One grouped 1x1 convolution with everything that is fused into it.

    ``planes`` is the number of channel planes of the data tensor; with ``gathered`` a table names the ``in_channels``
    planes that are read, else they are the first. ``window`` is where the results go (default: a tensor of their own).

    It takes data: (N, planes, H, W); weight: see ``pack_weight``; bias: (O,); with ``gathered`` the int32 table of
    input planes: (I,); with ``residual`` an addend: (N, O, H, W), added before the ReLU; for a shared tensor with
    ``scattered`` the int32 table of output planes: (O,), and the tensor itself, which is not read; and writes
    (N, total, H, W), channels shuffled by ``shuffle_groups``. Raises ValueError for a shuffle that cannot be fused.

    The image plane is one axis of H * W pixels, so that a tile may cross rows. The shuffle costs nothing: it only
    chooses which channel plane a result is stored to. Source: ShuffleNet (arXiv:1707.01083), section 3.1.
    """

    batch: int
    planes: int
    height: int
    width: int
    in_channels: int
    out_channels: int
    groups: int = 1
    relu: bool = False
    residual: bool = False
    shuffle_groups: int = 1
    gathered: bool = False
    window: Window | None = None

    @property
    def blocks(self) -> int:
        """A block is a run of output channels that shares its input group and its place in the shuffle."""
        return max(self.groups, self.shuffle_groups)

    @property
    def destination(self) -> Window:
        return self.window or own(self.out_channels)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.destination.total, self.height, self.width

    def pack_weight(self, weight: np.ndarray) -> np.ndarray:
        """(O, I / groups, 1, 1) as PyTorch has it -> (blocks, strips, I / groups, strip); zeros fill the last strip."""
        by_block, strip = weight.reshape(self.blocks, self.out_channels // self.blocks, -1), self.layout.strip
        filled = np.pad(by_block, ((0, 0), (0, -by_block.shape[1] % strip), (0, 0)))
        by_strip = filled.reshape(self.blocks, -1, strip, by_block.shape[2])
        return np.ascontiguousarray(by_strip.transpose(0, 1, 3, 2))

    @classmethod
    def example(cls) -> Pointwise:
        return cls(1, 4, 2, 2, in_channels=4, out_channels=4)

    def function(self) -> tirx.PrimFunc:
        if not can_fuse_shuffle(self.groups, self.shuffle_groups):
            raise ValueError(
                f"a shuffle by {self.shuffle_groups} cannot be fused into a convolution of {self.groups} groups"
            )
        return super().function()

    def emit(self) -> None:
        batch, height, width, window = self.batch, self.height, self.width, self.destination
        blocks, pixels, strip, dtype = self.blocks, height * width, self.layout.strip, self.dtype
        group_in, block_out, per_group = (
            self.in_channels // self.groups,
            self.out_channels // blocks,
            blocks // self.groups,
        )

        data = parameter("data", (batch, self.planes, height, width), dtype)
        weight = parameter("weight", (blocks, -(-block_out // strip), group_in, strip), dtype)
        bias = parameter("bias", (self.out_channels,), self.accumulator)
        gather = parameter("gather", (self.in_channels,), INDEX) if self.gathered else None
        addend = parameter("addend", (batch, self.out_channels, height, width), dtype) if self.residual else None
        scatter = parameter("scatter", (self.out_channels,), INDEX) if window.scattered else None
        if window.shared:
            parameter("shared", self.output_shape, dtype)
        result = parameter("result", self.output_shape, dtype)
        accumulated = T.sblock_alloc_buffer((batch, blocks, block_out, pixels), self.accumulator)

        with T.grid(batch, blocks, block_out, pixels, group_in) as loops, T.sblock(BLOCK):
            n, b, o, p, k = T.axis.remap("SSSSR", loops)
            row, column = p // width, p % width
            channel = b // per_group * group_in + k
            plane = gather[channel] if gather is not None else channel
            read = slice(0, self.planes) if gather is not None else plane
            reads = [data[n, read, row, column], weight[b, o // strip, k, o % strip], bias[b * block_out + o]]
            T.reads(*reads, *([gather[channel]] if gather is not None else []))
            T.writes(accumulated[n, b, o, p])
            with T.init():
                T.buffer_store(accumulated, bias[b * block_out + o], [n, b, o, p])
            product = data[n, plane, row, column] * weight[b, o // strip, k, o % strip]
            T.buffer_store(accumulated, accumulated[n, b, o, p] + product, [n, b, o, p])

        with T.grid(batch, blocks, block_out, pixels) as loops, T.sblock(EPILOGUE):
            n, b, o, p = T.axis.remap("SSSS", loops)
            row, column = p // width, p % width
            channel = b * block_out + o
            shuffled = o * blocks + b if self.shuffle_groups > 1 else channel
            plane = scatter[shuffled] if scatter is not None else window.offset + shuffled
            reads, value = [accumulated[n, b, o, p]], accumulated[n, b, o, p]
            if addend is not None:
                reads.append(addend[n, channel, row, column])
                value = value + addend[n, channel, row, column]
            if scatter is not None:
                reads.append(scatter[shuffled])
            T.reads(*reads)
            T.writes(result[n, slice(0, window.total) if scatter is not None else plane, row, column])
            T.buffer_store(result, rectified(value, self.relu), [n, plane, row, column])
