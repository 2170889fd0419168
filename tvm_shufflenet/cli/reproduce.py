"""The command ``reproduce``: repeat experiments of the papers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import BadInput
from .command import Command
from .options import device_options, json_option, natural, positive, records_option
from .output import announcer, console_of, given, report, typed, write_json, write_page
from .subjects import device_of, records_of


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "table",
        metavar="TABLE",
        help="of ShuffleNet v1: table8 (latency), groups, shuffle; of v2: g1, g2, g3, g4 (its guidelines), networks",
    )
    parser.add_argument("--target", metavar="T", help="see tvm-shufflenet targets (the device's own, or arm64)")
    device_options(parser)
    parser.add_argument("--sizes", metavar="HxW,...", help="input sizes, or all of the table's (its first)")
    parser.add_argument(
        "--trials",
        type=natural,
        metavar="N",
        help="first search with so many trials for each operator (16 for g1 to g4, else 0)",
    )
    parser.add_argument("--repeat", type=positive, default=10, metavar="N", help="samples (10)")
    records_option(parser)
    json_option(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report with plots")


def run(options) -> None:
    from ..experiments.catalogue import find_experiment
    from ..hardware.targets import find_target, targets

    known, chosen = targets(), options.target or _target_of(options.device)
    if chosen not in known:
        find_target(chosen)  # raises, before anything heavy is imported
    experiment = find_experiment(options.table)
    experiment = experiment.at(_sizes(options.sizes, experiment))
    device = device_of(options, known[chosen])
    target = find_target(chosen)
    console = console_of(options)
    console.print(f"device: {device.describe()}")
    from ..experiments.run import run
    from ..report.documents import ReproductionDocument
    from ..report.reproduction import print_reproduction

    trials = experiment.trials if options.trials is None else options.trials
    store = records_of(options, target, console, must_exist=not trials)
    with device:
        results = run(
            experiment, target, device, store, threads=options.threads, repeats=options.repeat, trials=trials,
            announce=announcer(console),
            on_row=lambda results: write_json(options, ReproductionDocument.of(results)),
        )  # fmt: skip
    report(options, ReproductionDocument.of(results), lambda console: print_reproduction(console, results))
    if options.html is not None:
        from ..report.reproduction_page import reproduction_page

        words = given({"--target": target.name, "--device": device.spec, "--threads": options.threads})
        words += given({"--sizes": options.sizes, "--records": options.records, "--repeat": options.repeat})
        words += given({"--trials": options.trials})
        page = reproduction_page(results, typed("reproduce", options.table, *words, "--html", options.html.name))
        write_page(page, options, console)
    failed = [row.failure for row in results.rows if row.failure]
    if failed:
        raise failed[0]


def _target_of(device: str | None) -> str:
    """The target for code of a device, where none is named: that of its own name, if there is one."""
    from ..hardware.targets import targets

    name = (device or "").removeprefix("emulated:")
    return name if name in targets() else "arm64"


def _sizes(text: str | None, experiment) -> list[tuple[int, int]]:
    if text is None:
        return experiment.sizes[:1]
    if text == "all":
        return experiment.sizes
    try:
        pairs = [word.split("x") for word in text.split(",")]
        return [(int(height), int(width)) for height, width in pairs]
    except ValueError as exc:
        raise BadInput(f"'{text}' is no list of sizes", "", "write HxW,HxW or all") from exc


COMMAND = Command("reproduce", "make an experiment of the papers again, beside the paper's figures", add_options, run)
