"""Planes that must lie elsewhere than they do. No call of Relax is one: what others need is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from ...operators.copy import Copy
from ..values import Place
from ..views import View
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def copy_planes(fuser: Fuser, view: View, place: Place) -> View:
    """The fallback where a view must become a tensor or lie elsewhere."""
    batch, planes, height, width = view.storage.shape
    kernel = Copy(batch, planes, height, width, len(view.planes), place.relu, place.window)
    table = relax.const(np.array(view.planes, np.int32))
    return fuser.emit_planes("copy", kernel, view, [table], place, place.relu or view.non_negative)


REWRITES: tuple[Rewrite, ...] = ()
