"""One folder for all temporary files of a run: ours, TVM's, the compiler's and those of child processes.

Its owner keeps a lock in it as long as it lives, however it ends. So what a killed run has left is known by its lock,
which nobody holds any more: the next run removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .files import is_free
from .surroundings import OWNER, temporary_folder

PREFIX = "tvm-shufflenet-"


@contextlib.contextmanager
def run_folder() -> Iterator[None]:
    """``tempfile`` and TMPDIR mean the folder within. Where there is no place for one, whoever needs it will say so."""
    remove_abandoned()
    try:
        folder = tempfile.mkdtemp(prefix=PREFIX)
    except OSError:
        yield
        return
    before = os.environ.get("TMPDIR")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with contextlib.suppress(
            OSError
        ):  # a full disk, a file system without locks: the folder is of use all the same
            owner = stack.enter_context(open(Path(folder, OWNER), "w"))
            fcntl.flock(owner, fcntl.LOCK_EX)
        stack.callback(_set_temporary, before, tempfile.tempdir)
        _set_temporary(folder, folder)
        yield


def _set_temporary(variable: str | None, folder: str | None) -> None:
    tempfile.tempdir = folder
    if variable is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = variable


def remove_abandoned() -> None:
    for folder in abandoned():
        shutil.rmtree(folder, ignore_errors=True)


def abandoned() -> list[Path]:
    """Folders of runs that were killed."""
    return [lock.parent for lock in Path(temporary_folder()).glob(f"{PREFIX}*/{OWNER}") if is_free(lock)]
