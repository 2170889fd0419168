"""Ctrl-C and SIGTERM end a command, wherever they find it.

An exception alone does not: raised inside a callback of TVM's or while a library is being imported, KeyboardInterrupt
comes out as something else, or is swallowed and the command goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

EXIT_CODE = 130
MESSAGE = "interrupted"
GRACE_S = 5.0  # closing devices and workers takes a fraction of a second
SHOW_CURSOR = "\x1b[?25h"

_unbroken = 0
_held: list[Callable[[], None]] = []


@contextlib.contextmanager
def interruptible(message: str = MESSAGE) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, and that is what leaves this block whatever it became on its way.

    Where it was swallowed, the process says ``message`` and ends by force after a grace period. Further signals change
    nothing.
    """
    timer = threading.Timer(GRACE_S, _end_by_force, (message,))
    timer.daemon = True
    interrupted = False

    def interrupt(*_) -> None:
        nonlocal interrupted
        if _unbroken:
            _held.append(interrupt)
        elif not interrupted:
            interrupted = True
            timer.start()
            raise KeyboardInterrupt

    # A signal that our parent had us ignore, as nohup and background jobs do, stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except BaseException as exc:
        if interrupted:
            raise KeyboardInterrupt from exc
        raise
    finally:
        timer.cancel()
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


def _end_by_force(message: str) -> None:
    """End our processes and this one; what is being written stays as it is, records are read line by line."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()
    print((SHOW_CURSOR if sys.stderr.isatty() else "") + message, file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)
