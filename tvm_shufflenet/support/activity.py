"""The current activity: layers announce it here, the command line shows it (report/heartbeat.py).

Without a watcher, as in programs that import this package, nothing is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Watcher(Protocol):
    def announce(self, text: str) -> None:
        """Something long that is done once: worth a line of its own."""

    def doing(self, text: str) -> None:
        """What goes on until the next call; empty for nothing in particular."""

    def stop(self) -> None:
        """Nothing is done any more that would end."""

    def pause(self, paused: bool) -> None:
        """Whether somebody else shows that time passes."""


watcher: Watcher | None = None
_stack: list[str] = []


@contextlib.contextmanager
def doing(text: str) -> Iterator[None]:
    """Also a decorator: what goes on within, such as "importing the model"."""
    _stack.append(text)
    _tell()
    try:
        yield
    finally:
        _stack.remove(text)
        _tell()


@contextlib.contextmanager
def doing_once(text: str) -> Iterator[None]:
    """As ``doing``, for what is kept, and announced since it takes longer than the next time."""
    announce(f"{text} (once)")
    with doing(text):
        yield


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """While something on the terminal moves by itself."""
    if watcher is not None:
        watcher.pause(True)
    try:
        yield
    finally:
        if watcher is not None:
            watcher.pause(False)


def announce(text: str) -> None:
    if watcher is not None:
        watcher.announce(text)


def end() -> None:
    """From now on this waits for others, as a server does."""
    if watcher is not None:
        watcher.stop()


def _tell() -> None:
    if watcher is not None:
        watcher.doing(_stack[-1] if _stack else "")
