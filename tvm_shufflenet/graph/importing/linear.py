"""Matrix products, normalisations and softmax."""

from __future__ import annotations

import math

from tvm import relax

from .call import Call, Converted, Unsupported, converts, is_float, shape_of


def _product(call: Call, first, second) -> relax.Expr:
    return call.emit(relax.op.matmul(first, second, call.dtype))


@converts("mm.default", "bmm.default")
def matrix_product(call: Call, first, second) -> relax.Expr:
    return _product(call, first, second)


@converts("addmm.default", "baddbmm.default")
def added_product(call: Call, addend, first, second, beta, alpha) -> relax.Expr:
    """``beta * addend + alpha * first @ second``; what is multiplied with zero is not even read."""
    product = _scaled(call, _product(call, first, second), alpha)
    if beta == 0:
        return product
    return call.emit(relax.op.add(_scaled(call, addend, beta), product))


def _scaled(call: Call, value: relax.Expr, factor: float) -> relax.Expr:
    return value if factor == 1 else call.emit(relax.op.multiply(value, relax.const(factor, call.dtype)))


@converts("_softmax.default")
def softmax(call: Call, value, dim, half_to_float) -> relax.Expr:
    del half_to_float  # the result's dtype
    if value.ty.ndim == 0:
        return call.emit(relax.op.ones_like(value))
    return call.emit(relax.op.nn.softmax(call.cast(value, call.dtype), dim % value.ty.ndim))


@converts("_log_softmax.default")
def log_softmax(call: Call, value, dim, half_to_float) -> relax.Expr:
    """Along any axis: TVM's own works along the last one alone."""
    del half_to_float
    value, axis = call.cast(value, call.dtype), dim % max(value.ty.ndim, 1)
    shifted = call.emit(relax.op.subtract(value, call.emit(relax.op.max(value, [axis], True))))
    total = call.emit(relax.op.log(relax.op.sum(relax.op.exp(shifted), [axis], True)))
    return call.emit(relax.op.subtract(shifted, total))


@converts("native_layer_norm.default")
def layer_norm(call: Call, value, normalized_shape, weight, bias, eps) -> Converted:
    axes = list(range(value.ty.ndim - len(normalized_shape), value.ty.ndim))
    return _affine(call, _normalised(call, value, axes, eps), weight, bias)


@converts("native_group_norm.default")
def group_norm(call: Call, value, weight, bias, batch, channels, pixels, groups, eps) -> Converted:
    grouped = call.emit(relax.op.reshape(value, [batch, groups, channels // groups * pixels]))
    whole = call.emit(relax.op.reshape(_normalised(call, grouped, [2], eps), call.shape))
    return _affine(call, whole, _per_channel(call, weight), _per_channel(call, bias))


@converts("_native_batch_norm_legit.no_stats")
def norm_by_own_statistics(call: Call, value, weight, bias, training, momentum, eps) -> Converted:
    """Of an instance norm, and of a batch norm that keeps no statistics."""
    del training, momentum
    axes = [axis for axis in range(value.ty.ndim) if axis != 1]
    whole = _normalised(call, value, axes, eps)
    return _affine(call, whole, _per_channel(call, weight), _per_channel(call, bias))


def _normalised(call: Call, value: relax.Expr, axes: list[int], eps: float) -> relax.Expr:
    """Deviations from the mean over their standard deviation; the mean is taken off before anything is squared."""
    if not is_float(call.dtype) or not math.prod(shape_of(value)):
        raise Unsupported("nothing to normalise")
    deviation = call.emit(relax.op.subtract(value, call.emit(relax.op.mean(value, axes, True))))
    spread = call.emit(relax.op.mean(relax.op.multiply(deviation, deviation), axes, True))
    factor = call.emit(relax.op.rsqrt(relax.op.add(spread, relax.const(eps, call.dtype))))
    return call.emit(relax.op.multiply(deviation, factor))


def _affine(call: Call, value: relax.Expr, weight: relax.Expr | None, bias: relax.Expr | None) -> relax.Expr:
    if weight is not None:
        value = call.emit(relax.op.multiply(value, weight))
    return value if bias is None else call.emit(relax.op.add(value, bias))


def _per_channel(call: Call, values: relax.Expr | None) -> relax.Expr | None:
    """Of (C,), so that it stands along axis 1 of the result."""
    if values is None:
        return None
    shape = [1, call.shape[1], *(1 for _ in call.shape[2:])]
    return call.emit(relax.op.reshape(values, shape))
