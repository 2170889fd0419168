"""A paper's experiment for the terminal, 80 columns wide: ours beside the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..experiments.catalogue import size_name
from ..experiments.findings import findings
from ..text import counted
from .grid import new_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiments.results import Results, Row


def print_reproduction(console: Console, results: Results) -> None:
    experiment, kind = results.experiment, results.device.kind
    threads = counted(results.threads, "thread")
    console.print(f"{experiment.title}: {experiment.source}\non {results.device.name}, {threads}, {kind}")
    for size in experiment.sizes:
        rows = [row for row in results.rows if row.case.size == size]
        console.print(_at_size(results, rows, size_name(size)))
    others = {"TVM": "TVM: its untuned code; ", "paper": f"paper: {experiment.paper_device}; ", None: ""}
    console.print(f"ours: {kind}, ms; {others[_other(results)]}x madds: as multiply-adds alone would allow")
    console.print(f"x: times as fast as {experiment.over}")
    for note in experiment.notes:
        console.print(f"note: {note}")
    for row in results.rows:
        if row.failure:
            console.print(f"{row.case.label}, {size_name(row.case.size)}: {row.failure}", markup=False)
    for line in findings(results):
        console.print(line, markup=False)


def _at_size(results: Results, rows: list[Row], size: str):
    other = _other(results)
    beside = [[other], [f"x {other}"]] if other else [[], []]
    table = new_table(size, "M madds", "ours", *beside[0], "x ours", *beside[1], "x madds")
    for row in rows:
        speedups = results.speedups(row)
        if other == "TVM":
            ms, ratio = row.untuned and row.untuned.median_us / 1e3, speedups.untuned
        else:
            ms, ratio = row.case.paper_ms, speedups.paper
        table.add_row(
            row.case.label,
            _number(row.multiply_adds and row.multiply_adds / 1e6, 1),
            "failed" if row.failure else _number(row.latency.median_us / 1e3, 3),
            *([_number(ms, 1)] if other else []),
            _number(speedups.ours, 2),
            *([_number(ratio, 2)] if other else []),
            _number(speedups.theory, 2),
        )
    return table


def _other(results: Results) -> str | None:
    """Whose times stand beside ours: TVM's untuned code, the paper's, or nobody's."""
    if results.experiment.untuned:
        return "TVM"
    return "paper" if results.experiment.paper_device else None


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
