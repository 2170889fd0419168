"""The message of an error that ends a command: one paragraph for any exception."""

from __future__ import annotations

import traceback
from pathlib import Path

from ..errors import DeployError, lines_of
from ..support.surroundings import explain
from ..text import clean, shortened

MOST_CHARACTERS = 2000  # of what a compiler or a server said
FAULT = 1  # the exit code of what nobody foresaw


def last_words(error: Exception) -> tuple[str, int]:
    """The message and the exit code."""
    known = explain(error) or (error if isinstance(error, DeployError) else None)
    if known is None:
        return f"tvm-shufflenet: {_unforeseen(error)}", FAULT
    return shortened(clean(f"tvm-shufflenet: {known}"), MOST_CHARACTERS), known.exit_code


def _unforeseen(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parents[1])]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    what = f"unforeseen {type(error).__name__}{place}: {lines_of(error)[0][:300]}"
    return str(DeployError(what, "a fault of this program", "run it again with --debug, and report what it prints"))
