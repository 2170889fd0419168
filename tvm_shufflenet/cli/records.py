"""The command ``records``: maintain folders of tuning records."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import BadInput
from .command import Command, add_parser
from .options import json_option, positive
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run, text: str, folders: str | None = "+") -> argparse.ArgumentParser:
        sub = add_parser(actions, name, text, run)
        sub.add_argument("folders", nargs=folders, type=Path, metavar="DIR", help="such as tuning_logs/<target>")
        json_option(sub)
        return sub

    action("list", _list, "what is in folders: targets, clocks, threads, TVM versions, failures")
    action("best", _best, "the best record of each workload")
    merge = action("merge", _merge, "put the records of several folders into one")
    merge.add_argument("--into", type=Path, required=True, metavar="DIR", help="a folder, made if it is not there")
    prune = action("prune", _prune, "drop damaged lines and duplicates; what was there is kept as NAME~")
    prune.add_argument("--keep", type=positive, metavar="N", help="also all but the N fastest of each workload")
    action("verify", _verify, "check every line, and that every schedule applies; exit code 2 where not")


def _list(options) -> None:
    from ..report.records import print_summary
    from ..tuning.records import upkeep

    rows = []
    for folder in map(upkeep.open_folder, options.folders):
        groups, failed = upkeep.summary(folder), dict(upkeep.failures(folder))
        rows.append(
            {
                "folder": str(folder.path),
                "groups": groups,
                "failed": failed,
                "skipped": folder.skipped,
            }
        )
    report(options, {"schema": 1, "folders": rows}, lambda console: print_summary(console, rows))


def _best(options) -> None:
    from ..report.records import print_fastest
    from ..tuning.records import upkeep

    rows = [row for folder in map(upkeep.open_folder, options.folders) for row in upkeep.fastest(folder)]
    report(options, {"schema": 1, "records": rows}, lambda console: print_fastest(console, rows))


def _merge(options) -> None:
    import msgspec

    from ..tuning.records import upkeep

    changes = upkeep.merge(options.folders, options.into)
    text = f"{options.into}: {changes.records} records and {changes.trials} failed trials added"
    report(options, {"schema": 1, **msgspec.to_builtins(changes)}, lambda console: console.print(text, markup=False))


def _prune(options) -> None:
    from ..tuning.records import upkeep

    changes = {str(folder): upkeep.prune(folder, options.keep) for folder in options.folders}
    facts = {"schema": 1, "folders": changes}

    def show(console) -> None:
        for folder, each in changes.items():
            text = f"{folder}: {each.records} records, {each.trials} trials, {each.lines} damaged lines dropped"
            console.print(text, markup=False)

    report(options, facts, show)


def _verify(options) -> None:
    from ..report.progress import CountingProgress
    from ..tuning.records import upkeep

    bad = {}
    for folder in options.folders:
        with CountingProgress("applying schedules") as progress:
            bad[str(folder)] = upkeep.verify(upkeep.open_folder(folder), progress)
    facts = {"schema": 1, "folders": bad}

    def show(console) -> None:
        for folder, lines in bad.items():
            for line in lines:
                console.print(f"{folder}/{line}", markup=False)
            console.print(f"{folder}: {len(lines) or 'no'} bad lines", markup=False)

    report(options, facts, show)
    damaged = [folder for folder, lines in bad.items() if lines]
    if damaged:
        raise BadInput(
            f"{sum(map(len, bad.values()))} lines of records cannot be used",
            "they were cut short, edited or damaged, or are of another version",
            f"tvm-shufflenet records prune {' '.join(damaged)}",
        )


COMMAND = Command("records", "look after folders of tuning records", add_options, None, without_torch=True)
