"""Run compiled operators on memory whose every byte outside the operands faults. Used by test_bounds.py, as a program.

Each line of standard input is a JSON list: OPERANDS.npz and libraries. A child of its own runs them, with each operand
once behind and once before a page that cannot be touched. The answer is a line of JSON: how the child ended, negative
for a signal, and what it ran last.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
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


def run(operands: str, libraries: list[str], said: int) -> None:
    """Run each library on both sides of the fence; what is about to run is written to ``said`` first."""
    with np.load(operands) as stored:
        arrays = [stored[name] for name in stored.files]
    for library in libraries:
        function = tvm.runtime.load_module(library)["main"]
        for side in ("before", "after"):
            os.write(said, f"{library} {side}\n".encode())
            function(*(tvm.runtime.from_dlpack(guarded(array, side)) for array in arrays))


def in_a_child(operands: str, libraries: list[str]) -> tuple[int, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(operands, libraries, writing)
            os._exit(0)
        except BaseException as exc:
            os.write(writing, f"{exc!r}\n".encode())
            os._exit(1)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said[-1] if said else ""


def main() -> None:
    for line in sys.stdin:
        operands, *libraries = json.loads(line)
        print(json.dumps(in_a_child(operands, libraries)), flush=True)


if __name__ == "__main__":
    main()
