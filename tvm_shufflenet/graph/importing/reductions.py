"""Sums, means, extremes, norms, orders along axes. NaN is the largest number here, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import relax, te, tirx

from .call import Call, Converted, Unsupported, axes_of, converts, is_float, shape_of


def _reduced(operation: Callable, call: Call, value, dims, keepdim) -> relax.Expr:
    """Computed in the result's type."""
    value = call.cast(value, call.dtype)
    return call.emit(operation(value, axes_of(dims, value.ty.ndim), keepdim))


@converts("sum.dim_IntList")
def sum_along(call: Call, value, dims, keepdim, dtype) -> relax.Expr:
    del dtype
    return _reduced(relax.op.sum, call, value, dims, keepdim)


@converts("sum.default")
def sum_of_all(call: Call, value, dtype) -> relax.Expr:
    return sum_along(call, value, None, False, dtype)


@converts("mean.dim")
def mean_along(call: Call, value, dims, keepdim, dtype) -> relax.Expr:
    del dtype
    return _reduced(relax.op.mean, call, value, dims, keepdim)


@converts("mean.default")
def mean_of_all(call: Call, value, dtype) -> relax.Expr:
    return mean_along(call, value, None, False, dtype)


@converts("prod.dim_int")
def product_along(call: Call, value, dim, keepdim, dtype) -> relax.Expr:
    del dtype
    return _reduced(relax.op.prod, call, value, dim, keepdim)


@converts("prod.default")
def product_of_all(call: Call, value, dtype) -> relax.Expr:
    return product_along(call, value, None, False, dtype)


@converts("var.correction")
def variance(call: Call, value, dims, correction, keepdim) -> relax.Expr:
    """Around the mean, by the number of elements less ``correction``, which is 1 where nothing is said."""
    axes = axes_of(dims, value.ty.ndim)
    count = math.prod(shape_of(value)[axis] for axis in axes)
    divisor = max(0.0, count - (1 if correction is None else correction))
    deviation = call.emit(relax.op.subtract(value, call.emit(relax.op.mean(value, axes, True))))
    total = call.emit(relax.op.sum(relax.op.multiply(deviation, deviation), axes, keepdim))
    if divisor == 0:  # TVM refuses to; infinity or, of zero, NaN
        return call.emit(relax.op.multiply(total, relax.const(math.inf, call.dtype)))
    return call.emit(relax.op.divide(total, relax.const(divisor, call.dtype)))


@converts("std.correction")
def standard_deviation(call: Call, value, dims, correction, keepdim) -> relax.Expr:
    return call.emit(relax.op.sqrt(variance(call, value, dims, correction, keepdim)))


@converts("var_mean.correction")
def variance_and_mean(call: Call, value, dims, correction, keepdim) -> Converted:
    mean = call.emit(relax.op.mean(value, axes_of(dims, value.ty.ndim), keepdim))
    return [variance(call, value, dims, correction, keepdim), mean]


def _extreme(operation: Callable, call: Call, value, dims, keepdim) -> relax.Expr:
    if call.dtype == "bool":
        return call.cast(_extreme_of(operation, call, call.cast(value, "int8"), dims, keepdim), "bool")
    return _extreme_of(operation, call, value, dims, keepdim)


def _extreme_of(operation: Callable, call: Call, value, dims, keepdim) -> relax.Expr:
    return call.emit(operation(value, axes_of(dims, value.ty.ndim), keepdim))


@converts("amax.default")
def amax(call: Call, value, dims, keepdim) -> relax.Expr:
    return _extreme(relax.op.max, call, value, dims, keepdim)


@converts("amin.default")
def amin(call: Call, value, dims, keepdim) -> relax.Expr:
    return _extreme(relax.op.min, call, value, dims, keepdim)


@converts("max.default")
def max_of_all(call: Call, value) -> relax.Expr:
    return amax(call, value, None, False)


@converts("min.default")
def min_of_all(call: Call, value) -> relax.Expr:
    return amin(call, value, None, False)


@converts("max.dim")
def max_along(call: Call, value, dim, keepdim) -> Converted:
    return [amax(call, value, dim, keepdim), argmax(call, value, dim, keepdim)]


@converts("min.dim")
def min_along(call: Call, value, dim, keepdim) -> Converted:
    return [amin(call, value, dim, keepdim), argmin(call, value, dim, keepdim)]


@converts("argmax.default")
def argmax(call: Call, value, dim, keepdim) -> relax.Expr:
    """The first of equal elements; NaN is above all."""
    return _place_of_extreme(call, value, dim, keepdim, largest=True)


@converts("argmin.default")
def argmin(call: Call, value, dim, keepdim) -> relax.Expr:
    """The first of equal elements; NaN is below all."""
    return _place_of_extreme(call, value, dim, keepdim, largest=False)


def _place_of_extreme(call: Call, value, dim, keepdim, largest: bool) -> relax.Expr:
    shape = shape_of(value)
    if dim is None:
        value, axis = call.emit(relax.op.reshape(value, [math.prod(shape)])), 0
        result = [1] * len(shape) if keepdim else []
    else:
        axis = dim % max(len(shape), 1)
        result = [1 if keepdim and at == axis else extent for at, extent in enumerate(shape) if keepdim or at != axis]
    places = call.te(_first_extreme(axis, largest), value, name="argmax" if largest else "argmin")
    return places if shape_of(places) == result else call.emit(relax.op.reshape(places, result))


def _first_extreme(axis: int, largest: bool) -> Callable:
    """A TE function: the index along ``axis`` of the first element that no other one exceeds."""

    def compute(data: te.Tensor) -> te.Tensor:
        floats = is_float(str(data.dtype))

        def exceeds(value, best):
            further = value > best if largest else value < best
            if not floats:
                return further
            return tirx.any(further, tirx.all(tirx.isnan(value), tirx.Not(tirx.isnan(best))))

        def combine(so_far, new):
            # A lower index with the same value is the earlier one: reductions may be split and joined in any order.
            same = tirx.all(tirx.Not(exceeds(new[1], so_far[1])), tirx.Not(exceeds(so_far[1], new[1])))
            take = tirx.any(exceeds(new[1], so_far[1]), tirx.all(same, new[0] < so_far[0]))
            return tirx.Select(take, new[0], so_far[0]), tirx.Select(take, new[1], so_far[1])

        def identity(index_dtype, value_dtype):
            lowest = tirx.min_value if largest else tirx.max_value
            edge = -math.inf if largest else math.inf
            worst = tirx.const(edge, value_dtype) if is_float(str(value_dtype)) else lowest(value_dtype)
            return tirx.max_value(index_dtype), worst

        extreme = te.comm_reducer(combine, identity, name="extreme")
        along = te.reduce_axis((0, data.shape[axis]), name="k")
        shape = [extent for at, extent in enumerate(data.shape) if at != axis]

        def element(*at):
            return extreme((tirx.Cast("int64", along), data(*at[:axis], along, *at[axis:])), axis=along)

        return te.compute(shape, element, name="extreme")[0]

    return compute


@converts("any.dims")
def any_along(call: Call, value, dims, keepdim) -> relax.Expr:
    return _truth(relax.op.max, call, value, dims, keepdim)


@converts("any.dim")
def any_along_one(call: Call, value, dim, keepdim) -> relax.Expr:
    return any_along(call, value, dim, keepdim)


@converts("any.default")
def any_of_all(call: Call, value) -> relax.Expr:
    return any_along(call, value, None, False)


@converts("all.dims")
def all_along(call: Call, value, dims, keepdim) -> relax.Expr:
    return _truth(relax.op.min, call, value, dims, keepdim)


@converts("all.dim")
def all_along_one(call: Call, value, dim, keepdim) -> relax.Expr:
    return all_along(call, value, dim, keepdim)


@converts("all.default")
def all_of_all(call: Call, value) -> relax.Expr:
    return all_along(call, value, None, False)


def _truth(operation: Callable, call: Call, value, dims, keepdim) -> relax.Expr:
    if call.dtype != "bool":
        raise Unsupported("truth values as uint8")
    flags = call.cast(call.cast(value, "bool"), "int8")
    return call.cast(call.emit(operation(flags, axes_of(dims, value.ty.ndim), keepdim)), "bool")


@converts("linalg_vector_norm.default")
def vector_norm(call: Call, value, order, dims, keepdim, dtype) -> relax.Expr:
    del dtype
    value = call.cast(value, call.dtype)
    axes, order = axes_of(dims, value.ty.ndim), float(order)
    if order == 0:
        counted = call.cast(call.cast(value, "bool"), call.dtype)
        return call.emit(relax.op.sum(counted, axes, keepdim))
    size = call.emit(relax.op.abs(value))
    if math.isinf(order):
        return call.emit((relax.op.max if order > 0 else relax.op.min)(size, axes, keepdim))
    if order == 1:
        return call.emit(relax.op.sum(size, axes, keepdim))
    if order == 2:
        return call.emit(relax.op.sqrt(relax.op.sum(relax.op.multiply(value, value), axes, keepdim)))
    total = relax.op.sum(relax.op.power(size, relax.const(order, call.dtype)), axes, keepdim)
    return call.emit(relax.op.power(call.emit(total), relax.const(1 / order, call.dtype)))


@converts("cumsum.default")
def cumulative_sum(call: Call, value, dim, dtype) -> relax.Expr:
    del dtype
    return call.emit(relax.op.cumsum(call.cast(value, call.dtype), dim % max(value.ty.ndim, 1)))


@converts("cumprod.default")
def cumulative_product(call: Call, value, dim, dtype) -> relax.Expr:
    del dtype
    return call.emit(relax.op.cumprod(call.cast(value, call.dtype), dim % max(value.ty.ndim, 1)))


@converts("sort.default")
def sort(call: Call, value, dim, descending) -> Converted:
    """In either direction equal elements stay in order; NaN is the largest."""
    axis = dim % max(value.ty.ndim, 1)
    order = _order(call, value, axis, descending)
    return [call.emit(relax.op.gather_elements(value, order, axis)), order]


@converts("sort.stable")
def stable_sort(call: Call, value, stable, dim, descending) -> Converted:
    del stable
    return sort(call, value, dim, descending)


@converts("argsort.default")
def argsort(call: Call, value, dim, descending) -> relax.Expr:
    return sort(call, value, dim, descending)[1]


@converts("argsort.stable")
def stable_argsort(call: Call, value, stable, dim, descending) -> relax.Expr:
    del stable
    return argsort(call, value, dim, descending)


@converts("topk.default")
def topk(call: Call, value, k, dim, largest, in_order) -> Converted:
    """In order, whether that is asked for or not. Which of equal elements is named is not defined."""
    del in_order
    axis = dim % max(value.ty.ndim, 1)
    order = _order(call, value, axis, descending=largest)
    first = call.emit(relax.op.strided_slice(order, [axis], [0], [k], [1]))
    return [call.emit(relax.op.gather_elements(value, first, axis)), first]


def _order(call: Call, value: relax.Expr, axis: int, descending: bool) -> relax.Expr:
    """Indices that sort along ``axis``, by integers where there may be NaN: TVM's sort compares floats with ``<``."""
    if value.ty.ndim == 0:
        raise Unsupported("a tensor without axes is sorted")
    keys = value
    if str(value.ty.dtype) == "float32":
        keys = call.te(_sort_keys, value, name="sort_keys")
    elif is_float(str(value.ty.dtype)):
        raise Unsupported(f"{value.ty.dtype} is sorted")
    return call.emit(relax.op.argsort(keys, axis, descending, "int64"))


@converts("bucketize.Tensor")
def bucketize(call: Call, value, boundaries, out_int32, right) -> relax.Expr:
    """How many boundaries lie below; NaN is above every one."""
    del out_int32  # the result's
    common = call.common_dtype(0, 1)

    def compute(value, boundaries):
        along = te.reduce_axis((0, boundaries.shape[0]), name="k")

        def element(*at):
            number = value(*at)
            passed = number >= boundaries[along] if right else number > boundaries[along]
            if is_float(common):
                passed = tirx.any(tirx.isnan(number), passed)
            return te.sum(tirx.Select(passed, tirx.const(1, call.dtype), tirx.const(0, call.dtype)), axis=along)

        return te.compute(value.shape, element, name="bucketize")

    return call.te(compute, call.cast(value, common), call.cast(boundaries, common), name="bucketize")


def _sort_keys(data: te.Tensor) -> te.Tensor:
    """int32 numbers in the order of the float32 elements, zeros of both signs equal, every NaN above infinity."""

    def key(*at):
        value = data(*at)
        bits = tirx.reinterpret("int32", value)
        ordered = tirx.Select(bits < 0, bits ^ tirx.const(0x7FFFFFFF, "int32"), bits)
        ordered = tirx.Select(value == tirx.const(0, "float32"), tirx.const(0, "int32"), ordered)
        return tirx.Select(tirx.isnan(value), tirx.const(0x7FFFFFFF, "int32"), ordered)

    return te.compute(data.shape, key, name="sort_keys")
