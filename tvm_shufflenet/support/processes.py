"""Starts child processes: compilers, installers, and those that must not outlive this one."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import LinkFailed, ToolMissing
from ..text import last_lines

NOT_INSTALLED = "no network, no pip, no wheel for this Python, or a file that is not the one that was locked"
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


def run_installer(command: Sequence[str], failure: str, next_step: str, **options) -> None:
    """Run pip, or what makes an environment for it. Raises ToolMissing: ``failure``, and the end of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", **options)
    except subprocess.TimeoutExpired as exc:
        what = f"{failure}: no end after {exc.timeout:.0f} s"
        raise ToolMissing(what, "a slow network", "run this again") from exc
    if done.returncode != 0:
        said = last_lines(done.stderr.strip() or done.stdout)
        raise ToolMissing(f"{failure}:\n{said}", NOT_INSTALLED, next_step)
