"""Pooling and padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import relax, te, tirx

from ..passes.legalize import FEW, MAXIMUM
from .call import Call, Converted, converts, shape_of

MAX_POOLS = {1: relax.op.nn.max_pool1d, 2: relax.op.nn.max_pool2d, 3: relax.op.nn.max_pool3d}
MEAN_POOLS = {1: relax.op.nn.avg_pool1d, 2: relax.op.nn.avg_pool2d, 3: relax.op.nn.avg_pool3d}
ADAPTIVE = {
    1: relax.op.nn.adaptive_avg_pool1d,
    2: relax.op.nn.adaptive_avg_pool2d,
    3: relax.op.nn.adaptive_avg_pool3d,
}
LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def _each(value: int | Sequence[int], count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _in_batch(call: Call, value: relax.Expr, spatial: int) -> relax.Expr:
    return call.emit(relax.op.expand_dims(value, 0)) if value.ty.ndim == spatial + 1 else value


def _as_result(call: Call, value: relax.Expr) -> relax.Expr:
    """Without the batch axis that the input had not."""
    return value if value.ty.ndim == len(call.shape) else call.emit(relax.op.squeeze(value, [0]))


def _max_pool(spatial: int, call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> relax.Expr:
    kernel = _each(kernel, spatial)
    pooled = MAX_POOLS[spatial](
        _in_batch(call, value, spatial),
        pool_size=kernel,
        strides=_each(stride, spatial) if stride else kernel,
        padding=_each(padding, spatial),
        dilation=_each(dilation, spatial),
        ceil_mode=ceil_mode,
        layout=LAYOUTS[spatial],
    )
    return _as_result(call, call.emit(pooled))


@converts("max_pool1d.default")
def max_pool1d(call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> relax.Expr:
    return _max_pool(1, call, value, kernel, stride, padding, dilation, ceil_mode)


@converts("max_pool2d.default")
def max_pool2d(call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> relax.Expr:
    return _max_pool(2, call, value, kernel, stride, padding, dilation, ceil_mode)


@converts("max_pool3d.default")
def max_pool3d(call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> relax.Expr:
    return _max_pool(3, call, value, kernel, stride, padding, dilation, ceil_mode)


@converts("max_pool2d_with_indices.default")
def max_pool2d_with_indices(call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> Converted:
    """The maxima alone: where they stood is refused where it is read."""
    return _max_pool(2, call, value, kernel, stride, padding, dilation, ceil_mode)


@converts("max_pool3d_with_indices.default")
def max_pool3d_with_indices(call: Call, value, kernel, stride, padding, dilation, ceil_mode) -> Converted:
    return _max_pool(3, call, value, kernel, stride, padding, dilation, ceil_mode)


def _mean_pool(
    spatial: int, call: Call, value, kernel, stride, padding, ceil_mode, count_include_pad, divisor=None
) -> relax.Expr:
    kernel, padding = _each(kernel, spatial), _each(padding, spatial)
    stride = _each(stride, spatial) if stride else kernel
    value = _in_batch(call, value, spatial)
    layout = LAYOUTS[spatial]
    if divisor is None and kernel == shape_of(value)[2:] and not any(padding) and math.prod(kernel) > FEW:
        return _mean_of_all(spatial, call, value)
    if divisor is None:
        pooled = MEAN_POOLS[spatial](
            value, kernel, stride, padding, [1] * spatial, ceil_mode, count_include_pad, layout
        )
        return _as_result(call, call.emit(pooled))
    # The mean of whole windows of a padded tensor, times their size: the sum, which has one divisor everywhere.
    extents, results = shape_of(value)[2:], call.shape[-spatial:]
    widths = [0] * 4
    for extent, result, size, step, before in zip(extents, results, kernel, stride, padding, strict=True):
        widths += [before, max(before, (result - 1) * step + size - extent - before)]
    value = call.emit(relax.op.nn.pad(value, widths, "constant", 0.0))
    whole = call.emit(MEAN_POOLS[spatial](value, kernel, stride, [0] * spatial, [1] * spatial, False, True, layout))
    every = list(range(2, 2 + spatial))
    whole = call.emit(relax.op.strided_slice(whole, every, [0] * spatial, results, [1] * spatial))
    factor = relax.const(math.prod(kernel) / divisor, call.dtype)
    return _as_result(call, call.emit(relax.op.multiply(whole, factor)))


@converts("avg_pool1d.default")
def avg_pool1d(call: Call, value, kernel, stride, padding, ceil_mode, count_include_pad) -> relax.Expr:
    return _mean_pool(1, call, value, kernel, stride, padding, ceil_mode, count_include_pad)


@converts("avg_pool2d.default")
def avg_pool2d(call: Call, value, kernel, stride, padding, ceil_mode, count_include_pad, divisor) -> relax.Expr:
    return _mean_pool(2, call, value, kernel, stride, padding, ceil_mode, count_include_pad, divisor)


@converts("avg_pool3d.default")
def avg_pool3d(call: Call, value, kernel, stride, padding, ceil_mode, count_include_pad, divisor) -> relax.Expr:
    return _mean_pool(3, call, value, kernel, stride, padding, ceil_mode, count_include_pad, divisor)


def _adaptive(spatial: int, call: Call, value) -> relax.Expr:
    value = _in_batch(call, value, spatial)
    if math.prod(call.shape[-spatial:]) == 1 and math.prod(shape_of(value)[2:]) > FEW:
        return _mean_of_all(spatial, call, value)
    return _as_result(call, call.emit(ADAPTIVE[spatial](value, call.shape[-spatial:], LAYOUTS[spatial])))


def _mean_of_all(spatial: int, call: Call, value: relax.Expr) -> relax.Expr:
    """Pooling as a mean, whose sum of many numbers is exact (``graph.legalize``)."""
    return _as_result(call, call.emit(relax.op.mean(value, list(range(2, 2 + spatial)), True)))


@converts("adaptive_avg_pool1d.default")
def adaptive_avg_pool1d(call: Call, value, size) -> relax.Expr:
    del size
    return _adaptive(1, call, value)


@converts("_adaptive_avg_pool2d.default", "adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(call: Call, value, size) -> relax.Expr:
    del size
    return _adaptive(2, call, value)


@converts("_adaptive_avg_pool3d.default", "adaptive_avg_pool3d.default")
def adaptive_avg_pool3d(call: Call, value, size) -> relax.Expr:
    del size
    return _adaptive(3, call, value)


@converts("constant_pad_nd.default")
def constant_pad(call: Call, value, pads, filler) -> relax.Expr:
    """Pads from the last axis on, before and after; those below zero cut off."""
    rank, shape = value.ty.ndim, shape_of(value)
    before, after = [0] * rank, [0] * rank
    for at in range(len(pads) // 2):
        before[rank - 1 - at], after[rank - 1 - at] = pads[2 * at], pads[2 * at + 1]
    cut = [axis for axis in range(rank) if before[axis] < 0 or after[axis] < 0]
    if cut:
        begin = [max(0, -before[axis]) for axis in cut]
        end = [shape[axis] - max(0, -after[axis]) for axis in cut]
        value = call.emit(relax.op.strided_slice(value, cut, begin, end, [1] * len(cut)))
    widths = [max(0, width) for pair in zip(before, after, strict=True) for width in pair]
    if not any(widths):
        return value
    if call.dtype == "bool":
        padded = relax.op.nn.pad(call.cast(value, "int8"), widths, "constant", float(bool(filler)))
        return call.cast(call.emit(padded), "bool")
    return call.emit(relax.op.nn.pad(value, widths, "constant", float(filler)))


@converts("adaptive_max_pool2d.default")
def adaptive_max_pool2d(call: Call, value, size) -> Converted:
    """The maxima alone of windows that cover the input evenly, which may overlap and differ in size."""
    del size
    leading, results, extents = call.shape[:-2], call.shape[-2:], shape_of(value)[-2:]
    longest = [
        max(-(-(at + 1) * n // m) - at * n // m for at in range(m)) for n, m in zip(extents, results, strict=True)
    ]

    def compute(data: te.Tensor) -> te.Tensor:
        within = [te.reduce_axis((0, length), name=f"r{axis}") for axis, length in enumerate(longest)]

        def element(*at):
            first = [tirx.floordiv(place * n, m) for place, n, m in zip(at[-2:], extents, results, strict=True)]
            end = [tirx.floordiv((p + 1) * n + m - 1, m) for p, n, m in zip(at[-2:], extents, results, strict=True)]
            places = [tirx.min(start + w, stop - 1) for start, w, stop in zip(first, within, end, strict=True)]
            return MAXIMUM(data(*at[:-2], *places), axis=within)

        return te.compute([*leading, *results], element, name="adaptive_max_pool")

    return call.te(compute, value, name="adaptive_max_pool")
