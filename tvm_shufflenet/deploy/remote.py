"""What deploying needs of a device: a shell, and a way to append bytes to a file."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import DeviceFailed

FULL = ("No space left on device", "Disk quota exceeded")


class ConnectionLost(DeviceFailed):
    """The way to the device broke; what has arrived there stays, and copying may go on from it."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended on the device. Some transports cannot tell ``error`` from ``output``."""

    exit_code: int
    output: str
    error: str

    @property
    def words(self) -> str:
        """What it last said of a failure, on one line."""
        return "; ".join((self.error.strip() or self.output.strip()).splitlines()[-3:])[-300:]


class Remote(ABC):
    """A device with a POSIX shell. ``folder`` is where the package goes, as the device names it; ``name`` is the
    device's own, for reports and manifests."""

    name: str
    folder: str

    @abstractmethod
    def shell(self, script: str, limit_s: float = 60) -> Completed:
        """Run one line of shell on the device. Raises ConnectionLost, and DeviceFailed where it cannot be reached."""

    @abstractmethod
    def append(self, source: Path, offset: int, path: str) -> None:
        """Append ``source`` from ``offset`` on to the file ``path`` of the device.

        Raises ConnectionLost, of which a part may have arrived: always a prefix. Raises DeviceFailed.
        """

    def check(self, done: Completed, what: str) -> Completed:
        """Raises DeviceFailed, in plain words, for a command that failed while it should do ``what``."""
        if done.exit_code == 0:
            return done
        if any(words in done.output + done.error for words in FULL):
            raise disk_full(self)
        raise DeviceFailed(f"{self.name} cannot {what}: {done.words}", "", "name another folder, or look at the device")


def disk_full(remote: Remote, needed: str = "") -> DeviceFailed:
    return DeviceFailed(
        f"the disk of {remote.name} is full" + (f": {needed}" if needed else ""),
        f"{remote.folder} has no room for the package",
        "free some there, or name another folder; what was there before is as it was",
    )


def run_program(command: Sequence[str], limit_s: float, stdin: IO[bytes] | None = None) -> Completed:
    """A program of this machine that talks to the device. Raises ConnectionLost where it takes too long."""
    try:
        done = subprocess.run(
            command, stdin=stdin or subprocess.DEVNULL, capture_output=True, timeout=limit_s, env=os.environ
        )
    except subprocess.TimeoutExpired as exc:
        raise ConnectionLost(f"{command[0]} has not answered for {limit_s:.0f} s", "the connection is dead") from exc
    return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
