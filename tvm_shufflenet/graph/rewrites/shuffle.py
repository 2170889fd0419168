"""Channel shuffles. A shuffle alone only permutes the planes of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ..bindings import Bindings, operator, shape_of
from ..views import View, shuffled
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.reshape",)


def find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Match | None:
    found = shuffle_groups_of(bindings, var)
    if found is None:
        return None
    groups, bound = found
    source = bindings.values[var].args[0]

    def emit(fuser: Fuser) -> View:
        view = fuser.view(source)
        fuser.read(source)
        return view.take(shuffled(len(view.planes), groups))

    return Match(bound[-1], tuple(bound), emit)


def shuffle_groups_of(bindings: Bindings, split: relax.Var) -> tuple[int, list[relax.Var]] | None:
    """Groups of a channel shuffle spelled reshape, permute, reshape that starts at ``split``, and its three variables.

    ``CanonicalizeShuffles`` has brought every other spelling into this one. None where it is something else.
    """
    swapped = bindings.sole_reader(split)
    merged = None if swapped is None else bindings.sole_reader(swapped)
    names = ("relax.reshape", "relax.permute_dims", "relax.reshape")
    if merged is None or tuple(operator(bindings.values[var]) for var in (split, swapped, merged)) != names:
        return None
    source, grouped = shape_of(bindings.values[split].args[0]), shape_of(split)
    if source is None or grouped is None or len(source) != 4 or len(grouped) != 5:
        return None
    batch, channels, height, width = source
    groups = grouped[1]
    if grouped != (batch, groups, channels // groups, height, width) or shape_of(merged) != source:
        return None
    if [int(axis) for axis in bindings.values[swapped].attrs.axes] != [0, 2, 1, 3, 4]:
        return None
    return groups, [split, swapped, merged]
