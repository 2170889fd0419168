"""A hook of mkdocs: the page of commands is the parser's own help, command by command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_facts) -> str:
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown


def commands() -> str:
    os.environ["COLUMNS"] = "100"  # argparse wraps at the terminal's width
    os.environ["NO_COLOR"] = "1"
    from tvm_shufflenet.cli import main

    return "\n\n".join(
        f"## {name}\n\n```text\n{parser.format_help().strip()}\n```" for name, parser in _commands(main.parser())
    )


def _commands(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command and, of those that have actions, each action."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield prefix + name, sub
                yield from _commands(sub, f"{prefix}{name} ")
