"""Run compiled operators on memory whose every byte outside the operands faults. Used by test_bounds.py, as a program.

    python guarded.py OPERANDS.npz LIBRARY...

Each operand lies with its first byte right behind, and then with its last byte right before, a page that cannot be
touched. What is about to run is printed, so that the last line says what a crash was.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import tvm

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(array: np.ndarray, side: str) -> np.ndarray:
    """A copy of ``array`` that touches an inaccessible page on one ``side``."""
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        if _libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE if side == "before" else (pages + 1) * PAGE - array.nbytes
    placed = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    placed[...] = array
    return placed


def main() -> None:
    operands, *libraries = sys.argv[1:]
    with np.load(operands) as stored:
        arrays = [stored[name] for name in stored.files]
    for library in libraries:
        function = tvm.runtime.load_module(library)["main"]
        for side in ("before", "after"):
            print(library, side, flush=True)
            function(*(tvm.runtime.from_dlpack(guarded(array, side)) for array in arrays))


if __name__ == "__main__":
    main()
