"""What only chooses planes: splits, slices along channels, shuffles, and a ReLU of what is not negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import relax

from ..bindings import Bindings, shape_of
from ..chains import shuffle_groups_of
from ..views import View, shuffled
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


@dataclass(frozen=True)
class Shuffle:
    """A channel shuffle of ``source``; it costs nothing."""

    source: relax.Var
    groups: int
    bound: list[relax.Var]

    @property
    def last(self) -> relax.Var:
        return self.bound[-1]


def _find_shuffle(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Shuffle | None:
    found = shuffle_groups_of(bindings, var)
    return None if found is None else Shuffle(bindings.values[var].args[0], *found)


def _shuffle(fuser: Fuser, _var: relax.Var, shuffle: Shuffle) -> View:
    view = fuser.view(shuffle.source)
    fuser.read(shuffle.source)
    return view.take(shuffled(len(view.planes), shuffle.groups))


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


REWRITES = (
    Rewrite(("relax.reshape",), _shuffle, _find_shuffle),
    Rewrite(("relax.nn.relu",), _relu),
    Rewrite(("relax.split",), _split),
    Rewrite(("relax.strided_slice",), _strided_slice),
)
