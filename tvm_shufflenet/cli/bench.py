"""The command ``bench``: time a package."""

from __future__ import annotations

import argparse

from .command import Command
from .options import device_options, json_option, natural, package_argument, positive
from .output import console_of, report
from .subjects import package_and_device


def add_options(parser: argparse.ArgumentParser) -> None:
    package_argument(parser)
    device_options(parser)
    parser.add_argument("--warmup", type=natural, default=5, metavar="N", help="untimed runs first (5)")
    parser.add_argument("--repeat", type=positive, default=30, metavar="N", help="samples (30)")
    json_option(parser)


def run(options) -> None:
    from ..report.documents import BenchDocument
    from ..report.tables import print_bench

    package, device = package_and_device(options)
    from ..workflow.bench import bench_package

    with device:
        console_of(options).print(f"device: {device.describe()}")
        result = bench_package(package, device, options.threads, options.warmup, options.repeat)
    report(options, BenchDocument.of(result), lambda console: print_bench(console, result))


COMMAND = Command("bench", "time a package on a device", add_options, run, without_torch=True)
