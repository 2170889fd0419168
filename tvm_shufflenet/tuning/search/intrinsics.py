"""TVM's tensor intrinsics, without the wait."""

from __future__ import annotations

import importlib
import inspect
from unittest import mock


def load_intrinsics() -> None:
    """Import the intrinsics that every TuneContext needs, in two seconds instead of twenty.

    TVM's script parser asks ``inspect`` for the whole call stack at each of some 500 intrinsics, and ``inspect`` then
    searches all loaded modules for the import system's own frames, in vain.
    """
    with mock.patch.object(inspect, "getmodule", lambda *_: None):
        importlib.import_module("tvm.s_tir.tensor_intrin")
