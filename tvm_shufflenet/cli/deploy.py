"""The command ``deploy``: copy a package to a device without TVM and measure it there."""

from __future__ import annotations

import argparse

from .command import Command
from .options import json_option, natural, package_argument, positive
from .output import console_of, report


def add_options(parser: argparse.ArgumentParser) -> None:
    package_argument(parser)
    parser.add_argument("--to", required=True, metavar="WHERE", help="adb[:SERIAL] or ssh://USER@HOST[:PORT]/DIR")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads to use there (1)")
    parser.add_argument("--affinity", metavar="LIST", help="CPUs to bind them to, as 0,2-3 (where the kernel likes)")
    parser.add_argument("--warmup", type=natural, default=5, metavar="N", help="untimed runs first (5)")
    parser.add_argument("--repeat", type=positive, default=30, metavar="N", help="samples (30)")
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="K=V", help="an option for ssh, as of ssh -o"
    )
    json_option(parser)


def run(options) -> None:
    from ..deploy.deployment import Settings, deploy
    from ..packages.package import Package
    from ..report.documents import DeployedDocument
    from ..report.tables import print_deployed
    from ..transport import find_remote

    package = Package(options.package)
    remote = find_remote(options.to, package.manifest.model, options.ssh_option)
    settings = Settings(options.threads, options.warmup, options.repeat, options.affinity)
    console = console_of(options)
    result = deploy(package, remote, settings, lambda line: console.print(line, markup=False))
    report(options, DeployedDocument.of(result), lambda console: print_deployed(console, result))


COMMAND = Command(
    "deploy", "copy a package to a device and measure it there, without TVM", add_options, run, without_torch=True
)
