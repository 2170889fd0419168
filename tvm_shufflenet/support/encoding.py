"""Uses UTF-8 for all names and texts, whatever the locale is."""

from __future__ import annotations

import locale
import os
import sys


def speak_utf8() -> None:
    """Start this process again in Python's UTF-8 mode where the locale is of another encoding: files are written and
    read in one then. What such a terminal cannot show is printed as escapes, here and in the new process.
    """
    if not sys.flags.utf8_mode and not _is_utf8(locale.getpreferredencoding(False)):
        terminal = sys.stdout.encoding if sys.stdout is not None else "ascii"
        os.environ["PYTHONUTF8"] = "1"  # for processes of ours
        os.environ.setdefault("PYTHONIOENCODING", f"{terminal}:backslashreplace")
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _is_utf8(name: str) -> bool:
    return name.lower().replace("-", "") == "utf8"
