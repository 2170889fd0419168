"""Contests against peers as tables for the terminal, 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..text import counted
from ..workflow.contest import OURS, Contest, Contestant, Mean
from .grid import milliseconds, new_table, print_noise

if TYPE_CHECKING:
    from rich.console import Console


def print_contest(console: Console, contest: Contest) -> None:
    """One network: latencies of everyone, what they are made of where they are modelled, and why some have none."""
    modelled = contest.device.kind == "modelled"
    threads = counted(contest.threads, "thread")
    console.print(f"{contest.model} on {contest.device.name}, {threads}")
    columns = ("ms", "Mcycles", "L1, M", "L2, M") if modelled else ("median", "min", "p90")
    table = new_table(f"{contest.device.kind}{'' if modelled else ', ms'}", "version", *columns, "x ours", left=2)
    for entry in contest.entries:
        figures = _figures(entry, modelled)
        table.add_row(entry.name, entry.version[:18], *figures, _times(entry, contest), style=_style(entry))
    console.print(table)
    if modelled:
        console.print("Mcycles: the core's own, before what cache misses cost; L1 and L2: millions of misses")
    print_noise(console, {entry.name: entry.latency and entry.latency.noise for entry in contest.entries})
    for entry in contest.entries:
        if entry.failure:
            console.print(f"{entry.name}: {entry.failure}", markup=False)
    if contest.ratio:
        errors = [entry.max_abs_err for entry in contest.entries if entry.latency]
        console.print(
            f"ours is {contest.ratio:.2f} times as fast as {contest.fastest_peer.name}, the fastest peer; largest "
            f"error against PyTorch {max(errors):.2g}, {contest.tolerance:.2g} allowed"
        )


def print_means(console: Console, contests: Sequence[Contest], means: Sequence[Mean]) -> None:
    """All networks, one line each, and the geometric mean of the ratios."""
    table = new_table("network", "device", "threads", "ours, ms", "fastest, ms", "ratio", left=2)
    for contest in contests:
        fastest, ours = contest.fastest_peer, contest.ours.latency
        table.add_row(
            contest.model.removeprefix("shufflenet_"),
            contest.device.name,
            str(contest.threads),
            *(milliseconds(ours.median_us) if ours else ["none"]),
            f"{fastest.name} {fastest.latency.median_us / 1e3:.3f}" if fastest else "none",
            f"{contest.ratio:.2f}" if contest.ratio else "",
        )
    console.print(table)
    for mean in means:
        left_out = sum((c.device.name, c.threads) == (mean.device, mean.threads) for c in contests) - len(mean.models)
        note = f", {left_out} more had no ratio" if left_out else ""
        console.print(
            f"{mean.device}, {counted(mean.threads, 'thread')}: {mean.ratio:.2f} times as fast as "
            f"the fastest peer, geometric mean of {len(mean.models)}{note}"
        )


def _figures(entry: Contestant, modelled: bool) -> list[str]:
    latency, cost = entry.latency, entry.cost
    if latency is None:
        return ["failed", *([""] * (3 if modelled else 2))]
    if not modelled:
        return milliseconds(latency.median_us, latency.min_us, latency.percentile_us(90))
    misses = (f"{cost[name] / 1e6:.2f}" for name in ("l1_misses", "l2_misses"))
    return [*milliseconds(latency.median_us), f"{cost['core_cycles'] / 1e6:.1f}", *misses]


def _style(entry: Contestant) -> str:
    """Seen on a terminal only: ours, and who has no latency."""
    return "red" if entry.failure else "bold" if entry.name == OURS else ""


def _times(entry: Contestant, contest: Contest) -> str:
    if entry.latency is None or contest.ours.latency is None:
        return ""
    return f"{entry.latency.median_us / contest.ours.latency.median_us:.2f}"
