"""A hook of mkdocs: the page of commands is the parser's own help, command by command."""

from __future__ import annotations

import argparse
import os

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_facts) -> str:
    return markdown.replace(PLACE, commands()) if PLACE in markdown else markdown


def commands() -> str:
    os.environ["COLUMNS"] = "100"  # argparse wraps at the terminal's width
    os.environ["NO_COLOR"] = "1"
    from tvm_shufflenet.cli import _parser

    (choices,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return "\n\n".join(f"## {name}\n\n```text\n{parser.format_help().strip()}\n```" for name, parser in choices.items())
