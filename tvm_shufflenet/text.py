"""Prepares untrusted text for a terminal, and shortens it."""

from __future__ import annotations

import re

# Control sequences (colours, cursor), strings (titles, clipboard, links) with what they hold, and the short ones. Of a
# string without an end only the beginning goes, so that nobody can hide the rest of a message.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])(?:[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\\\|\x9c))?"
    "|\x1b[ -/]*[0-~]?"
)
_KEPT = "\n\t"
REPLACEMENT = "?"


def clean(text: str) -> str:
    """``text`` without terminal escapes; whatever else does not print is a question mark.

    That includes control characters, marks that turn the direction of writing, and halves of surrogate pairs. Line
    ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return "".join(each if each.isprintable() or each in _KEPT else _unprintable(each) for each in text)


def _unprintable(character: str) -> str:
    return " " if character.isspace() and not "\x1c" <= character <= "\x1f" and character > "\r" else REPLACEMENT


def last_lines(text: str, count: int = 12) -> str:
    """The end of what a program said, which is where compilers and installers say what was wrong."""
    return "\n".join(text.strip().splitlines()[-count:])


def ending(text: str) -> str:
    """The same on one line."""
    return "; ".join(last_lines(text, 3).splitlines())[-400:]


def counted(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters, the end of longer ones as dots."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
