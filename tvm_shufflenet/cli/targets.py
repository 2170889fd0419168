"""The command ``targets``: list targets and modelled cores."""

from __future__ import annotations

import argparse

from .command import Command
from .options import json_option
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    json_option(parser)


def run(options) -> None:
    from ..hardware.boards import BOARDS
    from ..hardware.targets import targets
    from ..report.host_documents import TargetsDocument
    from ..report.tables import print_targets

    known = targets().values()
    report(options, TargetsDocument.of(known, BOARDS.values()), lambda console: print_targets(console, known))


COMMAND = Command("targets", "list the target presets", add_options, run)
