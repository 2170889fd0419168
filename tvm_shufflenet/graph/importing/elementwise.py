"""Arithmetic, comparisons and activations, in PyTorch's dtypes and with its treatment of NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax, te, tirx

from ..bindings import constant
from ..passes.legalize import broadcast, immediate
from .call import Call, Unsupported, converts, is_dtype, is_float

LARGEST_UNROLLED_POWER = 8


def binary(call: Call, operation: Callable, first, second, dtype: str | None = None) -> relax.Expr:
    """``operation`` of two operands in ``dtype``, by default that of the result."""
    dtype = dtype or call.dtype
    return call.emit(operation(call.cast(first, dtype), call.cast(second, dtype)))


def scaled(call: Call, value, factor) -> relax.Expr:
    """``factor`` times a tensor or number, in the dtype of the result."""
    value = call.cast(value, call.dtype)
    return value if factor == 1 else call.emit(relax.op.multiply(value, relax.const(factor, call.dtype)))


def _number(operand) -> float | None:
    """The value of an operand that is one number; None for others."""
    value = constant(operand) if isinstance(operand, relax.Expr) else np.asarray(operand)
    return float(value) if value is not None and value.ndim == 0 else None


@converts("add.Tensor", "add.Scalar")
def add(call: Call, first, second, alpha) -> relax.Expr:
    if call.dtype == "bool":
        return binary(call, relax.op.logical_or, first, second)
    return binary(call, relax.op.add, first, scaled(call, second, alpha))


def _zero_of_finite(call: Call, value) -> relax.Expr:
    """Zero, but NaN of what is not finite."""
    zero, nan = relax.const(0, call.dtype), relax.const(math.nan, call.dtype)
    return call.emit(relax.op.where(relax.op.isfinite(call.cast(value, call.dtype)), zero, nan))


@converts("sub.Tensor", "sub.Scalar")
def subtract(call: Call, first, second, alpha) -> relax.Expr:
    """What is subtracted from itself is zero, but for NaN and infinity: TVM would fold it."""
    if first is second and alpha == 1 and is_float(call.dtype):
        return _zero_of_finite(call, first)
    return binary(call, relax.op.subtract, first, scaled(call, second, alpha))


@converts("rsub.Tensor", "rsub.Scalar")
def reversed_subtract(call: Call, first, second, alpha) -> relax.Expr:
    return subtract(call, second, first, alpha)


@converts("mul.Tensor", "mul.Scalar")
def multiply(call: Call, first, second) -> relax.Expr:
    """Zero times NaN or infinity is NaN: TVM would fold it."""
    if is_float(call.dtype) and 0 in (_number(first), _number(second)):
        return _zero_of_finite(call, second if _number(first) == 0 else first)
    return binary(call, relax.op.logical_and if call.dtype == "bool" else relax.op.multiply, first, second)


@converts("div.Tensor", "div.Scalar")
def divide(call: Call, first, second) -> relax.Expr:
    if _number(second) == 0:  # TVM refuses to; infinity or, of zero, NaN
        return binary(call, relax.op.multiply, first, math.inf)
    return binary(call, relax.op.divide, first, second)


@converts("div.Tensor_mode", "div.Scalar_mode")
def divide_rounded(call: Call, first, second, rounding_mode) -> relax.Expr:
    if rounding_mode is None:
        return divide(call, first, second)
    if rounding_mode == "floor":
        return floor_divide(call, first, second)
    if is_float(call.dtype):
        return call.emit(relax.op.trunc(divide(call, first, second)))
    return _te_binary(call, tirx.truncdiv, first, second, "truncated_division")


@converts("floor_divide.default", "floor_divide.Scalar")
def floor_divide(call: Call, first, second) -> relax.Expr:
    operation = _floor_division if is_float(call.dtype) else tirx.floordiv
    return _te_binary(call, operation, first, second, "floor_division")


@converts("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(call: Call, first, second) -> relax.Expr:
    return _te_binary(call, _remainder if is_float(call.dtype) else tirx.floormod, first, second, "remainder")


@converts("fmod.Tensor", "fmod.Scalar")
def fmod(call: Call, first, second) -> relax.Expr:
    return _te_binary(call, _fmod if is_float(call.dtype) else tirx.truncmod, first, second, "fmod")


def _fmod(first, second):
    """The C library's, which is exact. TIR has an operator of that name, for which LLVM has no rule."""
    function = {"float32": "fmodf", "float64": "fmod"}.get(str(first.ty.dtype))
    if function is None:
        raise Unsupported(f"a remainder in {first.ty.dtype}")
    return tirx.call_pure_extern(str(first.ty.dtype), function, first, second)


def _te_binary(call: Call, operation: Callable, first, second, name: str) -> relax.Expr:
    """``operation`` of the elements of two operands, broadcast against each other."""
    shape = call.shape

    def compute(left: te.Tensor, right: te.Tensor) -> te.Tensor:
        return te.compute(shape, lambda *at: operation(broadcast(left, at), broadcast(right, at)), name=name)

    operands = (immediate(call.cast(each, call.dtype)) for each in (first, second))
    return call.te(compute, *operands, name=name)


def _remainder(first, second):
    """Of the divisor's sign, exactly: what fmod leaves, and one divisor more where the signs differ."""
    rest = _fmod(first, second)
    return tirx.Select(_opposite(rest, second), rest + second, rest)


def _opposite(first, second):
    """Whether one is above zero and the other below."""
    zero = tirx.const(0, first.ty)
    return tirx.any(tirx.all(first < zero, second > zero), tirx.all(first > zero, second < zero))


def _floor_division(first, second):
    """As PyTorch divides and rounds down: by what the remainder leaves, so that no quotient is rounded up before."""
    zero, half, one = (tirx.const(value, first.ty) for value in (0, 0.5, 1))
    rest = _fmod(first, second)
    quotient = (first - rest) / second
    quotient = tirx.Select(_opposite(rest, second), quotient - one, quotient)
    floor = tirx.floor(quotient)
    floor = tirx.Select(quotient - floor > half, floor + one, floor)
    return tirx.Select(second == zero, first / second, floor)


@converts("pow.Tensor_Tensor", "pow.Scalar")
def power(call: Call, base, exponent) -> relax.Expr:
    if not is_float(call.dtype):
        raise Unsupported("a power of integers with exponents that are not known")
    return _te_binary(call, tirx.power, base, exponent, "power")


@converts("pow.Tensor_Scalar")
def power_of(call: Call, base, exponent) -> relax.Expr:
    """The powers that PyTorch multiplies or roots instead, else the library's."""
    base = call.cast(base, call.dtype)
    if exponent == 0.5:
        return call.emit(relax.op.sqrt(base))
    if float(exponent).is_integer() and 0 < abs(exponent) <= LARGEST_UNROLLED_POWER:
        return _product(call, base, int(exponent))
    if exponent == 0:
        return call.emit(relax.op.ones_like(base))
    return power(call, base, exponent)


def _product(call: Call, base: relax.Expr, exponent: int) -> relax.Expr:
    """``base`` times itself; for a negative exponent its reciprocal."""
    if exponent < 0 and not is_float(call.dtype):
        raise Unsupported("an integer to a negative power")
    product, square, rest = None, base, abs(exponent)
    while rest:
        if rest & 1:
            product = square if product is None else call.emit(relax.op.multiply(product, square))
        rest >>= 1
        if rest:
            square = call.emit(relax.op.multiply(square, square))
    return product if exponent > 0 else call.emit(relax.op.divide(relax.const(1, call.dtype), product))


def _comparison(operation: Callable) -> Callable:
    def compare(call: Call, first, second) -> relax.Expr:
        if first is second and is_float(str(first.ty.dtype)):  # TVM knows the answer, but for NaN
            number = call.emit(relax.op.logical_not(relax.op.isnan(first)))
            equal = operation in (relax.op.equal, relax.op.less_equal, relax.op.greater_equal)
            never = call.emit(relax.op.logical_and(number, relax.op.logical_not(number)))
            unequal = relax.op.isnan(first) if operation is relax.op.not_equal else never
            return number if equal else call.emit(unequal)
        dtype = call.common_dtype(0, 1)
        return binary(call, operation, first, second, "int8" if dtype == "bool" else dtype)

    return compare


for _name, _operation in {
    "eq": relax.op.equal,
    "ne": relax.op.not_equal,
    "lt": relax.op.less,
    "le": relax.op.less_equal,
    "gt": relax.op.greater,
    "ge": relax.op.greater_equal,
}.items():
    converts(f"{_name}.Tensor", f"{_name}.Scalar")(_comparison(_operation))


def _of_result_dtype(operation: Callable) -> Callable:
    def convert(call: Call, first, second) -> relax.Expr:
        return binary(call, operation, first, second)

    return convert


converts("maximum.default")(_of_result_dtype(relax.op.maximum))
converts("minimum.default")(_of_result_dtype(relax.op.minimum))
converts("atan2.default")(_of_result_dtype(relax.op.atan2))
converts("bitwise_left_shift.Tensor", "__lshift__.Scalar", "__lshift__.Tensor")(_of_result_dtype(relax.op.left_shift))
converts("bitwise_right_shift.Tensor", "__rshift__.Scalar", "__rshift__.Tensor")(_of_result_dtype(relax.op.right_shift))


def _bitwise(logical: Callable, bits: Callable) -> Callable:
    def convert(call: Call, first, second) -> relax.Expr:
        return binary(call, logical if call.dtype == "bool" else bits, first, second)

    return convert


for _name in ("and", "or", "xor"):
    _names = [f"bitwise_{_name}.Tensor", f"bitwise_{_name}.Scalar", f"__{_name}__.Tensor", f"__{_name}__.Scalar"]
    _logical = getattr(relax.op, f"logical_{_name}")
    converts(*_names)(_bitwise(_logical, getattr(relax.op, f"bitwise_{_name}")))
    converts(f"logical_{_name}.default")(_of_result_dtype(_logical))  # of operands that are not zero


@converts("logical_not.default")
def logical_not(call: Call, value) -> relax.Expr:
    return call.emit(relax.op.logical_not(call.cast(value, "bool")))


@converts("bitwise_not.default")
def bitwise_not(call: Call, value) -> relax.Expr:
    return call.emit((relax.op.logical_not if call.dtype == "bool" else relax.op.bitwise_not)(value))


@converts("fmax.default")
def fmax(call: Call, first, second) -> relax.Expr:
    return _number_rather_than_nan(call, relax.op.maximum, first, second)


@converts("fmin.default")
def fmin(call: Call, first, second) -> relax.Expr:
    return _number_rather_than_nan(call, relax.op.minimum, first, second)


def _number_rather_than_nan(call: Call, operation: Callable, first, second) -> relax.Expr:
    first, second = call.cast(first, call.dtype), call.cast(second, call.dtype)
    both = call.emit(operation(first, second))
    if not is_float(call.dtype):
        return both
    known = call.emit(relax.op.where(relax.op.isnan(second), first, both))
    return call.emit(relax.op.where(relax.op.isnan(first), second, known))


@converts("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(call: Call, condition, first, second) -> relax.Expr:
    if call.dtype == "bool":  # TVM selects numbers only
        chosen = (call.cast(call.cast(value, "bool"), "int8") for value in (first, second))
        return call.cast(call.emit(relax.op.where(call.cast(condition, "bool"), *chosen)), "bool")
    chosen = (call.cast(value, call.dtype) for value in (first, second))
    return call.emit(relax.op.where(call.cast(condition, "bool"), *chosen))


@converts("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(call: Call, value, mask, filler) -> relax.Expr:
    return where(call, mask, filler, value)


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


@converts("_to_copy.default")
def to_copy(call: Call, value, dtype, layout, device, pin_memory, non_blocking, memory_format) -> relax.Expr:
    """``memory_format`` and the like say where elements stand, not what they are."""
    del dtype, layout, device, pin_memory, non_blocking, memory_format
    if is_dtype(value, call.dtype):
        return value
    if is_float(str(value.ty.dtype)) and call.dtype.startswith("uint"):
        value = call.cast(value, "int64")  # what is below zero wraps round
    return call.cast(value, call.dtype)


@converts("copy.default")
def copy(call: Call, destination, source, non_blocking) -> relax.Expr:
    """``destination`` says the shape and the dtype alone."""
    del destination, non_blocking
    return call.emit(relax.op.broadcast_to(call.cast(source, call.dtype), call.shape))


@converts("fill.Scalar")
def fill(call: Call, value, filler) -> relax.Expr:
    del value
    return call.emit(relax.op.full(call.shape, relax.const(filler, call.dtype), call.dtype))


@converts("full_like.default")
def full_like(call: Call, value, filler, dtype, layout, device, pin_memory, memory_format) -> relax.Expr:
    del dtype, layout, device, pin_memory, memory_format
    return fill(call, value, filler)


@converts("ones_like.default")
def ones_like(call: Call, value, dtype, layout, device, pin_memory, memory_format) -> relax.Expr:
    return full_like(call, value, 1, dtype, layout, device, pin_memory, memory_format)


@converts("zeros_like.default", "empty_like.default")
def zeros_like(call: Call, value, dtype, layout, device, pin_memory, memory_format) -> relax.Expr:
    return full_like(call, value, 0, dtype, layout, device, pin_memory, memory_format)
