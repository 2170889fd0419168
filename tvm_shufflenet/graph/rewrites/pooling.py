"""Maximum and mean of a sliding window; a ReLU after a concatenation is taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.pooling import Pooling
from ..bindings import operator
from ..values import Pending, Place, fresh
from ..views import View
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def _write(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | Pending | None:
    attrs, view = call.attrs, fuser.view(call.args[0])
    plain = attrs.layout == attrs.out_layout == "NCHW" and all(int(d) == 1 for d in attrs.dilation)
    if view is None or not plain:
        return None
    if _is_identity(attrs):
        fuser.read(call.args[0])
        return view  # as a copy it would be one that TVM takes for a view
    channels = len(view.planes)
    if fuser.is_concatenated(var):
        return Pending(channels, lambda place: _pooling(fuser, call, place))
    return _pooling(fuser, call, fresh(channels))


def _is_identity(pooling) -> bool:
    steps = {int(extent) for extent in (*pooling.pool_size, *pooling.strides)}
    return steps == {1} and not any(int(pixels) for pixels in pooling.padding)


def _pooling(fuser: Fuser, call: relax.Call, place: Place) -> View:
    """Plane by plane, as they lie: where they are not in order, neither is the result."""
    data, _ = fuser.in_order(call.args[0])
    attrs, average = call.attrs, operator(call) == "relax.nn.avg_pool2d"
    relu = place.relu and not data.non_negative
    kernel = Pooling(
        *data.shape,
        "average" if average else "max",
        tuple(int(k) for k in attrs.pool_size),
        tuple(int(s) for s in attrs.strides),
        tuple(int(p) for p in attrs.padding),
        bool(attrs.count_include_pad),
        bool(attrs.ceil_mode),
        relu,
        place.window,
        data.non_negative,
    )
    written = fuser.emit_planes("pooling", kernel, data, [], place, relu or data.non_negative)
    return written.take(data.planes)


REWRITES = (Rewrite(("relax.nn.max_pool2d", "relax.nn.avg_pool2d"), _write),)
