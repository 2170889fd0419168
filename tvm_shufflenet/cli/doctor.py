"""The command ``doctor``: what is installed, and how to install the rest."""

from __future__ import annotations

import argparse

from .command import Command
from .options import device_options, json_option
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="T", help="only what this target needs, such as local")
    device_options(parser, threads=False)
    json_option(parser)


def run(options) -> None:
    from ..report.host_documents import DoctorDocument
    from ..report.tables import print_abilities, print_requirements
    from ..workflow.doctor import abilities, examine, install_commands

    requirements = examine(options.device, options.target)
    able, commands = abilities(requirements), install_commands(requirements)

    def show(console) -> None:
        print_requirements(console, requirements)
        print_abilities(console, able, commands)

    report(options, DoctorDocument.of(requirements, able, commands), show)
    missing = [each.error for each in requirements if each.required and each.error]
    if missing:
        raise missing[0]


COMMAND = Command("doctor", "show what is present and missing, and the command that installs it", add_options, run)
