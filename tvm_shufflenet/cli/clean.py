"""The command ``clean``: remove caches and what interrupted runs left."""

from __future__ import annotations

import argparse

from .command import Command
from .options import json_option
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only show them, with their sizes")
    json_option(parser)


def run(options) -> None:
    from ..report.host_documents import CleanDocument
    from ..report.tables import print_remnants
    from ..workflow.cleaning import remnants, remove

    found = remnants()
    left = found if options.dry_run else [remove(remnant) for remnant in found]
    removed = sum(remnant.bytes for remnant in found) - sum(remnant.bytes for remnant in left)
    document = CleanDocument.of(found, removed)
    report(options, document, lambda console: print_remnants(console, found, left, options.dry_run))


COMMAND = Command("clean", "remove caches, and what killed runs left", add_options, run, without_torch=True)
