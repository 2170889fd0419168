"""Resizing of images: every mode of ``torch.nn.functional.interpolate``, by PyTorch's own weights.

A resize works on one axis after the other, and along an axis every result is a weighted sum of a few elements. Which,
and by what weights, PyTorch itself is asked: it resizes the columns of a unit matrix. So sizes and scale factors,
corners, antialiasing and rounding are what PyTorch makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tvm import relax, te

from .call import Call, converts, shape_of


@dataclass(frozen=True)
class Taps:
    """Along one axis of ``extent``: the elements that each result is made of, (results, taps) int64, and their weights,
    float32.
    """

    extent: int
    places: np.ndarray
    weights: np.ndarray

    @property
    def copies(self) -> bool:
        """Whether every result is one element as it is."""
        return self.places.shape[1] == 1 and bool((self.weights == 1).all())

    @property
    def repeats(self) -> int | None:
        """How often every element is repeated, where that is all; else None."""
        results = len(self.places)
        if not self.copies or results % self.extent:
            return None
        factor = results // self.extent
        return factor if (self.places[:, 0] == np.arange(results) // factor).all() else None


def taps(resize: Callable[[torch.Tensor], torch.Tensor], extent: int) -> Taps:
    """Of a ``resize`` of (1, extent, extent) that works along the last axis.

    NaN tells which elements are read, those of weight zero included.
    """

    def response(value: float) -> np.ndarray:
        """(results, extent): every result where one element is ``value`` and the others are zero."""
        given = torch.zeros(1, extent, extent)
        given.diagonal(dim1=1, dim2=2).fill_(value)
        return resize(given)[0].numpy().T

    weights, read = response(1.0), np.isnan(response(float("nan")))
    count = max(1, int(read.sum(axis=1).max()))
    rows = [_row(weights[at], np.flatnonzero(read[at]), count) for at in range(len(weights))]
    places, shares = (np.array(each) for each in zip(*rows, strict=True))
    return Taps(extent, places.astype("int64"), shares.astype("float32"))


def _row(weights: np.ndarray, read: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """``count`` places and shares of one result. What fills up is the last place again, each time with half of its
    share: that changes no value, not even an infinite one.
    """
    places, shares = [int(place) for place in read], [float(weights[place]) for place in read]
    while len(places) < count:
        shares[-1] /= 2
        places.append(places[-1])
        shares.append(shares[-1])
    return places, shares


def _resized(call: Call, value: relax.Expr, along: dict[int, Taps]) -> relax.Expr:
    """``value`` resized along some axes, the one that leaves fewest elements first."""
    shape = shape_of(value)
    for axis, each in sorted(along.items(), key=lambda item: len(item[1].places) / shape[item[0]]):
        if each.repeats != 1:
            value = _along(call, value, axis, each)
    return value


def _along(call: Call, value: relax.Expr, axis: int, each: Taps) -> relax.Expr:
    if each.copies:
        return call.emit(relax.op.take(value, relax.const(each.places[:, 0], "int64"), axis))
    shape = shape_of(value)
    shape[axis] = len(each.places)
    count = each.places.shape[1]

    def compute(data: te.Tensor, places: te.Tensor, weights: te.Tensor) -> te.Tensor:
        def element(*at):
            terms = [
                data(*at[:axis], places(at[axis], k), *at[axis + 1 :]) * weights(at[axis], k) for k in range(count)
            ]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return total

        return te.compute(shape, element, name="resize")

    return call.te(compute, value, relax.const(each.places), relax.const(each.weights), name="resize")


def _interpolation(
    operator: Callable, call: Call, value: relax.Expr, corners: bool | None, scales: Sequence
) -> relax.Expr:
    """Resize by one of PyTorch's operators; ``scales`` are those that were given, one an axis, or None."""
    spatial = len(scales)
    shape = shape_of(value)
    first = len(shape) - spatial
    along = {}
    for axis in range(spatial):
        resize = _one_axis(operator, spatial, call.shape[first + axis], corners, scales[axis])
        along[first + axis] = taps(resize, shape[first + axis])
    plain = [each.repeats for each in along.values()]
    if spatial == 2 and len(shape) == 4 and all(plain) and max(plain) > 1:
        return call.emit(  # whole factors: TVM's own operator, which has schedules
            relax.op.image.resize2d(
                value,
                call.shape[2:],
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
        )
    return _resized(call, value, along)


def _one_axis(operator, spatial: int, size: int, corners: bool | None, scale: float | None) -> Callable:
    """``operator`` along the last axis of a (1, rows, extent); its other axes have one element.

    All axes are resized alike, so the last one stands for each: torch's antialiasing along the others goes wrong where
    the last has one element.
    """

    def resize(data: torch.Tensor) -> torch.Tensor:
        rows, extent = data.shape[1:]
        others = [1] * (spatial - 1)
        given = [] if corners is None else [corners]
        scales = [*(None for _ in others), scale]
        return operator(data.reshape(1, rows, *others, extent), [*others, size], *given, *scales).reshape(1, rows, size)

    return resize


def _register() -> None:
    aten = torch.ops.aten
    plain = {
        "upsample_nearest1d": 1, "upsample_nearest2d": 2, "upsample_nearest3d": 3,
        "_upsample_nearest_exact1d": 1, "_upsample_nearest_exact2d": 2, "_upsample_nearest_exact3d": 3,
    }  # fmt: skip
    cornered = {
        "upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_trilinear3d": 3, "upsample_bicubic2d": 2,
        "_upsample_bilinear2d_aa": 2, "_upsample_bicubic2d_aa": 2,
    }  # fmt: skip
    for name in plain | cornered:
        operator, has_corners = getattr(aten, name).default, name in cornered
        converts(f"{name}.default")(_with_sizes(operator, has_corners))
        converts(f"{name}.vec")(_with_sizes_or_factors(operator, has_corners))


def _with_sizes(operator, has_corners: bool) -> Callable:
    def convert(call: Call, value, size, *rest) -> relax.Expr:
        del size  # the result's
        corners, scales = (rest[0], rest[1:]) if has_corners else (None, rest)
        return _interpolation(operator, call, value, corners, scales)

    return convert


def _with_sizes_or_factors(operator, has_corners: bool) -> Callable:
    def convert(call: Call, value, size, *rest) -> relax.Expr:
        corners, factors = rest if has_corners else (None, rest[0])
        spatial = len(size or factors)
        return _interpolation(operator, call, value, corners, factors or [None] * spatial)

    return convert


_register()


@converts("grid_sampler_2d.default")
def grid_sample(call: Call, value, grid, mode, padding, align_corners) -> relax.Expr:
    """TVM wants the grid's coordinates on axis 1."""
    places = call.emit(relax.op.permute_dims(grid, [0, 3, 1, 2]))
    return call.emit(
        relax.op.image.grid_sample(
            value,
            places,
            method=("bilinear", "nearest", "bicubic")[mode],
            layout="NCHW",
            padding_mode=("zeros", "border", "reflection")[padding],
            align_corners=align_corners,
        )
    )
