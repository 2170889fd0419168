"""Operations that only rename planes: splits and slices of channels, and ReLUs of non-negative values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ..bindings import Bindings, operator, shape_of
from ..views import View
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser


def find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Match:
    call = bindings.values[var]
    handler = _HANDLERS[operator(call)]
    return Match(var, (var,), lambda fuser: handler(fuser, var, call))


def _relu(fuser: Fuser, _var: relax.Var, call: relax.Call) -> View | None:
    view = fuser.view(call.args[0])
    if view is None or not view.non_negative:
        return None
    fuser.read(call.args[0])
    return view


def _split(fuser: Fuser, _var: relax.Var, call: relax.Call) -> tuple[View, ...] | None:
    view = fuser.view(call.args[0])
    if view is None or int(call.attrs.axis) != 1:
        return None
    sections, channels = call.attrs.indices_or_sections, len(view.planes)
    if hasattr(sections, "value"):  # a number of equal parts, the last one smaller
        size = -(-channels // int(sections))
        starts = list(range(0, channels, size))
    else:
        starts = [0, *(int(index) for index in sections)]
    fuser.read(call.args[0])
    bounds = zip(starts, [*starts[1:], channels], strict=True)
    return tuple(view.take(range(start, stop)) for start, stop in bounds)


def _strided_slice(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | None:
    view, axes = fuser.view(call.args[0]), [int(axis) for axis in call.args[1].fields]
    if view is None or axes != [1]:
        return None
    begin, end, *strides = (int(arg.fields[0]) for arg in call.args[2:])
    chosen = range(len(view.planes))[slice(begin, end, *strides)]
    if len(chosen) != shape_of(var)[1]:
        return None
    fuser.read(call.args[0])
    return view.take(chosen)


_HANDLERS = {"relax.nn.relu": _relu, "relax.split": _split, "relax.strided_slice": _strided_slice}
STARTS = tuple(_HANDLERS)
