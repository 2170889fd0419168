"""Processes that this one starts: compilers, and those that must not outlive it."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import LinkFailed
from ..text import last_lines

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)  # loaded before a fork, after which little is allowed


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """For ``preexec_fn``: should the process that starts this one be killed outright, the kernel sends this signal."""
    _libc.prctl(PR_SET_PDEATHSIG, number)


def run_compiler(
    command: Sequence[str],
    failure: str,
    cause: str,
    next_step: str,
    folder: Path | None = None,
    shown: Callable[[str], str] = last_lines,
) -> None:
    """Run a compiler or linker in ``folder``. Raises LinkFailed: ``failure``, and of what it said what is ``shown``."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    except OSError as exc:
        raise LinkFailed(f"cannot run {command[0]}", str(exc), next_step) from exc
    if done.returncode != 0:
        raise LinkFailed(f"{failure}{shown(done.stderr)}", cause, next_step)
