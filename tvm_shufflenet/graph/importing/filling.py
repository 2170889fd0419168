"""Casts, copies and constants of a tensor's shape."""

from __future__ import annotations

from tvm import relax

from .call import Call, converts, is_dtype, is_float


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
