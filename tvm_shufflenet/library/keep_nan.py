"""Keeps NaN through maxima and minima, as PyTorch does.

TVM compiles max(a, b) to "a > b ? a : b", which is b where a is NaN. So a constant goes to the front, which costs
nothing, and where neither is one the first operand is asked. Templates have done so themselves (operators/pooling.py).
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Op


@tirx.transform.prim_func_pass(opt_level=0, name="KeepNaN")
class KeepNaN:
    """Rewrites every maximum and minimum of floats of a lowered function."""

    def transform_function(self, function: tirx.PrimFunc, _mod, _context) -> tirx.PrimFunc:
        rules = ((tirx.Select, _chosen), (tirx.Max, _extreme), (tirx.Min, _extreme))
        return function.with_body(tvm_ffi.structural_mutate(function.body, rules))


def _chosen(select: tirx.Select, mutator):
    """A choice by "is it NaN" keeps one already."""
    return select if _asks_for_nan(select.condition) else mutator.default_mutate(select)


def _asks_for_nan(condition) -> bool:
    return isinstance(condition, Call) and condition.op == Op.get("tirx.isnan")


def _extreme(each, mutator):
    each = mutator.default_mutate(each)
    if not str(each.ty).startswith("float"):
        return each
    if _is_constant(each.a):
        return each
    if _is_constant(each.b):
        return type(each)(each.b, each.a)
    return tirx.Select(tirx.isnan(each.a), each.a, each)


def _is_constant(value) -> bool:
    return isinstance(value, tirx.FloatImm) or (isinstance(value, tirx.Broadcast) and _is_constant(value.value))
