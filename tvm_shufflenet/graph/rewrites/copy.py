"""Copies of planes. No graph contains them: the fuser emits one where a view must become a tensor or move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from ...operators.building import INDEX
from ...operators.copy import Copy
from ..bindings import Bindings
from ..values import Place
from ..views import View
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ()


def find(_bindings: Bindings, _var: relax.Var, _claimed: set[relax.Var]) -> Match | None:
    return None


def copied(fuser: Fuser, view: View, place: Place) -> View:
    shape, precision = view.storage.shape, view.storage.precision
    kernel = fuser.laid_out(Copy(*shape, len(view.planes), place.relu, place.window, precision=precision))
    table = relax.const(np.array(view.planes, INDEX))
    return fuser.emit(kernel, view, [table], place, place.relu or view.non_negative)
