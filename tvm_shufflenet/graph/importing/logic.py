"""Comparisons, logic and choices by them, with PyTorch's treatment of NaN."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from .arithmetic import binary
from .call import Call, converts, is_float


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
