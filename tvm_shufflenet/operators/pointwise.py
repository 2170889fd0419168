"""The fused pointwise operator: grouped 1x1 convolution + bias + residual + ReLU + channel shuffle. Arithmetic only."""

from __future__ import annotations

import tvm
from tvm import te, tirx
from tvm.s_tir import Schedule

BLOCK = "pointwise"


def can_fuse_shuffle(groups: int, shuffle_groups: int) -> bool:
    """Whether storing by blocks of whole groups is the shuffle: so for any shuffle that is at least as fine."""
    return shuffle_groups == 1 or shuffle_groups % groups == 0


def pointwise(
    data_shape: tuple[int, int, int, int],
    out_channels: int,
    *,
    groups: int,
    relu: bool,
    residual: bool = False,
    shuffle_groups: int = 1,
) -> tirx.PrimFunc:
    """Grouped 1x1 convolution with everything that follows it in a ShuffleNet unit, float32.

    The function takes data: (N, I, H, W), I divisible by ``groups``; weight: (O, I / groups, 1, 1); bias:
    (1, O, 1, 1); with ``residual`` an addend: (N, O, H, W), added before the ReLU; and writes (N, O, H, W), channels
    shuffled by ``shuffle_groups``.

    The image plane is one axis of H * W pixels, so that a tile may cross rows. The shuffle costs nothing: it only
    chooses which channel plane a result is stored to. Source: ShuffleNet (arXiv:1707.01083), section 3.1.
    """
    batch, in_channels, height, width = data_shape
    if not can_fuse_shuffle(groups, shuffle_groups):
        raise ValueError(f"a shuffle by {shuffle_groups} cannot be fused into a convolution of {groups} groups")
    # A block is a run of output channels that shares its input group and its place in the shuffle.
    blocks = max(groups, shuffle_groups)
    group_in, block_out, blocks_per_group = in_channels // groups, out_channels // blocks, blocks // groups
    pixels = height * width

    data = te.placeholder(data_shape, name="data")
    weight = te.placeholder((out_channels, group_in, 1, 1), name="weight")
    bias = te.placeholder((1, out_channels, 1, 1), name="bias")
    addend = te.placeholder((batch, out_channels, height, width), name="addend")
    k = te.reduce_axis((0, group_in), name="k")

    accumulated = te.compute(
        (batch, blocks, block_out, pixels),
        lambda n, b, o, p: te.sum(
            data[n, b // blocks_per_group * group_in + k, p // width, p % width] * weight[b * block_out + o, k, 0, 0],
            axis=k,
        ),
        name=BLOCK,
    )

    def stored(n, b, o, p):
        channel = b * block_out + o
        value = accumulated[n, b, o, p] + bias[0, channel, 0, 0]
        if residual:
            value = value + addend[n, channel, p // width, p % width]
        # In this order a NaN stays one, as in PyTorch: TVM compiles max(a, b) to "a > b ? a : b".
        return tirx.max(tirx.const(0, "float32"), value) if relu else value

    result = te.compute((batch, blocks, block_out, pixels), stored, name="epilogue")
    arguments = [data, weight, bias, *([addend] if residual else []), result]
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func(arguments)}))

    def plane(n, b, o, p):
        channel = o * blocks + b if shuffle_groups > 1 else b * block_out + o
        return n, channel, p // width, p % width

    schedule.transform_layout("epilogue", ("write", 0), plane)
    return schedule.mod["main"]
