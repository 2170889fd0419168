"""Finds the line of the user's own files where an exception was raised or an operator was recorded."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

FRAME = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+)')
# In a file that was exported on another machine, that machine's libraries.
LIBRARY = re.compile(r"/(site|dist)-packages/(torch|tvm|tvm_shufflenet)/|^<")


def is_foreign(file: str) -> bool:
    """Whether a frame of ``file`` tells the user nothing: torch's, TVM's, the import machinery's, this program's."""
    libraries = [getattr(sys.modules.get(name), "__file__", None) for name in ("torch", "tvm", "importlib")]
    folders = [Path(__file__).parents[1], *(Path(library).parent for library in libraries if library)]
    return LIBRARY.search(file) is not None or any(folder in Path(file).parents for folder in folders)


def own_trace(exc: BaseException) -> str:
    """The traceback of ``exc`` and of what it was raised from, without foreign frames and without headings."""
    report = traceback.TracebackException.from_exception(exc)
    pending = [report]
    while pending:
        part = pending.pop()
        part.stack = traceback.StackSummary.from_list([f for f in part.stack if not is_foreign(f.filename)])
        pending += [cause for cause in (part.__cause__, part.__context__) if cause is not None]
    return "".join(line for line in report.format() if not line.startswith("Traceback (")).rstrip()


def raised_at(exc: BaseException) -> str:
    """``FILE:LINE`` of the user's innermost frame that ``exc`` passed through; empty where there is none."""
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not is_foreign(f.filename)]
    return _place(frames[-1].filename, frames[-1].lineno) if frames else ""


def recorded_at(stack_trace: str | None) -> str:
    """``FILE:LINE`` of the user's innermost frame in a stack that torch.export recorded; empty where there is none."""
    frames = [frame for frame in FRAME.finditer(stack_trace or "") if not is_foreign(frame["file"])]
    return _place(frames[-1]["file"], frames[-1]["line"]) if frames else ""


def refused_layer(exc: BaseException) -> str:
    """The numbers of a torch layer that refused them, as ``Conv2d(in_channels=10, groups=3)``; else empty.

    torch's own message says what must divide what, not which number is which.
    """
    end = exc.__traceback__
    while end is not None and end.tb_next is not None:
        end = end.tb_next
    return _numbers(end) if end is not None and is_foreign(end.tb_frame.f_code.co_filename) else ""


def _numbers(end: TracebackType) -> str:
    frame = end.tb_frame
    if frame.f_code.co_name != "__init__" or "self" not in frame.f_locals:
        return ""
    code = frame.f_code
    arguments = ((name, frame.f_locals.get(name)) for name in code.co_varnames[1 : code.co_argcount])
    numbers = [f"{name}={value}" for name, value in arguments if type(value) is int]
    return f"{type(frame.f_locals['self']).__name__}({', '.join(numbers)})"


def _place(file: str, line: object) -> str:
    inside = os.path.relpath(file) if os.path.isabs(file) and Path.cwd() in Path(file).parents else file
    return f"{inside}:{line}"
