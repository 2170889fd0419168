"""Helpers for building the operators' PrimFuncs."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

INDEX = "int32"  # tables of planes


def prim_func(body: Callable[[], None]) -> tirx.PrimFunc:
    """The function ``main`` whose parameters and blocks ``body`` emits, in order."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        body()
    return builder.get().with_attr("global_symbol", "main")


def parameter(name: str, shape: tuple[int, ...], dtype: str):
    """Declare the next parameter of the function that is being built; returns its buffer."""
    return T.arg(name, T.buffer(shape, dtype))


def cast(value: tirx.PrimExpr, dtype: str) -> tirx.PrimExpr:
    """``value`` as a number of ``dtype``, which it may be already."""
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)


def rectified(value: tirx.PrimExpr, relu: bool) -> tirx.PrimExpr:
    """``value``, after a ReLU if there is one. NaN stays NaN in this order: TVM compiles max(a, b) to a > b ? a : b."""
    return tirx.max(tirx.const(0, value.ty.dtype), value) if relu else value
