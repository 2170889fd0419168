"""Freed memory goes back to the system. By itself glibc keeps all that lies below something still in use, and a process
that makes and drops many small things seems to grow for hours.
"""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)


def release_freed() -> None:
    """Where the C library can be told to: glibc can, in some milliseconds."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
