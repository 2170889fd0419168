"""Loads TVM's tensor intrinsics of CPUs, without parsing those of other processors."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from unittest import mock

PACKAGE = "tvm.s_tir.tensor_intrin"
FOREIGN = tuple(f"{PACKAGE}.{name}" for name in ("cuda", "hexagon", "riscv_cpu", "rocm"))  # no target here


def load_intrinsics() -> None:
    """Import the package that every TuneContext imports, in a third of a second instead of twenty.

    Most intrinsics are for GPUs: empty modules stand in for theirs meanwhile, which can be imported later. And TVM's
    script parser asks ``inspect`` for the whole call stack at each intrinsic; ``inspect`` then searches all loaded
    modules for the import system's own frames, which none of them contains.
    """
    if PACKAGE in sys.modules:
        return
    empty = {name: ModuleType(name) for name in FOREIGN if name not in sys.modules}
    sys.modules.update(empty)
    try:
        with mock.patch.object(inspect, "getmodule", lambda *_: None):
            package = importlib.import_module(PACKAGE)
    finally:
        for name in empty:
            del sys.modules[name]
    for name in empty:
        vars(package).pop(name.rpartition(".")[2], None)
