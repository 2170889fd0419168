"""Indexing, gather and scatter. Negative indices count from the end; an index out of range reads at the border."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax, te, tirx

from ..bindings import constant
from ..passes.legalize import broadcast
from .call import Call, Unsupported, converts, integers, shape_of


def indices(call: Call, index: relax.Expr, extent: int) -> relax.Expr:
    """``index`` as int64 numbers from 0 to ``extent - 1``; those below zero count from the end.

    PyTorch raises for one that is outside, which a compiled network cannot: it then reads an element at the border.
    """
    known = constant(index)
    if known is not None:
        known = known.astype("int64")
        if ((known < -extent) | (known >= extent)).any():
            raise Unsupported(f"an index is outside an axis of {extent}")
        return integers(np.where(known < 0, known + extent, known))
    index = call.cast(index, "int64")
    below = call.emit(relax.op.less(index, integers(0)))
    wrapped = call.emit(relax.op.where(below, relax.op.add(index, integers(extent)), index))
    inside = relax.op.minimum(relax.op.maximum(wrapped, integers(0)), integers(extent - 1))
    return call.emit(inside)


@converts("select.int")
def select(call: Call, value, dim, index) -> relax.Expr:
    axis = dim % value.ty.ndim
    return call.emit(relax.op.take(value, integers(index % shape_of(value)[axis]), axis))


@converts("slice.Tensor")
def slice_along(call: Call, value, dim, start, end, step) -> relax.Expr:
    axis = dim % value.ty.ndim
    extent = shape_of(value)[axis]
    begin, stop, _ = slice(start, end, step).indices(extent)
    if (begin, stop, step) == (0, extent, 1):
        return value
    return call.emit(relax.op.strided_slice(value, [axis], [begin], [max(begin, stop)], [step]))


@converts("index_select.default")
def index_select(call: Call, value, dim, index) -> relax.Expr:
    axis = dim % max(value.ty.ndim, 1)
    if value.ty.ndim == 0:
        raise Unsupported("a tensor without axes is indexed")
    chosen = indices(call, index, shape_of(value)[axis])
    return call.emit(relax.op.take(value, call.emit(relax.op.reshape(chosen, [call.shape[axis]])), axis))


@converts("embedding.default")
def embedding(call: Call, weight, index, padding_idx, scale_grad_by_freq, sparse) -> relax.Expr:
    """The other arguments are about gradients."""
    del padding_idx, scale_grad_by_freq, sparse
    return call.emit(relax.op.take(weight, indices(call, index, shape_of(weight)[0]), 0))


@converts("take.default")
def take(call: Call, value, index) -> relax.Expr:
    """Of the elements in order, whatever the shape."""
    count = math.prod(shape_of(value))
    flat = call.emit(relax.op.reshape(value, [count]))
    return call.emit(relax.op.take(flat, indices(call, index, count), 0))


@converts("gather.default")
def gather(call: Call, value, dim, index, sparse_grad) -> relax.Expr:
    del sparse_grad
    if value.ty.ndim == 0:
        raise Unsupported("a tensor without axes is indexed")
    axis = dim % value.ty.ndim
    chosen = indices(call, index, shape_of(value)[axis])

    def compute(data: te.Tensor, places: te.Tensor) -> te.Tensor:
        return te.compute(places.shape, lambda *at: data(*at[:axis], places(*at), *at[axis + 1 :]), name="gather")

    same = [extent for at, extent in enumerate(shape_of(value)) if at != axis]
    if same == [extent for at, extent in enumerate(call.shape) if at != axis]:
        return call.emit(relax.op.gather_elements(value, chosen, axis))
    return call.te(compute, value, chosen, name="gather")


@converts("index.Tensor", "_unsafe_index.Tensor")
def index(call: Call, value, places) -> relax.Expr:
    """NumPy's indexing by several tensors at once: they are broadcast, and stand where the first of them stood, or in
    front where they are not side by side.
    """
    places = _with_masks_as_indices(list(places))
    axes = [axis for axis, place in enumerate(places) if place is not None]
    shape = shape_of(value)
    chosen = [indices(call, places[axis], shape[axis]) for axis in axes]
    if len(axes) == 1 and chosen[0].ty.ndim >= 1:
        return call.emit(relax.op.take(value, chosen[0], axes[0]))
    if not axes:
        return value
    picked = np.broadcast_shapes(*(tuple(shape_of(each)) for each in chosen))
    front = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    result = [shape[axis] for axis in kept]
    result[front:front] = picked

    def compute(data: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        def element(*at):
            inner = at[front : front + len(picked)]
            outer = iter((*at[:front], *at[front + len(picked) :]))
            by_axis = {axis: broadcast(tensor, inner) for axis, tensor in zip(axes, tensors, strict=True)}
            return data(*(by_axis[axis] if axis in by_axis else next(outer) for axis in range(len(shape))))

        return te.compute(result, element, name="index")

    return call.te(compute, value, *chosen, name="index")


def _with_masks_as_indices(places: list) -> list:
    """Masks that are known as the indices of what they keep. Raises Unsupported for others."""
    found = []
    for place in places:
        if place is None or str(place.ty.dtype) != "bool":
            found.append(place)
            continue
        mask = constant(place)
        if mask is None:
            raise Unsupported("it picks elements by a mask that the input decides, so that their number is not known")
        found += [integers(each) for each in np.nonzero(mask)]
    return found


@converts("scatter.src")
def scatter(call: Call, value, dim, index, source) -> relax.Expr:
    return _scattered(call, value, dim, index, source, "update")


def _scattered(call: Call, value, dim, index, source, reduction: str) -> relax.Expr:
    """``source`` may be larger than ``index``, and ``index`` smaller than ``value`` along all axes."""
    axis = dim % value.ty.ndim
    chosen = indices(call, index, shape_of(value)[axis])
    if shape_of(source) != shape_of(index):
        every = list(range(source.ty.ndim))
        source = call.emit(relax.op.strided_slice(source, every, [0] * len(every), shape_of(index), [1] * len(every)))
    same = [extent for at, extent in enumerate(shape_of(value)) if at != axis]
    if same != [extent for at, extent in enumerate(shape_of(index)) if at != axis]:
        places = [None if at == axis else extent for at, extent in enumerate(shape_of(index))]
        grid = [chosen if at == axis else _ramp(extent, at, len(places)) for at, extent in enumerate(places)]
        return index_put(call, value, grid, source, reduction == "add")
    return call.emit(relax.op.scatter_elements(value, chosen, source, axis, reduction))


def _ramp(extent: int, axis: int, rank: int) -> relax.Expr:
    """The places along ``axis`` of ``rank``."""
    return integers(np.arange(extent).reshape([extent if at == axis else 1 for at in range(rank)]))


@converts("scatter.value")
def scatter_value(call: Call, value, dim, index, filler) -> relax.Expr:
    source = call.emit(relax.op.full(shape_of(index), relax.const(filler, call.dtype), call.dtype))
    return scatter(call, value, dim, index, source)


@converts("scatter_add.default")
def scatter_add(call: Call, value, dim, index, source) -> relax.Expr:
    return _scattered(call, value, dim, index, source, "add")


@converts("index_put.default", "_unsafe_index_put.default")
def index_put(call: Call, value, places, values, accumulate) -> relax.Expr:
    """``values`` at the places that ``index`` would pick, or added there."""
    shape = shape_of(value)
    places = _with_masks_as_indices(list(places))
    places += [None] * (len(shape) - len(places))
    axes = [axis for axis, place in enumerate(places) if place is not None]
    chosen = {axis: indices(call, places[axis], shape[axis]) for axis in axes}
    picked = np.broadcast_shapes(*(tuple(shape_of(each)) for each in chosen.values()))
    front = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    whole = [shape[axis] for axis in kept]
    whole[front:front] = picked
    spread = {axis: at + (len(picked) if at >= front else 0) for at, axis in enumerate(kept)}
    flat = None
    for axis, extent in enumerate(shape):
        step = math.prod(shape[axis + 1 :])
        if axis in chosen:
            inner = [*(1,) * (len(picked) - chosen[axis].ty.ndim), *shape_of(chosen[axis])]
            placed = [*(1,) * front, *inner, *(1,) * (len(whole) - front - len(picked))]
            part = call.emit(relax.op.multiply(relax.op.reshape(chosen[axis], placed), integers(step)))
        else:
            placed = [extent if at == spread[axis] else 1 for at in range(len(whole))]
            part = integers((np.arange(extent) * step).reshape(placed))
        flat = part if flat is None else call.emit(relax.op.add(flat, part))
    count = math.prod(whole)
    flat = call.emit(relax.op.reshape(relax.op.broadcast_to(flat, whole), [count]))
    values = call.emit(relax.op.broadcast_to(call.cast(values, call.dtype), whole))
    updates, target = (
        relax.op.reshape(each, [extent]) for each, extent in ((values, count), (value, math.prod(shape)))
    )
    put = relax.op.scatter_elements(target, flat, updates, 0, "add" if accumulate else "update")
    return call.emit(relax.op.reshape(call.emit(put), shape))


@converts("slice_scatter.default")
def slice_scatter(call: Call, value, source, dim, start, end, step) -> relax.Expr:
    """``value`` with ``source`` at every ``step``-th place from ``start`` on."""
    axis = dim % value.ty.ndim
    begin, stop, _ = slice(start, end, step).indices(shape_of(value)[axis])
    count = len(range(begin, stop, step))
    return _placed(call, value, source, axis, begin, step, count) if count else value


@converts("select_scatter.default")
def select_scatter(call: Call, value, source, dim, index) -> relax.Expr:
    axis = dim % value.ty.ndim
    source = call.emit(relax.op.expand_dims(source, axis))
    return _placed(call, value, source, axis, index % shape_of(value)[axis], 1, 1)


def _placed(call: Call, value, source, axis: int, begin: int, step: int, count: int) -> relax.Expr:
    def compute(data: te.Tensor, other: te.Tensor) -> te.Tensor:
        def element(*at):
            offset = at[axis] - begin
            last = begin + (count - 1) * step
            hit = tirx.all(at[axis] >= begin, at[axis] <= last, tirx.floormod(offset, step) == 0)
            place = tirx.max(tirx.min(tirx.floordiv(offset, step), count - 1), 0)
            return tirx.if_then_else(hit, other(*at[:axis], place, *at[axis + 1 :]), data(*at))

        return te.compute(data.shape, element, name="slice_scatter")

    return call.te(compute, value, call.cast(source, call.dtype), name="slice_scatter")


def item(value: relax.Expr | list[relax.Expr], place: int) -> relax.Expr:
    """One of several results. Raises Unsupported where the converter gave the first alone."""
    if isinstance(value, list | tuple):
        return value[place]
    if isinstance(value.ty, relax.TupleType):
        return relax.TupleGetItem(value, place)
    if place != 0:
        raise Unsupported(f"its result {place} is read, only the first is computed")
    return value
