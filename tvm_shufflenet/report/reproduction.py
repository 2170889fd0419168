"""A paper's experiment for the terminal, 80 columns wide: ours beside the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..experiments.catalogue import size_name
from .tables import _table

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiments.results import Results, Row


def print_reproduction(console: Console, results: Results) -> None:
    experiment, kind = results.experiment, results.device["kind"]
    threads = f"{results.threads} thread{'s' if results.threads > 1 else ''}"
    console.print(f"{experiment.title}: {experiment.source}\non {results.device['name']}, {threads}, {kind}")
    for size in experiment.sizes:
        rows = [row for row in results.rows if row.case.size == size]
        console.print(_at_size(results, rows, size_name(size)))
    other = "TVM: its untuned code" if experiment.untuned else f"paper: {experiment.paper_device or 'no times'}"
    console.print(f"ours: {kind}, ms; {other}; madds: as multiply-adds alone would allow")
    against = list(dict.fromkeys(row.case.against for row in results.rows if row.case.against))
    console.print(f"x: times as fast as {'; '.join(against)}")
    for row in results.rows:
        if row.failure:
            console.print(f"{row.case.label}, {size_name(row.case.size)}: {row.failure}", markup=False)
    for line in findings(results):
        console.print(line)


def _at_size(results: Results, rows: list[Row], size: str):
    untuned = results.experiment.untuned
    other = "TVM" if untuned else "paper"
    table = _table(size, "M madds", "ours", other, "x ours", f"x {other}", "x madds")
    for row in rows:
        speedups = results.speedups(row)
        other_ms = (row.untuned and row.untuned.median_us / 1e3) if untuned else row.case.paper_ms
        table.add_row(
            row.case.label,
            _number(row.multiply_adds and row.multiply_adds / 1e6, 1),
            "failed" if row.failure else _number(row.latency.median_us / 1e3, 3),
            _number(other_ms, 1),
            _number(speedups.ours, 2),
            _number(speedups.untuned if untuned else speedups.paper, 2),
            _number(speedups.theory, 2),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def findings(results: Results) -> list[str]:
    """What the figures say, in words that they make themselves."""
    said = []
    for row in results.rows:
        other = next(
            (o for o in results.rows if (o.case.label, o.case.size) == (row.case.against, row.case.size)), None
        )
        if results.experiment.name != "shuffle" or other is None or not (row.latency and other.latency):
            continue
        ours = 100 * (row.latency.median_us / other.latency.median_us - 1)
        stock = 100 * (row.untuned.median_us / other.untuned.median_us - 1)
        said.append(f"{row.case.label}: {ours:+.1f} % once it is fused, {stock:+.1f} % in TVM untuned")
    return said
