"""The command ``inspect``: show the contents of a package."""

from __future__ import annotations

import argparse

from .command import Command
from .options import json_option, package_argument
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    package_argument(parser)
    json_option(parser)


def run(options) -> None:
    from ..packages.package import Package
    from ..report.inspection import facts_of, print_inspection

    package = Package(options.package)
    facts = facts_of(package)
    report(options, facts, lambda console: print_inspection(console, facts, package))


COMMAND = Command("inspect", "check a package and show what is in it", add_options, run, without_torch=True)
