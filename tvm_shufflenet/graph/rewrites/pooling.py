"""Maximum and mean pooling, except where it is the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.pooling import Pooling
from ..bindings import Bindings, operator
from ..values import Pending, Place, fresh
from ..views import View
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

AVERAGE = "relax.nn.avg_pool2d"
STARTS = ("relax.nn.max_pool2d", AVERAGE)


def find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Match | None:
    call = bindings.values[var]
    attrs = call.attrs
    plain = attrs.layout == attrs.out_layout == "NCHW" and all(int(d) == 1 for d in attrs.dilation)
    return Match(var, (var,), lambda fuser: _emit(fuser, var, call)) if plain else None


def _emit(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | Pending | None:
    view = fuser.view(call.args[0])
    if view is None:
        return None
    if _is_identity(call.attrs):
        fuser.read(call.args[0])
        return view  # as a copy it would be one that TVM takes for a view
    channels = len(view.planes)
    if fuser.concatenated(var):
        return Pending(channels, lambda place: _write(fuser, call, place))
    return _write(fuser, call, fresh(channels))


def _is_identity(pooling) -> bool:
    steps = {int(extent) for extent in (*pooling.pool_size, *pooling.strides)}
    return steps == {1} and not any(int(pixels) for pixels in pooling.padding)


def _write(fuser: Fuser, call: relax.Call, place: Place) -> View:
    """Plane by plane, as they lie: where they are not in order, neither is the result."""
    data, _ = fuser.in_order(call.args[0])
    attrs = call.attrs
    relu = place.relu and not data.non_negative
    kernel = fuser.laid_out(
        Pooling(
            *data.shape,
            "average" if operator(call) == AVERAGE else "max",
            tuple(int(k) for k in attrs.pool_size),
            tuple(int(s) for s in attrs.strides),
            tuple(int(p) for p in attrs.padding),
            bool(attrs.count_include_pad),
            bool(attrs.ceil_mode),
            relu,
            place.window,
            data.non_negative,
            precision=data.storage.precision,
        )
    )
    return fuser.emit(kernel, data, [], place, relu or data.non_negative).take(data.planes)
