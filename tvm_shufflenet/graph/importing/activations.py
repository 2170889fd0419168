"""Bounds and activations."""

from __future__ import annotations

import math

from tvm import relax

from .arithmetic import scaled
from .call import Call, converts, is_float


@converts("clamp.default", "clamp.Tensor")
def clamp(call: Call, value, lower, upper) -> relax.Expr:
    """The upper bound wins where the two cross."""
    value = call.cast(value, call.dtype)
    numbers = all(bound is None or not isinstance(bound, relax.Expr) for bound in (lower, upper))
    if numbers and is_float(call.dtype):
        lower, upper = -math.inf if lower is None else lower, math.inf if upper is None else upper
        return call.emit(relax.op.clip(value, lower, upper))
    if lower is not None:
        value = call.emit(relax.op.maximum(value, call.cast(lower, call.dtype)))
    return value if upper is None else call.emit(relax.op.minimum(value, call.cast(upper, call.dtype)))


@converts("clamp_min.default", "clamp_min.Tensor")
def clamp_min(call: Call, value, lower) -> relax.Expr:
    return clamp(call, value, lower, None)


@converts("clamp_max.default", "clamp_max.Tensor")
def clamp_max(call: Call, value, upper) -> relax.Expr:
    return clamp(call, value, None, upper)


@converts("hardtanh.default")
def hardtanh(call: Call, value, lower, upper) -> relax.Expr:
    return clamp(call, value, lower, upper)


@converts("elu.default")
def elu(call: Call, value, alpha, scale, input_scale) -> relax.Expr:
    """``scale * x`` above zero, else ``scale * alpha * (exp(input_scale * x) - 1)``: ELU, SELU and CELU."""
    constant = (relax.const(number, call.dtype) for number in (0, 1, float(alpha) * scale))
    zero, one, below = constant
    inner = relax.op.subtract(relax.op.exp(scaled(call, value, input_scale)), one)
    negative = call.emit(relax.op.multiply(call.emit(inner), below))
    return call.emit(relax.op.where(relax.op.greater(value, zero), scaled(call, value, scale), negative))


@converts("softplus.default")
def softplus(call: Call, value, beta, threshold) -> relax.Expr:
    """``log(1 + exp(beta * x)) / beta``, and ``x`` itself where ``beta * x`` is above ``threshold``."""
    inner = scaled(call, value, beta)
    soft = call.emit(relax.op.log(relax.op.add(relax.op.exp(inner), relax.const(1, call.dtype))))
    soft = call.emit(relax.op.divide(soft, relax.const(beta, call.dtype)))
    return call.emit(relax.op.where(relax.op.greater(inner, relax.const(threshold, call.dtype)), value, soft))


@converts("softshrink.default")
def softshrink(call: Call, value, width) -> relax.Expr:
    """``x`` moved towards zero by ``width``, zero within it."""
    width, zero = relax.const(width, call.dtype), relax.const(0, call.dtype)
    within = call.emit(relax.op.less_equal(relax.op.abs(value), width))
    moved = call.emit(relax.op.where(relax.op.greater(value, zero), value - width, value + width))
    return call.emit(relax.op.where(within, zero, moved))


@converts("gelu.default")
def gelu(call: Call, value, approximate) -> relax.Expr:
    return call.emit((relax.op.nn.gelu_tanh if approximate == "tanh" else relax.op.nn.gelu)(value))


@converts("leaky_relu.default")
def leaky_relu(call: Call, value, slope) -> relax.Expr:
    return call.emit(relax.op.nn.leakyrelu(value, slope))
