"""The fused depthwise operator: depthwise convolution + bias + ReLU. Arithmetic only."""

from __future__ import annotations

from tvm import te, tirx

BLOCK = "depthwise"


def depthwise(
    data_shape: tuple[int, int, int, int],
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    relu: bool,
) -> tirx.PrimFunc:
    """Depthwise convolution, float32.

    The function takes data: (N, C, H, W); weight: (C, 1, R, S) for a ``kernel`` of (R, S); bias: (1, C, 1, 1); and
    writes (N, C, OH, OW). ``padding`` is (top, left, bottom, right), filled with zeros.
    """
    batch, channels, height, width = data_shape
    rows, columns = kernel
    top, left, bottom, right = padding
    padded_height, padded_width = height + top + bottom, width + left + right
    shape = (batch, channels, (padded_height - rows) // stride[0] + 1, (padded_width - columns) // stride[1] + 1)
    zero = tirx.const(0, "float32")

    data = te.placeholder(data_shape, name="data")
    weight = te.placeholder((channels, 1, rows, columns), name="weight")
    bias = te.placeholder((1, channels, 1, 1), name="bias")
    padded = te.compute(
        (batch, channels, padded_height, padded_width),
        lambda n, c, h, w: tirx.if_then_else(
            tirx.all(h >= top, h < height + top, w >= left, w < width + left), data[n, c, h - top, w - left], zero
        ),
        name="padded",
    )
    r = te.reduce_axis((0, rows), name="r")
    s = te.reduce_axis((0, columns), name="s")
    accumulated = te.compute(
        shape,
        lambda n, c, h, w: te.sum(padded[n, c, h * stride[0] + r, w * stride[1] + s] * weight[c, 0, r, s], axis=[r, s]),
        name=BLOCK,
    )

    def stored(n, c, h, w):
        value = accumulated[n, c, h, w] + bias[0, c, 0, 0]
        # In this order a NaN stays one, as in PyTorch: TVM compiles max(a, b) to "a > b ? a : b".
        return tirx.max(zero, value) if relu else value

    result = te.compute(shape, stored, name="epilogue")
    return te.create_prim_func([data, weight, bias, result])
