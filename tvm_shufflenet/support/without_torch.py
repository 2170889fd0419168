"""Keeps TVM's FFI from importing PyTorch, which takes a second and 200 MB where it is not needed."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Nobody can import it meanwhile: for what has no use for it and is the first to import TVM. Where it has been
    imported already, it stays.
    """
    sys.modules.setdefault("torch", None)
    try:
        yield
    finally:
        if sys.modules["torch"] is None:
            del sys.modules["torch"]
