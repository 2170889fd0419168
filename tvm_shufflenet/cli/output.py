"""Prints the result of a command, or writes it as JSON."""

from __future__ import annotations

import json
import shlex
import sys

from ..errors import BadInput
from ..text import counted


def console_of(options):
    """Where people's text goes: standard error when standard output carries JSON."""
    from rich.console import Console

    # No markup: names of files, devices and operators may hold brackets.
    to_stderr, wraps = getattr(options, "json", None) == "-", not sys.stdout.isatty()
    return Console(stderr=to_stderr, highlight=False, markup=False, emoji=False, soft_wrap=wraps)


def announcer(console):
    """What says on the console, in passing, what a long command does next."""
    return lambda text: console.print(text, markup=False, style="dim")


def say_notes(console, model) -> None:
    """What was decided about the model for the user."""
    for note in model.notes:
        console.print(note, markup=False)


def report(options, facts, show) -> None:
    """Print for people, and write the same facts where --json says."""
    show(console_of(options))
    write_json(options, facts, last=True)


def write_json(options, document, last: bool = False) -> None:
    """A struct or a dict where --json says; on standard output only the ``last``."""
    if options.json is None:
        return
    import msgspec

    from ..support.files import write_output

    facts = msgspec.to_builtins(document)
    if options.json == "-":
        if last:
            json.dump(facts, sys.stdout, indent=2)
            print()
    else:
        try:
            write_output(options.json, (json.dumps(facts, indent=2) + "\n").encode())
        except OSError as exc:
            raise BadInput(f"cannot write {options.json}", str(exc), "name another --json file") from exc


def write_page(page, options, console) -> None:
    files = page.write(options.html)
    tables = counted(len(files) - 1, "CSV file")
    console.print(f"report: {options.html}, and {tables} beside it", markup=False)


def typed(*words: str) -> str:
    """A command of ours as it is typed in a shell."""
    return shlex.join(["tvm-shufflenet", *words])


def given(options: dict[str, object]) -> list[str]:
    """The words of those options that have a value."""
    return [str(word) for name, value in options.items() if value is not None for word in (name, value)]
