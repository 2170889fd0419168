"""Sums, products, quotients and powers, in PyTorch's dtypes and with its treatment of NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from tvm import relax, te, tirx

from ..bindings import constant
from ..passes.legalize import broadcast, immediate
from .call import Call, Unsupported, converts, is_float

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
