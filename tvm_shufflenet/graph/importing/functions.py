"""Functions of one number, in PyTorch's dtypes and with its rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import relax, te, tirx

from .arithmetic import binary, scaled
from .call import Call, Unsupported, converts, is_float


@converts("round.decimals")
def round_decimals(call: Call, value, decimals) -> relax.Expr:
    """As PyTorch scales: by a power of ten that is exact, up or down."""
    if not is_float(call.dtype) or decimals == 0:
        return rounding(call, value) if decimals >= 0 else _refuse("integers are rounded to tens")
    if abs(decimals) > 10:
        raise Unsupported(f"rounding to {decimals} decimals")
    scale = relax.const(10.0 ** abs(decimals), call.dtype)
    into, back = (relax.op.multiply, relax.op.divide) if decimals > 0 else (relax.op.divide, relax.op.multiply)
    return call.emit(back(_half_even(call, call.emit(into(value, scale))), scale))


def _refuse(reason: str):
    raise Unsupported(reason)


@converts("round.default")
def rounding(call: Call, value) -> relax.Expr:
    return value if not is_float(call.dtype) else _half_even(call, value)


def _half_even(call: Call, value: relax.Expr) -> relax.Expr:
    """The nearest integer, of two as near the even one."""

    def compute(data: te.Tensor) -> te.Tensor:
        return te.compute(data.shape, lambda *at: tirx.nearbyint(data(*at)), name="round")

    return call.te(compute, value, name="round")


@converts("sign.default", "sgn.default")
def sign(call: Call, value) -> relax.Expr:
    """Of NaN it is zero, as of zero."""
    if call.dtype == "bool":
        return value
    zero, one = relax.const(0, call.dtype), relax.const(1, call.dtype)
    below = call.emit(relax.op.where(relax.op.less(value, zero), relax.const(-1, call.dtype), zero))
    return call.emit(relax.op.where(relax.op.greater(value, zero), one, below))


@converts("reciprocal.default")
def reciprocal(call: Call, value) -> relax.Expr:
    return binary(call, relax.op.divide, 1.0, value)


def _whole_already(operation: Callable) -> Callable:
    def convert(call: Call, value) -> relax.Expr:
        return call.emit(operation(value)) if is_float(call.dtype) else value

    return convert


for _name in ("floor", "ceil", "trunc"):
    converts(f"{_name}.default")(_whole_already(getattr(relax.op, _name)))


def _in_floats(operation: Callable) -> Callable:
    """A function whose value is a float, whatever its argument is."""

    def convert(call: Call, value) -> relax.Expr:
        return call.emit(operation(call.cast(value, call.dtype)))

    return convert


for _name in (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp", "log", "rsqrt", "sigmoid"),
    *("sin", "sinh", "sqrt", "tan", "tanh"),
):
    converts(f"{_name}.default")(_in_floats(getattr(relax.op, _name)))
converts("silu.default")(_in_floats(relax.op.nn.silu))


def _by_function(function: Callable, name: str) -> Callable:
    """A function of floats that Relax has not, but TIR."""

    def convert(call: Call, value) -> relax.Expr:
        def compute(data: te.Tensor) -> te.Tensor:
            return te.compute(data.shape, lambda *at: function(data(*at)), name=name)

        return call.te(compute, call.cast(value, call.dtype), name=name)

    return convert


converts("log1p.default")(_by_function(tirx.log1p, "log1p"))
converts("log2.default")(_by_function(tirx.log2, "log2"))
converts("log10.default")(_by_function(tirx.log10, "log10"))


@converts("expm1.default")
def expm1(call: Call, value) -> relax.Expr:
    value = call.cast(value, call.dtype)
    return call.emit(relax.op.subtract(relax.op.exp(value), relax.const(1, call.dtype)))


@converts("erfc.default")
def erfc(call: Call, value) -> relax.Expr:
    return call.emit(relax.op.subtract(relax.const(1, call.dtype), relax.op.erf(call.cast(value, call.dtype))))


@converts("exp2.default")
def exp2(call: Call, value) -> relax.Expr:
    return call.emit(relax.op.exp(scaled(call, value, math.log(2))))


def _classified(operation: Callable) -> Callable:
    def convert(call: Call, value) -> relax.Expr:
        if is_float(str(value.ty.dtype)):
            return call.emit(operation(value))
        return call.emit(relax.op.full_like(value, relax.const(operation is relax.op.isfinite, "bool"), "bool"))

    return convert


for _name in ("isnan", "isinf", "isfinite"):
    converts(f"{_name}.default")(_classified(getattr(relax.op, _name)))
