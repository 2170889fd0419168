"""Ends a command on Ctrl-C or SIGTERM, at any point.

An exception alone does not: raised inside a callback of TVM's, KeyboardInterrupt comes out as something else, or is
swallowed and the command goes on; raised while torch is being imported, it may find C++ that aborts the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

EXIT_CODE = 130
MESSAGE = "interrupted"
GRACE_S = 5.0  # closing devices and workers takes a fraction of a second
IMPORT_GRACE_S, LOOK_AGAIN_S = 0.5, 0.02
SHOW_CURSOR = "\x1b[?25h"

_unbroken = 0
_held: list[Callable[[], None]] = []


@contextlib.contextmanager
def interruptible(message: str = MESSAGE) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, and that is what leaves this block whatever it became on its way.

    Where it was swallowed, the process says ``message`` and ends by force after a grace period; so it does after a
    shorter one where modules are being imported all the time, since nothing is raised meanwhile. Further signals change
    nothing.
    """
    # A signal that our parent had us ignore, as nohup and background jobs do, stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    end, again = _Alarm(_end_by_force, message), _Alarm(_signal_main_thread, *numbers[:1])
    outside = _imports(sys._getframe())  # the caller may itself be a module's own code
    interrupted = raised = False

    def interrupt(_number: int | None = None, frame: FrameType | None = None) -> None:
        nonlocal interrupted, raised
        if _unbroken:
            _held.append(interrupt)
        elif _imports(frame) > outside and not raised:
            if not interrupted:
                end.set(IMPORT_GRACE_S)
            interrupted = True
            again.set(LOOK_AGAIN_S)
        elif not raised:
            interrupted = raised = True
            end.set(GRACE_S)
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except BaseException as exc:
        if interrupted:
            raise KeyboardInterrupt from exc
        raise
    finally:
        end.cancel()
        again.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """What is short and must be done whole or not at all: an interrupt that comes within raises at its end."""
    global _unbroken
    _unbroken += 1
    try:
        yield
    finally:
        _unbroken -= 1
        if _held and not _unbroken:
            interrupt = _held.pop()
            _held.clear()
            interrupt()


def _imports(frame: FrameType | None) -> int:
    """How many calls there are of what imports modules."""
    calls = 0
    while frame is not None:
        calls += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return calls


def _signal_main_thread(number: int) -> None:
    """Where it may be waiting for something, the main thread hears of a signal that is its own alone."""
    signal.pthread_kill(threading.main_thread().ident, number)


class _Alarm:
    """Calls something when it goes off, once; setting it again puts that off."""

    def __init__(self, call: Callable, *arguments):
        self._call, self._arguments = call, arguments
        self._timer: threading.Timer | None = None

    def set(self, seconds: float) -> None:
        self.cancel()
        self._timer = threading.Timer(seconds, self._call, self._arguments)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _end_by_force(message: str) -> None:
    """End our processes and this one; what is being written stays as it is, records are read line by line."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()
    print((SHOW_CURSOR if sys.stderr.isatty() else "") + message, file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)
