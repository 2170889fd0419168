"""The report of ``reproduce --html``: an experiment of a paper on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..experiments.catalogue import size_name
from ..experiments.findings import findings
from ..latency import Latency
from . import plots
from .facts import setting_facts
from .page import Page
from .plots import Bar
from .sections import Column, Section, Table, range_note, ranged_bar

if TYPE_CHECKING:
    from ..experiments.catalogue import Size
    from ..experiments.results import Results, Row


def reproduction_page(results: Results, command: str) -> Page:
    experiment = results.experiment
    timed = [row for row in results.rows if row.latency]
    plan = "\n\n".join(row.manifest.plan for row in timed)
    sections = [_at_size(results, size, command) for size in experiment.sizes]
    facts = (
        ("experiment", experiment.source),
        ("the paper's device", experiment.paper_device or "it printed no times"),
        *setting_facts(results.device, results.target, results.threads),
    )
    headline = f"{len(timed)} of {len(results.rows)} networks, {results.device.kind}, checked against PyTorch"
    return Page(f"{experiment.title}, on {results.device.name}", headline, facts, plan, (*sections,))


COLUMNS = (
    Column("network", "network"), Column("multiply_adds_m", "mult-adds, M", 1),
    Column("paper_multiply_adds_m", "paper's, M", 0), Column("ours_ms", "ours, ms", 3),
    Column("limit_ms", "at least, ms", 3),
    Column("paper_ms", "paper's, ms", 1), Column("untuned_ms", "TVM untuned, ms", 3),
    Column("speedup", "times as fast, ours", 2), Column("paper_speedup", "paper's", 2),
    Column("theoretical_speedup", "by mult-adds", 2), Column("untuned_speedup", "TVM untuned", 2),
    Column("against", "than"), Column("without_record", "operators without a record", 0), Column("failure", "why none"),
)  # fmt: skip


def _at_size(results: Results, size: Size, command: str) -> Section:
    experiment, kind = results.experiment, results.device.kind
    rows = [row for row in results.rows if row.case.size == size]
    name = f"at-{size_name(size)}"
    caption = f"{experiment.title} at {size_name(size)}: {experiment.source}; ours on {results.device.name}, {kind}"
    words = "; ".join(f"{row.case.label} {row.latency.median_us / 1e3:.3f} ms" for row in rows if row.latency)
    notes = [range_note(kind, results.device.model_error_percent)]
    if experiment.paper_device:
        notes.append(f"The paper's bars were measured by its authors on {experiment.paper_device}: another device.")
    notes += [*experiment.notes, *findings(results)]
    plot = plots.latency_bars(_bars(results, rows), name, caption, f"{caption}. {words}.")
    table = _without_empty(Table(caption, COLUMNS, tuple(_cells(results, row) for row in rows)))
    return Section(name, size_name(size), tuple(notes), table, command, plot, shown=True, kind=kind)


def _bars(results: Results, rows: list[Row]) -> list[Bar]:
    bars = []
    for row in rows:
        error = results.device.model_error_percent
        bars.append(ranged_bar(row.case.label, "tuned", row.latency, error))
        if row.untuned:
            bars.append(ranged_bar("TVM untuned", "untuned", row.untuned, error))
        if row.case.paper_ms:
            bars.append(Bar("the paper's", "peer", Latency((1e3 * row.case.paper_ms,), "measured"), digits=1))
    return bars


def _cells(results: Results, row: Row) -> tuple:
    speedups = results.speedups(row)
    return (
        row.case.label, row.multiply_adds and row.multiply_adds / 1e6, row.case.paper_macs_m,
        row.latency and row.latency.median_us / 1e3, row.limit_us and row.limit_us / 1e3,
        row.case.paper_ms, row.untuned and row.untuned.median_us / 1e3,
        speedups.ours, speedups.paper, speedups.theory, speedups.untuned, row.case.against,
        sum(count for schedule, count in row.scheduled_by.items() if schedule != "record"),
        str(row.failure) if row.failure else None,
    )  # fmt: skip


def _without_empty(table: Table) -> Table:
    """Without the columns in which no row has anything."""
    kept = [index for index in range(len(table.columns)) if any(row[index] is not None for row in table.rows)]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    return Table(table.caption, tuple(table.columns[index] for index in kept), rows)
