"""The sections of a report, each with its table, its plot and the command that reproduces the figures."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..packages.operator_text import entry_text, layers_text
from ..profiling.result import HOW
from ..profiling.roofline import roofline
from ..text import counted
from . import plots
from .plots import Bar

if TYPE_CHECKING:
    from ..latency import Kind, Latency
    from ..profiling.result import OperatorCost, Profile
    from ..tuning.search.curve import Curve
    from ..workflow.compare import Comparison


class Column(NamedTuple):
    """``key`` heads it in the CSV, ``title`` in the page; ``digits`` are the decimals of numbers, None for words."""

    key: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """``rows`` have a value for each column: a number, words, or None for what there is not."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple, ...]

    def cells(self) -> list[list[dict]]:
        """For the page: what is read, and what is sorted by."""
        return [[_cell(value, column) for value, column in zip(row, self.columns, strict=True)] for row in self.rows]

    def csv(self) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column.key for column in self.columns)
        writer.writerows(self.rows)
        return file.getvalue()

    @property
    def link(self) -> str:
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(self.csv().encode()).decode()


def _cell(value, column: Column) -> dict:
    if value is None:
        return {"text": "", "sort": "", "number": column.digits is not None}
    if column.digits is None:
        return {"text": str(value), "sort": str(value), "number": False}
    if math.isinf(value):
        return {"text": "without end", "sort": "Infinity", "number": True}
    return {"text": f"{value:.{column.digits}f}", "sort": repr(value), "number": True}


@dataclass(frozen=True)
class Section:
    """``notes`` stand above the plot, an SVG; with ``shown``, the table is the point and seen at once. ``kind`` labels
    figures that are times."""

    name: str
    title: str
    notes: tuple[str, ...]
    table: Table | None
    command: str
    plot: str | None = None
    shown: bool = False
    kind: Kind | None = None


def latency(comparison: Comparison, command: str) -> Section:
    kind, contest = comparison.tuned.kind, comparison.contest
    error = comparison.device.model_error_percent
    own = [("ours, tuned", "tuned", comparison.tuned), ("ours, as shipped", "tuned", comparison.shipped)]
    own = [each for each in (*own, ("TVM untuned", "untuned", comparison.untuned)) if each[2] is not None]
    bars = [ranged_bar(*each, error) for each in own]
    tuned_us = comparison.tuned.median_us
    rows = [(name, None, *_numbers(found), found.median_us / tuned_us, "") for name, _, found in own]
    for entry in contest.peers if contest else ():
        ratio = entry.latency and entry.latency.median_us / comparison.tuned.median_us
        numbers = _numbers(entry.latency) if entry.latency else [None] * 4
        rows.append((entry.name, entry.version, *numbers, ratio, str(entry.failure or "")))
        bars.append(ranged_bar(entry.name, "peer", entry.latency, error))
    threads = counted(comparison.threads, "thread")
    caption = f"Latency of one inference of {comparison.model} on {comparison.device.name}, {threads}, {kind}"
    timed = [row for row in rows if row[2] is not None]
    words = f"{caption}. " + "; ".join(f"{row[0]} {row[2]:.3f} ms" for row in timed) + "."
    columns = (
        Column("name", "contestant"), Column("version", "version"), Column("median_ms", "median, ms", 3),
        Column("min_ms", "minimum, ms", 3), Column("p90_ms", "90th percentile, ms", 3), Column("samples", "samples", 0),
        Column("times_ours", "times ours", 2), Column("failure", "why it has none"),
    )  # fmt: skip
    notes = (range_note(kind, error),)
    if contest and contest.ratio:
        notes = (f"Ours is {contest.ratio:.2f} times as fast as {contest.fastest_peer.name}, the fastest peer.", *notes)
    plot = plots.latency_bars(bars, "latency", caption, words)
    return Section("latency", "Latency", notes, Table(caption, columns, tuple(rows)), command, plot, kind=kind)


RANGES = {
    "measured": "Measured: solid bars are medians, their whiskers go from the minimum to the 90th percentile of all "
    "samples.",
    "modelled": "Modelled: hatched bars are what the clock of the emulated core says; their whiskers are as wide as "
    "that clock is off on average.",
    "unknown": "Modelled: hatched bars are what the clock of the emulated core says. That core's clock is not "
    "calibrated: nobody knows how far it is off.",
}


def range_note(kind: Kind, error: float | None) -> str:
    """What bars and whiskers of a kind mean; a modelled clock is ``error`` percent off on average."""
    return RANGES["unknown" if kind == "modelled" and error is None else kind]


def ranged_bar(label: str, role: str, found: Latency | None, error: float | None) -> Bar:
    if found is None:
        return Bar(label, role)
    if found.kind == "measured":
        return Bar(label, role, found, found.min_us, found.percentile_us(90))
    if error is None:
        return Bar(label, role, found)
    return Bar(label, role, found, found.median_us * (1 - error / 100), found.median_us * (1 + error / 100))


def _numbers(found: Latency) -> list[float]:
    times = (found.median_us, found.min_us, found.percentile_us(90))
    return [*(us / 1e3 for us in times), len(found.samples_us)]


FIRST = 8  # operators whose curves are seen at once; those of the others are folded away


def tuning(curves: Sequence[Curve], profile: Profile, command: str) -> list[Section]:
    """Curves of the operators that take most time first; nothing but words where no search left a journal."""
    if not curves:
        note = "No search has left a journal of trials here for this device and number of threads: nothing to draw."
        return [Section("tuning", "Tuning", (note, "The command below searches, and leaves one."), None, command)]
    cost = {row.entry.name: row.time_us for row in profile.operators}
    ordered = sorted(curves, key=lambda curve: -cost.get(curve.operator, 0.0))
    first = list(dict.fromkeys(curve.operator for curve in ordered))[:FIRST]
    parts = ([c for c in ordered if c.operator in first], [c for c in ordered if c.operator not in first])
    titles = ("Tuning", "Tuning of the other operators")
    return [
        _tuning(part, profile, command, name, title)
        for part, name, title in zip(parts, ("tuning", "tuning-others"), titles, strict=True)
        if part
    ]


def _tuning(curves: Sequence[Curve], profile: Profile, command: str, name: str, title: str) -> Section:
    strategies = sorted({curve.strategy for curve in curves}, reverse=True)
    caption = f"Best time so far of each operator by trial, strategies: {', '.join(strategies)}; {profile.kind}"
    gains = [f"{curve.operator} ({curve.strategy}) {curve.gain:.2f}" for curve in curves if curve.gain]
    words = f"{caption}. Best against first trial, times as fast: {'; '.join(gains)}."
    rows = tuple(
        (curve.operator, curve.strategy, number, us, curve.occurrences)
        for curve in curves
        for number, us in enumerate(curve.best_us, start=1)
        if number == 1 or number == len(curve.best_us) or us != curve.best_us[number - 2]
    )
    columns = (
        Column("operator", "operator"), Column("strategy", "strategy"), Column("trial", "trial", 0),
        Column("best_us", "best so far, us", 2), Column("calls", "calls", 0),
    )  # fmt: skip
    count = sum(len(curve.best_us) for curve in curves)
    notes = (
        f"{count} trials, {sum(curve.failed for curve in curves)} of them failed. A line is the best so far; the table "
        "has the trials that were better than all before, the first and the last.",
    )
    plot = plots.tuning_curves(curves, profile.kind, name, caption, words)
    return Section(name, title, notes, Table(caption, columns, rows), command, plot, kind=profile.kind)


def roofs(profile: Profile, command: str) -> Section:
    line = roofline(profile)
    caption = f"Roofline of {profile.manifest.model} on {profile.device.name}, {profile.kind}"
    rows = tuple(
        (
            number, dot.operator, dot.macs_per_byte, dot.gmacs_per_second,
            100 * dot.gmacs_per_second / line.roofs.at(dot.macs_per_byte) if line.roofs else None,
            dot.time_us, dot.bound,
        )
        for number, dot in enumerate(line.dots, start=1)
    )  # fmt: skip
    columns = (
        Column("number", "number", 0), Column("operator", "operator"), Column("macs_per_byte", "MAC/byte", 2),
        Column("gmacs_per_second", "GMAC/s", 2), Column("percent_of_roof", "% of the roof", 0),
        Column("time_us", "us", 1), Column("bound", "bound by"),
    )  # fmt: skip
    notes = [
        "Each dot is an operator, as large as the time that all its calls take, numbered as in the table. "
        + ("Hollow dots are modelled." if profile.kind == "modelled" else "Solid dots are measured.")
    ]
    if line.roofs:
        notes.append(
            "The roof is the emulated core's own: the multiply-adds that it can do, and the lines that memory can "
            "deliver. Dots at the right edge, triangles, moved nothing to or from memory."
        )
    else:
        notes.append(
            "Nobody counts bytes on this device: each tensor counts once a call. Its peak and its memory's bandwidth "
            "are not known, so there is no roof."
        )
    if line.silent:
        notes.append(f"Without multiply-adds, and so without a dot: {', '.join(line.silent)}.")
    fastest = max(line.dots, key=lambda dot: dot.gmacs_per_second, default=None)
    words = (
        caption
        if fastest is None
        else f"{caption}. Highest: {fastest.operator}, {fastest.gmacs_per_second:.2f} GMAC/s."
    )
    plot = plots.roofline_plot(line, profile.kind, "roofline", caption, words) if line.dots else None
    return Section(
        "roofline", "Roofline", tuple(notes), Table(caption, columns, rows), command, plot, kind=profile.kind
    )


OPERATOR_COLUMNS: tuple[tuple[Column, Callable[[Profile, OperatorCost], object]], ...] = (
    (Column("operator", "operator"), lambda profile, row: row.entry.name),
    (Column("calls", "calls", 0), lambda profile, row: row.entry.occurrences),
    (Column("time_us", "us", 1), lambda profile, row: row.time_us),
    (Column("share_percent", "share, %", 1), lambda profile, row: 100 * profile.share(row)),
    (Column("multiply_adds", "mult-adds, M", 2), lambda profile, row: row.multiply_adds / 1e6),
    (Column("gmacs_per_second", "GMAC/s", 2), lambda profile, row: row.gmacs_per_second or None),
    (Column("scheduled_by", "scheduled by"), lambda profile, row: _scheduled_by(row.entry.schedule)),
)  # fmt: skip
COUNTED_COLUMNS = (
    (Column("macs_per_cycle", "MAC/cycle", 2), lambda profile, row: row.macs_per_cycle),
    (Column("percent_of_peak", "peak, %", 0), lambda profile, row: 100 * row.macs_per_cycle / profile.peak),
    (Column("l1_misses", "L1 misses, k", 1), lambda profile, row: row.work.l1_misses / 1e3),
    (Column("l2_misses", "L2 misses, k", 1), lambda profile, row: row.work.l2_misses / 1e3),
    (Column("memory_kb", "memory, KB", 1), lambda profile, row: row.work.l2_bytes / 1e3),
    (Column("bound", "bound by"), lambda profile, row: row.work.bound),
)


MEANING_COLUMNS = (
    (Column("what", "what it is"), lambda profile, row: entry_text(row.entry) if row.entry.arguments else ""),
    (Column("layers", "layers of the model"), lambda profile, row: layers_text(row.entry.layers)),
)


def _scheduled_by(schedule: str) -> str:
    return "TVM's plain loops" if schedule == "none" else schedule


def operators(profile: Profile, command: str) -> Section:
    chosen = OPERATOR_COLUMNS + (COUNTED_COLUMNS if profile.peak else ()) + MEANING_COLUMNS
    rows = tuple(tuple(value(profile, row) for _, value in chosen) for row in profile.rows)
    caption = f"Operators of {profile.manifest.model} on {profile.device.name}, {profile.kind}: {HOW[profile.kind]}"
    table = Table(caption, tuple(column for column, _ in chosen), rows)
    notes = (f"{profile.kind.capitalize()}: {HOW[profile.kind]}. A column's head sorts by it.",)
    return Section("operators", "Operators", notes, table, command, shown=True, kind=profile.kind)


def memory(profile: Profile, library_bytes: int, command: str) -> Section:
    manifest = profile.manifest
    rows = (
        ("weights", manifest.weight_bytes / 1e6, "read in every inference"),
        ("activations", manifest.activation_bytes / 1e6, "planned once, shared by operators that follow each other"),
        ("library", library_bytes / 1e6, "the .so, weights included"),
    )
    columns = (Column("what", "what"), Column("megabytes", "MB", 2), Column("note", "what it is"))
    table = Table(f"Memory that {manifest.model} needs", columns, rows)
    return Section("memory", "Memory", (), table, command, shown=True)
