"""All exceptions that this project raises on purpose.

    DeployError                 exit code
      BadInput                  2   an argument or a file the caller can correct
        UnknownName             2     a name outside a known list; carries the nearest ones
        ImportFailed            2     a model that cannot become a Relax module
        PackageInvalid          2     a package that is damaged, or built for another machine
        RecordMismatch          2     tuning records of another target or TVM
      ToolMissing               3   a program or package this step needs is not installed
        LinkFailed              3     the cross toolchain is there but refused to link
      DeviceFailed              4   a device that cannot be reached, died or timed out
      PeerFailed                4   another engine that does not convert or run a network; a row of its table, no end
      WrongResult               5   output differs from PyTorch's beyond the tolerance
      NothingMeasured           6   a tuning run in which no trial succeeded
      Slower                    7   a latency that a baseline does not allow; the figures are reported all the same
      ScheduleRejected          1   a schedule template that does not apply to an operator

Every message says what happened, the likely cause and the next command, and prints as one short paragraph. What a
library raised is quoted in it by one of its ``lines_of``. Files and devices have their say in messages too, so these
are cleaned of what a terminal would obey.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .text import clean


class DeployError(Exception):
    """Base of the tree. ``what`` happened, the likely ``cause``, the ``next_step`` to take."""

    exit_code = 1

    def __init__(self, what: str, cause: str = "", next_step: str = ""):
        self.what, self.cause, self.next_step = clean(what), clean(cause), clean(next_step)
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = [self.what.rstrip(".")]
        if self.cause:
            parts.append("likely cause: " + self.cause.rstrip("."))
        if self.next_step:
            parts.append("next: " + self.next_step)
        return "; ".join(parts)


class BadInput(DeployError):
    exit_code = 2


class UnknownName(BadInput):
    """A name that is not in ``known``; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], next_step: str = ""):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        super().__init__(f"unknown {kind} '{name}', nearest: {', '.join(near)}", "", next_step)
        self.nearest = near


class ImportFailed(BadInput):
    pass


class PackageInvalid(BadInput):
    pass


class RecordMismatch(BadInput):
    pass


class ToolMissing(DeployError):
    exit_code = 3


class LinkFailed(ToolMissing):
    pass


class DeviceFailed(DeployError):
    exit_code = 4


class PeerFailed(DeployError):
    exit_code = 4


class WrongResult(DeployError):
    exit_code = 5


class NothingMeasured(DeployError):
    exit_code = 6


class Slower(DeployError):
    exit_code = 7


class ScheduleRejected(DeployError):
    pass


def lines_of(error: Exception) -> list[str]:
    """What an error of a library says, for a message with room for one line of it; its type where it says nothing.

    Without the colours that some libraries put into their messages.
    """
    return clean(str(error)).strip().splitlines() or [type(error).__name__]


def first_line(error: BaseException) -> str:
    """The one line of a TVM error that says what happened: its tracebacks run to pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("Error caught from RPC call:")]
    telling = [line for line in lines if "Error:" in line or "Check failed" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]
