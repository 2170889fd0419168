"""PrimFuncs for operators that TVM legalizes with other results than PyTorch's, and for one it cannot schedule.

TVM's maxima begin at the lowest finite number, where minus infinity is lower; its simplifier takes comparisons of
floats for those of integers, of which one or the other is always true. That maxima and minima keep NaN is seen to when
they are lowered (``library.keep_nan``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tvm
from tvm import relax, te, tirx, topi
from tvm.relax import transform

from ...precision import FLOAT32
from ..bindings import constant

FEW = 256  # numbers, whose sum in float32 is off by a few dozen roundings at most


def legalize() -> tvm.transform.Pass:
    """``LegalizeOps`` with the operators of this module as they are here."""
    return transform.LegalizeOps(dict(_OURS))


def _float(call: relax.Call) -> bool:
    return "float" in str(call.args[0].ty.dtype)


def _elementwise(function: Callable, data: te.Tensor, name: str) -> te.Tensor:
    return te.compute(data.shape, lambda *at: function(data(*at)), name=name, tag=topi.tag.ELEMWISE)


def _clip(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """The upper bound wins where the two cross."""
    lower, upper = (float(bound.value) for bound in call.args[1:])

    def clipped(value):
        if lower > -math.inf:
            value = tirx.max(value, tirx.const(lower, value.ty))
        return tirx.min(value, tirx.const(upper, value.ty)) if upper < math.inf else value

    def compute(data):
        return _elementwise(clipped, data, "clip")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="clip")


def _unequal(first, second):
    """NaN is unequal to everything: TVM compares with "ordered and unequal"."""
    return tirx.any(tirx.isnan(first), tirx.isnan(second), first != second)


def _logical_not(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Of a number that is zero: TVM makes ``a >= b`` of ``not a < b``."""

    def compute(data):
        zero = tirx.const(0, "int8")
        return _elementwise(lambda value: tirx.Cast("int8", value) == zero, data, "logical_not")

    return builder.call_te(compute, call.args[0], primfunc_name_hint="logical_not")


def _scatter_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """TVM's, and a copy of it: a function of that one block has no root block, which schedules ask for."""

    def compute(data, indices, updates):
        return topi.identity(topi.scatter_elements(data, indices, updates, call.attrs.axis, call.attrs.reduction))

    return builder.call_te(compute, *call.args, primfunc_name_hint="scatter_elements")


def _not_equal(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def compute(first, second):
        shape = [tirx.IntImm("int64", int(dim)) for dim in call.ty.shape]

        def element(*at):
            return _unequal(broadcast(first, at), broadcast(second, at))

        return te.compute(shape, element, name="not_equal", tag=topi.tag.BROADCAST)

    return builder.call_te(compute, *map(immediate, call.args), primfunc_name_hint="not_equal")


def immediate(expr: relax.Expr) -> relax.Expr | tirx.Expr:
    """A constant of one number as that number, so that it stands in the code; else ``expr``."""
    value = constant(expr)
    return expr if value is None or value.ndim else tirx.const(value.item(), str(expr.ty.dtype))


def broadcast(tensor: te.Tensor | tirx.Expr, place: tuple) -> tirx.Expr:
    """The element that stands at ``place`` of the broadcast tensor; a number is everywhere the same."""
    if not isinstance(tensor, te.Tensor):
        return tensor
    own = place[len(place) - len(tensor.shape) :]
    return tensor(*(0 if int(extent) == 1 else each for each, extent in zip(own, tensor.shape, strict=True)))


MAXIMUM = te.comm_reducer(lambda a, b: tirx.max(a, b), lambda dtype: tirx.const(-math.inf, dtype), name="maximum")
MINIMUM = te.comm_reducer(lambda a, b: tirx.min(a, b), lambda dtype: tirx.const(math.inf, dtype), name="minimum")


def _reduction(reducer: Callable, name: str) -> Callable:
    def convert(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        def compute(data):
            return _reduced(data, call, reducer, name)

        return builder.call_te(compute, call.args[0], primfunc_name_hint=name)

    return convert


def _axes(call: relax.Call) -> list[int]:
    """The axes that a reduction runs along, in order."""
    rank = call.args[0].ty.ndim
    return sorted(range(rank) if call.attrs.axis is None else {int(axis) % rank for axis in call.attrs.axis})


def _reduced(data: te.Tensor, call: relax.Call, reducer: Callable, name: str) -> te.Tensor:
    rank = len(data.shape)
    along = {axis: te.reduce_axis((0, data.shape[axis]), name=f"k{axis}") for axis in _axes(call)}
    kept = [axis for axis in range(rank) if axis not in along]
    named = range(rank) if call.attrs.keepdims else kept
    shape = [data.shape[axis] if axis in kept else 1 for axis in named]

    def element(*at):
        places = dict(zip(named, at, strict=True)) | along
        return reducer(data(*(places[axis] for axis in range(rank))), axis=list(along.values()))

    return te.compute(shape, element, name=name, tag=topi.tag.COMM_REDUCE)


def _count(call: relax.Call) -> int:
    """How many numbers make one of a reduction's results."""
    return math.prod(int(call.args[0].ty.shape[axis]) for axis in _axes(call))


def _many(call: relax.Call) -> bool:
    return _count(call) > FEW and str(call.args[0].ty.dtype) == FLOAT32.data


def _sum(mean: bool) -> Callable:
    """In float64: one number after the other in float32 would be further off than PyTorch's cascade of sums."""

    def convert(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        def compute(data):
            total = _reduced(data, call, lambda value, axis: te.sum(tirx.Cast("float64", value), axis), "total")
            divisor = tirx.const(_count(call) if mean else 1, "float64")
            return _elementwise(lambda value: tirx.Cast(FLOAT32.data, value / divisor), total, "rounded")

        return builder.call_te(compute, call.args[0], primfunc_name_hint="mean" if mean else "sum")

    return convert


def _max_pool(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Of any number of axes behind batch and channels."""
    attrs, results = call.attrs, [int(dim) for dim in call.ty.shape]
    spatial = len(results) - 2
    kernel, stride, dilation = (_integers(each) for each in (attrs.pool_size, attrs.strides, attrs.dilation))
    before = _integers(attrs.padding)[:spatial]
    covered = [
        (result - 1) * step + (size - 1) * hole + 1
        for result, step, size, hole in zip(results[2:], stride, kernel, dilation, strict=True)
    ]

    def compute(data):
        source = _framed(data, before, covered)
        windows = [te.reduce_axis((0, size), name=f"r{axis}") for axis, size in enumerate(kernel)]

        def element(n, c, *at):
            steps = zip(at, stride, windows, dilation, strict=True)
            return MAXIMUM(source(n, c, *(place * step + w * hole for place, step, w, hole in steps)), axis=windows)

        return te.compute(results, element, name="max_pool", tag="pool_max")

    return builder.call_te(compute, call.args[0], primfunc_name_hint=f"max_pool{spatial}d")


def _framed(data: te.Tensor, before: list[int], extents: list[int]) -> te.Tensor:
    """(N, C, *extents): ``data`` from ``before`` places in front of it on, minus infinity around it."""
    inner = [int(extent) for extent in data.shape[2:]]

    def element(n, c, *at):
        places = [place - pad for place, pad in zip(at, before, strict=True)]
        inside = [tirx.all(place >= 0, place < extent) for place, extent in zip(places, inner, strict=True)]
        return tirx.if_then_else(tirx.all(*inside), data(n, c, *places), tirx.const(-math.inf, data.dtype))

    return te.compute([*data.shape[:2], *extents], element, name="framed")


def _integers(values) -> list[int]:
    return [int(value) for value in values]


def _where(applies: Callable[[relax.Call], bool], name: str, convert: Callable) -> Callable:
    """``convert`` where that ``applies``; TVM's own form of the operator elsewhere."""
    theirs = tvm.ir.Op.get(name).get_attr("FLegalize")

    def legalized(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return (convert if applies(call) else theirs)(builder, call)

    return legalized


_OURS = {
    "relax.logical_not": _logical_not,
    "relax.scatter_elements": _scatter_elements,
    "relax.sum": _where(_many, "relax.sum", _sum(mean=False)),
    "relax.mean": _where(_many, "relax.mean", _sum(mean=True)),
} | {
    name: _where(_float, name, convert)
    for name, convert in {
        "relax.clip": _clip,
        "relax.not_equal": _not_equal,
        "relax.max": _reduction(MAXIMUM, "max"),
        "relax.min": _reduction(MINIMUM, "min"),
        "relax.nn.max_pool1d": _max_pool,
        "relax.nn.max_pool2d": _max_pool,
        "relax.nn.max_pool3d": _max_pool,
    }.items()
}
