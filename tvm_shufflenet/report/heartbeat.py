"""Shows that a command is still working, and filters what libraries print.

When nothing has been printed for a while, a line on standard error says what is being done, and for how long.

A process of its own gives it, since a thread could not: a call of a remote function keeps Python's lock until it ends,
and so does an import of a large library. The two share a page of memory. On a terminal the line is written anew each
second, elsewhere a line more is written.

What libraries in C++ write to the file of standard error passes through that process, too, which keeps back TVM's
warnings: they are for its developers. Python's own standard error goes straight to where it went before.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import select
import signal
import struct
import sys
import time

from ..support import activity

SILENCE_S = 2.0  # on a terminal; elsewhere a line comes as late as the longest silence allows
LINES_S = 2.7
LOOK_S = 0.1
MOST_TEXT = 200
# When something was last written, how many writes there were, whether somebody else draws on the terminal, the text.
LAYOUT = struct.Struct("=dQ?H")
NOISE = re.compile(rb"\[\d\d:\d\d:\d\d\] \S+:\d+: Warning: ")  # how TVM's own begin
UP_AND_CLEAR = "\x1b[1A\r\x1b[2K"


class Heartbeat:
    """A watcher (see activity.py) as a context manager. ``idle`` is what is shown when nobody says what goes on."""

    def __init__(self, idle: str, sieve: bool = True):
        self._idle, self._sieves = idle, sieve
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._writes, self._last, self._paused, self._text = 0, time.monotonic(), False, idle
        self._child = 0
        self._streams = (sys.stdout, sys.stderr)
        self._terminal: int | None = None

    def __enter__(self) -> Heartbeat:
        self._note()
        said, says = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(says)
            _beat(self._page, said)
        os.close(said)
        errors = self._streams[1]
        if self._sieves:
            self._terminal = os.dup(2)
            errors = io.TextIOWrapper(
                open(self._terminal, "wb", closefd=False), errors.encoding, errors.errors, line_buffering=True,
            )  # fmt: skip
            os.dup2(says, 2)
        os.close(says)
        activity.watcher = self
        sys.stdout, sys.stderr = _Noting(self._streams[0], self.written), _Noting(errors, self.written)
        return self

    def __exit__(self, *_exc) -> None:
        self.stop()

    def stop(self) -> None:
        """No more signs of life; harmless when there are none."""
        # An interrupt may come at any line, and then this is called once more.
        child, self._child = self._child, 0
        if not child:
            return
        activity.watcher = None
        sys.stdout, sys.stderr = self._streams
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            os.dup2(terminal, 2)
            os.close(terminal)
        self._paused, self._last = True, -1.0
        self._note()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)

    def announce(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def doing(self, text: str) -> None:
        self._text = text or self._idle
        self._note()

    def pause(self, paused: bool) -> None:
        """While somebody else draws on the terminal, and shows by himself that time passes."""
        self._paused = paused
        self._note()

    def written(self) -> None:
        self._writes, self._last = self._writes + 1, time.monotonic()
        self._note()

    def _note(self) -> None:
        text = self._text.encode(errors="replace")[:MOST_TEXT]
        self._page[: LAYOUT.size + len(text)] = LAYOUT.pack(self._last, self._writes, self._paused, len(text)) + text


class _Noting:
    """A stream that tells of every write."""

    def __init__(self, stream, written):
        self._stream, self._written = stream, written

    def write(self, text) -> int:
        self._written()
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def _beat(page: mmap.mmap, said: int) -> None:
    """The other process, until its parent ends. It never returns."""
    parent = os.getppid()
    with contextlib.suppress(BaseException):
        for number in (signal.SIGINT, signal.SIGTERM):  # of the terminal, or of a group: the parent decides
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):  # whoever reads what the parent prints waits for the parent alone
            os.dup2(nowhere, number)
        _watch(page, parent, said, os.isatty(2))
    os._exit(0)


def _watch(page: mmap.mmap, parent: int, said: int, terminal: bool) -> None:
    silence, every = (SILENCE_S, 1.0) if terminal else (LINES_S, LINES_S)
    sieve = _Sieve(said)
    shown, begun, text = None, time.monotonic(), ""
    due = 0.0
    while os.getppid() == parent:
        passed = sieve.let_through(LOOK_S)
        last, writes, paused, length = LAYOUT.unpack(page[: LAYOUT.size])
        if last < 0:  # the parent has stopped
            break
        now, before = time.monotonic(), text
        text = page[LAYOUT.size : LAYOUT.size + length].decode(errors="replace")
        if text != before:
            begun = now
        if passed:
            shown, due = None, now + silence
        if writes != shown:
            due = max(due, last + silence)
        if paused or now < due:
            continue
        line = f"... {text}, {now - begun:.0f} s"
        if terminal:
            line = (UP_AND_CLEAR if writes == shown else "") + f"\x1b[2m{line[: _columns()]}\x1b[0m"
        os.write(2, (line + "\n").encode(errors="replace"))
        shown, due = writes, now + every
    while sieve.let_through(0):
        pass
    sieve.finish()


class _Sieve:
    """Passes on to standard error what comes by the pipe, whole lines of it, but for noise."""

    def __init__(self, pipe: int):
        self._pipe, self._rest, self._open = pipe, b"", True

    def let_through(self, seconds: float) -> bool:
        """Wait so long for more; whether some came."""
        if not self._open:
            time.sleep(seconds)
            return False
        if not select.select([self._pipe], [], [], seconds)[0]:
            return False
        data = os.read(self._pipe, 1 << 16)
        self._open = bool(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        kept = b"".join(line + b"\n" for line in lines if not NOISE.match(line))
        _write_all(kept)
        return bool(data)

    def finish(self) -> None:
        if self._rest and not NOISE.match(self._rest):
            _write_all(self._rest)


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


def _columns() -> int:
    try:
        return (os.get_terminal_size(2).columns or 80) - 1
    except OSError:
        return 79
