"""The type of a command: what the parser and ``main`` need to know of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from ..support import interrupts


@dataclass(frozen=True)
class Command:
    """One word after ``tvm-shufflenet``.

    ``options`` adds its options to a parser, ``run`` does it: it is None where each of its actions sets its own.
    ``writes`` are the options that name files, which are refused beforehand where nothing can be written to them.
    A command that goes ``without_torch`` starts a third sooner. ``interrupted`` says what an interrupt leaves behind.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None] | None
    writes: tuple[str, ...] = ("json", "html")
    without_torch: bool = False
    interrupted: str = interrupts.MESSAGE


def add_parser(commands, name: str, text: str, run) -> argparse.ArgumentParser:
    """The parser of a command, or of an action of one."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser
