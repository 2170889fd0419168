"""Operators that reorder, reshape or slice without computing."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax, te

from .call import Call, Converted, Unsupported, axes_of, converts, integers, shape_of


@converts("view.default", "_unsafe_view.default", "reshape.default")
def view(call: Call, value, size) -> relax.Expr:
    del size  # the result's shape
    return value if shape_of(value) == call.shape else call.emit(relax.op.reshape(value, call.shape))


@converts("as_strided.default")
def as_strided(call: Call, value, size, strides, offset) -> relax.Expr:
    """The same elements in the same order, but for axes of extent 1. So torch decomposes the global pooling of a tensor
    whose channels lie last. Raises Unsupported for any other view of the memory."""
    source = call.source(0)

    def steps(extents, strides) -> list[tuple[int, int]]:
        return [(extent, stride) for extent, stride in zip(extents, strides, strict=True) if extent != 1]

    moved = offset is not None and offset != source.storage_offset()
    if moved or steps(size, strides) != steps(source.shape, source.stride()):
        raise Unsupported("a view of another tensor's memory")
    return view(call, value, size)


@converts("squeeze.default")
def squeeze(call: Call, value) -> relax.Expr:
    return squeeze_dims(call, value, range(value.ty.ndim))


@converts("squeeze.dim", "squeeze.dims")
def squeeze_dims(call: Call, value, dims) -> relax.Expr:
    """Axes of more than one element stay."""
    shape = shape_of(value)
    dims = [dims] if isinstance(dims, int) else dims
    axes = sorted({dim % len(shape) for dim in dims if shape[dim] == 1}) if shape else []
    return call.emit(relax.op.squeeze(value, axes)) if axes else value


@converts("expand.default")
def expand(call: Call, value, size, implicit) -> relax.Expr:
    del size, implicit
    return value if shape_of(value) == call.shape else call.emit(relax.op.broadcast_to(value, call.shape))


@converts("repeat.default")
def repeat(call: Call, value, repeats) -> relax.Expr:
    return call.emit(relax.op.tile(value, list(repeats)))


@converts("permute.default")
def permute(call: Call, value, dims) -> relax.Expr:
    return call.emit(relax.op.permute_dims(value, axes_of(dims, value.ty.ndim)))


@converts("cat.default")
def cat(call: Call, parts, dim) -> relax.Expr:
    """Parts of other dtypes are cast; those without elements add nothing."""
    axis = dim % len(call.shape)
    whole = [call.cast(part, call.dtype) for part in parts if math.prod(shape_of(part))]
    if not whole:
        return call.emit(relax.op.zeros(call.shape, call.dtype))
    return whole[0] if len(whole) == 1 else call.emit(relax.op.concat(whole, axis))


@converts("stack.default")
def stack(call: Call, parts, dim) -> relax.Expr:
    axis = dim % len(call.shape)
    return call.emit(relax.op.concat([call.emit(relax.op.expand_dims(part, axis)) for part in parts], axis))


@converts("split_with_sizes.default")
def split_with_sizes(call: Call, value, sizes, dim) -> Converted:
    axis = dim % value.ty.ndim
    filled = [size for size in sizes if size]
    if len(filled) > 1:
        parts = call.emit(relax.op.split(value, [int(cut) for cut in np.cumsum(filled)[:-1]], axis))
        whole = iter([call.emit(relax.TupleGetItem(parts, at)) for at in range(len(filled))])
    else:
        whole = iter([value])
    empty = [*shape_of(value)[:axis], 0, *shape_of(value)[axis + 1 :]]
    return [next(whole) if size else call.emit(relax.op.zeros(empty, call.dtype)) for size in sizes]


@converts("split.Tensor")
def split(call: Call, value, size, dim) -> Converted:
    extent = shape_of(value)[dim]
    if size <= 0:
        return [value]
    return split_with_sizes(call, value, [min(size, extent - at) for at in range(0, max(extent, 1), size)], dim)


@converts("unbind.int")
def unbind(call: Call, value, dim) -> Converted:
    axis = dim % value.ty.ndim
    return [call.emit(relax.op.take(value, integers(at), axis)) for at in range(shape_of(value)[axis])]


@converts("diagonal.default")
def diagonal(call: Call, value, offset, first, second) -> relax.Expr:
    rank = value.ty.ndim
    first, second = first % rank, second % rank
    down, right = max(-offset, 0), max(offset, 0)

    def compute(data: te.Tensor) -> te.Tensor:
        def element(*at):
            others = iter(at[:-1])
            place = {first: at[-1] + down, second: at[-1] + right}
            return data(*(place[axis] if axis in place else next(others) for axis in range(rank)))

        return te.compute(call.shape, element, name="diagonal")

    return call.te(compute, value, name="diagonal")


@converts("tril.default")
def tril(call: Call, value, diagonal_) -> relax.Expr:
    return call.emit(relax.op.tril(value, diagonal_))


@converts("triu.default")
def triu(call: Call, value, diagonal_) -> relax.Expr:
    return call.emit(relax.op.triu(value, diagonal_))


@converts("flip.default")
def flip(call: Call, value, dims) -> relax.Expr:
    for axis in axes_of(dims, value.ty.ndim) if dims else []:
        value = call.emit(relax.op.flip(value, axis))
    return value


@converts("unfold.default")
def unfold(call: Call, value, dim, size, step) -> relax.Expr:
    """Windows of ``size`` elements along ``dim``, the elements of each along a last axis."""
    if value.ty.ndim == 0:
        raise Unsupported("a tensor without axes is unfolded")
    axis = dim % value.ty.ndim

    def compute(data: te.Tensor) -> te.Tensor:
        return te.compute(
            call.shape, lambda *at: data(*at[:axis], at[axis] * step + at[-1], *at[axis + 1 : -1]), name="unfold"
        )

    del size
    return call.te(compute, value, name="unfold")


@converts("alias.default", "detach.default", "lift_fresh_copy.default", "contiguous.default")
def same(call: Call, value, *rest) -> relax.Expr:
    del call, rest
    return value


@converts("clone.default")
def clone(call: Call, value, memory_format) -> relax.Expr:
    del call, memory_format
    return value
