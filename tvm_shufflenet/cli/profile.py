"""The command ``profile``: the cost of every operator."""

from __future__ import annotations

import argparse

from .command import Command
from .options import device_options, json_option, package_argument
from .output import console_of, report
from .subjects import package_and_device


def add_options(parser: argparse.ArgumentParser) -> None:
    package_argument(parser)
    device_options(parser)
    parser.add_argument("--asm", action="store_true", help="also the hottest loop of the hottest operator, as assembly")
    parser.add_argument(
        "--asm-of", action="append", default=[], metavar="OPERATOR", help="the hottest loop of this one instead"
    )
    json_option(parser)


def run(options) -> None:
    from ..report.documents import ProfileDocument
    from ..report.profile import print_profile

    package, device = package_and_device(options)
    from ..workflow.profile import profile_package

    with device:
        console_of(options).print(f"device: {device.describe()}")
        result = profile_package(package, device, options.threads, options.asm, options.asm_of)
    report(options, ProfileDocument.of(result), lambda console: print_profile(console, result))


COMMAND = Command(
    "profile", "show what each operator of a package costs on a device", add_options, run, without_torch=True
)
