"""List the targets and modelled cores."""

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
    from ..report.tables import print_targets

    presets = [target.to_json() for target in targets().values()]
    cores = [
        {"name": c.name, "clock_ghz": c.clock_ghz, "source": f"{c.source}; {c.core.source}"} for c in BOARDS.values()
    ]
    report(options, {"schema": 1, "targets": presets, "cores": cores}, lambda c: print_targets(c, targets().values()))


COMMAND = Command("targets", "list the target presets", add_options, run)
