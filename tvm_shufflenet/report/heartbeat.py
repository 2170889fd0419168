"""A sign of life on standard error whenever a command has printed nothing for a while: what it does, and for how long.

A process of its own gives it, since a thread could not: a call of a remote function keeps Python's lock until it ends,
and so does an import of a large library. The two share a page of memory. On a terminal the line is written anew each
second, elsewhere a line more is written.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import struct
import sys
import time

from .. import activity

SILENCE_S = 2.0  # on a terminal; elsewhere a line comes as late as the longest silence allows
LINES_S = 2.7
LOOK_S = 0.1
MOST_TEXT = 200
# When something was last written, how many writes there were, whether somebody else draws on the terminal, the text.
LAYOUT = struct.Struct("=dQ?H")
PR_SET_PDEATHSIG = 1
UP_AND_CLEAR = "\x1b[1A\r\x1b[2K"


class Heartbeat:
    """A watcher (see activity.py) as a context manager. ``idle`` is what is shown when nobody says what goes on."""

    def __init__(self, idle: str):
        self._idle = idle
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._writes, self._last, self._paused, self._text = 0, time.monotonic(), False, idle
        self._child = 0
        self._streams = (sys.stdout, sys.stderr)

    def __enter__(self) -> Heartbeat:
        self._note()
        self._child = os.fork()
        if self._child == 0:
            _beat(self._page)
        activity.watcher = self
        sys.stdout, sys.stderr = (_Noting(stream, self.written) for stream in self._streams)
        return self

    def __exit__(self, *_exc) -> None:
        self.stop()

    def stop(self) -> None:
        """No more signs of life; harmless when there are none."""
        if not self._child:
            return
        activity.watcher = None
        sys.stdout, sys.stderr = self._streams
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        self._child = 0

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


def _beat(page: mmap.mmap) -> None:
    """The other process, until its parent ends. It never returns."""
    parent = os.getppid()
    with contextlib.suppress(BaseException):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):  # whoever reads what the parent prints waits for the parent alone
            os.dup2(nowhere, number)
        _watch(page, parent, os.isatty(2))
    os._exit(0)


def _watch(page: mmap.mmap, parent: int, terminal: bool) -> None:
    silence, every = (SILENCE_S, 1.0) if terminal else (LINES_S, LINES_S)
    shown, begun, text = None, time.monotonic(), ""
    due = 0.0
    while os.getppid() == parent:
        time.sleep(LOOK_S)
        last, writes, paused, length = LAYOUT.unpack(page[: LAYOUT.size])
        now, before = time.monotonic(), text
        text = page[LAYOUT.size : LAYOUT.size + length].decode(errors="replace")
        if text != before:
            begun = now
        if writes != shown:
            due = max(due, last + silence)
        if paused or now < due:
            continue
        line = f"... {text}, {now - begun:.0f} s"
        if terminal:
            line = (UP_AND_CLEAR if writes == shown else "") + f"\x1b[2m{line[: _columns()]}\x1b[0m"
        os.write(2, (line + "\n").encode(errors="replace"))
        shown, due = writes, now + every


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(2).columns - 1)
    except OSError:
        return 79
