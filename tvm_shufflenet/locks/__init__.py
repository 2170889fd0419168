"""Pinned downloads: the files of each package with their SHA-256, one lock for each purpose.

pip refuses every other file. tools/lock_downloads.py writes the locks.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ToolMissing

FOLDER = Path(__file__).parent


def lock(name: str) -> Path:
    """The file for pip's ``--requirement``, with ``--require-hashes``."""
    return FOLDER / f"{name}.txt"


def locked(name: str, pins: tuple[str, ...]) -> str:
    """The entries of ``pins`` in a lock, as text. Raises ToolMissing where one is not in it."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock(name).read_text())
    found = {re.split(r"[\s;\\]", entry, maxsplit=1)[0]: entry for entry in entries}
    missing = [pin for pin in pins if pin not in found]
    if missing:
        raise ToolMissing(
            f"the lock {name} has no {', '.join(missing)}",
            "the pins were changed and the locks were not",
            "python tools/lock_downloads.py",
        )
    return "".join(found[pin] for pin in pins)
