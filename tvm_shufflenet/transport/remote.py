"""The interface of a transport: a shell, and appending bytes to a file."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import DeviceFailed
from ..text import clean, ending

# What a device may say in one go: a benchmark's report takes 10 KB, the hashes of a package's files less.
ANSWER_BYTES = 4 << 20
CHUNK_BYTES = 64 << 10
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
        """What it last said of a failure, on one line that a terminal can show."""
        return ending(clean((self.error.strip() or self.output.strip())[-2000:]))


class Remote(ABC):
    """A device with a POSIX shell. ``folder`` is where the package goes, as the device names it; ``name`` is the
    device's own, for reports and manifests."""

    name: str
    folder: str

    @abstractmethod
    def shell(self, script: str, limit_s: float = 60, limit_bytes: int = ANSWER_BYTES) -> Completed:
        """Run one line of shell on the device. Raises ConnectionLost, and DeviceFailed where it cannot be reached or
        says more than ``limit_bytes``."""

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


def number(text: str) -> int | None:
    """A count as programs print it; None for anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def run_program(
    command: Sequence[str], limit_s: float, stdin: IO[bytes] | None = None, limit_bytes: int = ANSWER_BYTES
) -> Completed:
    """A program of this machine that talks to the device.

    Its output is the device's: it is read as it comes, and the program ended where there is more than ``limit_bytes``.
    Raises DeviceFailed then, ConnectionLost where it takes too long.
    """
    with subprocess.Popen(
        command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as process:
        try:
            output, error = _read(process, command[0], time.monotonic() + limit_s, limit_s, limit_bytes)
        except BaseException:
            process.kill()
            raise
    return Completed(process.returncode, output.decode(errors="replace"), error.decode(errors="replace"))


def _read(process: subprocess.Popen, name: str, deadline: float, limit_s: float, limit_bytes: int) -> list[bytes]:
    """What the process writes to its two pipes, until it has ended."""
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as pipes:
        for pipe in said:
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map():
            ready = pipes.select(max(0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:  # whatever it says: one byte a second is no answer either
                raise ConnectionLost(f"{name} has not answered for {limit_s:.0f} s", "the connection is dead")
            for key, _ in ready:
                chunk = os.read(key.fd, CHUNK_BYTES)
                if not chunk:
                    pipes.unregister(key.fileobj)
                said[key.fileobj] += chunk
            if sum(map(len, said.values())) > limit_bytes:
                raise DeviceFailed(
                    f"the device answers with more than {limit_bytes / 1e6:.1f} MB, and was not listened to any longer",
                    "a program on it prints without end, or something else than a shell answers",
                    "look at the device",
                )
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as exc:
        raise ConnectionLost(f"{name} has not ended for {limit_s:.0f} s", "the connection is dead") from exc
    return [bytes(each) for each in said.values()]
