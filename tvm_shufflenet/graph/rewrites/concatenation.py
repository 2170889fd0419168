"""Concatenations of channels: each part is written directly to its place, unless it is there already."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from tvm import relax

from ..bindings import Bindings, constant, operands, operator
from ..passes.fold_empty import is_empty
from ..values import Pending, Place, lies_in, part
from ..views import Storage, View, view_of
from .copy import copied
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.concat",)


def find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Match:
    call = bindings.values[var]
    return Match(var, (var,), lambda fuser: _emit(fuser, var, call))


def _emit(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | None:
    """Views of one tensor stay where they are; what is still to be computed is computed into its place."""
    if int(call.attrs.axis) != 1 or not isinstance(call.args[0], relax.Tuple):
        return None
    fields = [field for field in call.args[0].fields if not is_empty(field)]
    parts = [fuser.value_of(field) for field in fields]
    if not parts or not all(isinstance(each, (View, Pending)) for each in parts):
        return None
    relu = _only_a_relu_reads(fuser, var) and all(isinstance(each, Pending) or each.non_negative for each in parts)
    host, own_first = _host(fuser, parts), sorted(range(len(parts)), key=lambda index: _is_constant(parts[index]))
    if host is None and _is_constant(parts[own_first[0]]):
        return None
    placed = _place_in(fuser, parts, *host, relu) if host else _place_afresh(fuser, parts, own_first, relu)
    fuser.read(*operands(call))
    planes = tuple(plane for view in placed for plane in view.planes)
    return view_of(placed[0].storage, planes, all(view.non_negative for view in placed))


def _only_a_relu_reads(fuser: Fuser, var: relax.Var) -> bool:
    reader = fuser.bindings.sole_reader(var)
    return reader is not None and operator(fuser.bindings.values[reader]) == "relax.nn.relu"


def _channels(each: View | Pending) -> int:
    return len(each.planes) if isinstance(each, View) else each.channels


def _host(fuser: Fuser, parts: list[View | Pending]) -> tuple[Storage, list[int]] | None:
    """The tensor that holds some of the parts already and has room for the others, and its planes that are free."""
    for storage in [each.storage for each in parts if isinstance(each, View)]:
        held = [each.planes for each in parts if lies_in(each, storage)]
        taken = fuser.live(storage).union(*held)
        spare = [plane for plane in range(storage.planes) if plane not in taken]
        if sum(_channels(each) for each in parts if not lies_in(each, storage)) <= len(spare):
            return storage, spare
    return None


def _place_in(fuser: Fuser, parts: list[View | Pending], host: Storage, spare: list[int], relu: bool) -> list[View]:
    placed = []
    for each in parts:
        if lies_in(each, host):
            placed.append(each)
            continue
        planes, spare = tuple(spare[: _channels(each)]), spare[_channels(each) :]
        placed.append(_write(fuser, each, part(host, host.planes, planes, relu)))
    return placed


def _place_afresh(fuser: Fuser, parts: list[View | Pending], order: list[int], relu: bool) -> list[View]:
    """The first in ``order`` makes the tensor."""
    total, ends, storage = sum(map(_channels, parts)), list(accumulate(map(_channels, parts))), None
    placed: list[View] = [None] * len(parts)
    for index in order:
        planes = tuple(range(ends[index] - _channels(parts[index]), ends[index]))
        placed[index] = _write(fuser, parts[index], part(storage, total, planes, relu))
        storage = placed[index].storage
    return placed


def _is_constant(each: View | Pending) -> bool:
    """Whether it is a constant's planes: TVM would make a constant of a tensor that is made of nothing else."""
    return isinstance(each, View) and constant(each.storage.var) is not None


def _write(fuser: Fuser, each: View | Pending, place: Place) -> View:
    return each.write(place) if isinstance(each, Pending) else copied(fuser, each, place)
