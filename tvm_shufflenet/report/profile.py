"""A profile as a table for the terminal, 80 columns wide, and the assembly of hot loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ..profiling.result import HOW
from .tables import print_noise, print_unmodelled

if TYPE_CHECKING:
    from rich.console import Console

    from ..profiling.result import HotLoop, OperatorCost, Profile

HOT = 0.1  # shares of the whole that stand out
COUNTED_WIDTH, TIMED_WIDTH = 66, 54  # columns that the numbers take, the rest is for names
NAMED = 6  # operators that one line names


def print_profile(console: Console, profile: Profile) -> None:
    threads = f"{profile.threads} thread{'s' if profile.threads > 1 else ''}"
    console.print(f"{profile.manifest.model} on {profile.device['name']}, {threads}")
    console.print(f"{profile.kind}: {HOW[profile.kind]}")
    make = _counted if profile.peak else _timed
    console.print(make(profile, console.width))
    _print_sum(console, profile)
    print_noise(console, {"the whole network": profile.latency.noise})
    _print_plain(console, profile)
    for loop in profile.assembly:
        _print_loop(console, loop, profile.core_peak)
    console.print(f"largest error against PyTorch {profile.max_abs_err:.2g}, {profile.manifest.tolerance:.2g} allowed")


def _counted(profile: Profile, width: int) -> Table:
    table = _table(
        width - COUNTED_WIDTH,
        profile.kind,
        "n",
        "us",
        "share",
        "kcycles",
        "MAC/cy",
        "peak",
        "L1 k",
        "L2 k",
        "MB",
        "bound by",
    )
    table.columns[-1].justify = "left"
    for row in profile.rows:
        work, macs = row.work, row.multiply_adds
        table.add_row(
            *_first_columns(profile, row),
            f"{work.cycles / 1e3:.0f}",
            f"{row.macs_per_cycle:.2f}" if macs else "",
            f"{100 * row.macs_per_cycle / profile.peak:.0f} %" if macs else "",
            _short(work.l1_misses / 1e3, 1),
            _short(work.l2_misses / 1e3, 1),
            _short((work.l1_bytes + work.l2_bytes) / 1e6, 2),
            work.bound,
            style=_style(profile, row),
        )
    return table


def _timed(profile: Profile, width: int) -> Table:
    table = _table(width - TIMED_WIDTH, profile.kind, "n", "us", "share", "us a call", "GMAC/s", "scheduled by")
    table.columns[-1].justify = "left"
    for row in profile.rows:
        table.add_row(
            *_first_columns(profile, row),
            f"{row.time_us / row.entry.occurrences:.1f}",
            f"{row.gmacs_per_second:.1f}" if row.multiply_adds else "",
            {"none": "TVM"}.get(row.entry.schedule, row.entry.schedule),
            style=_style(profile, row),
        )
    return table


def _table(name_width: int, *columns: str) -> Table:
    """The first column is names, cut where they are long (the JSON has them whole), the others are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column(columns[0], max_width=name_width, no_wrap=True, overflow="ellipsis")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _short(number: float, digits: int) -> str:
    """Without decimals where they would cost more room than they say."""
    return f"{number:.{digits if number < 100 else 0}f}"


def _first_columns(profile: Profile, row: OperatorCost) -> list[str]:
    calls = "" if row is profile.runtime else str(row.entry.occurrences)
    time = f"{row.time_us:.{0 if row.time_us > 1e5 else 1}f}"
    return [row.entry.name.removeprefix("fused_"), calls, time, f"{100 * profile.share(row):.1f} %"]


def _style(profile: Profile, row: OperatorCost) -> str:
    """Seen on a terminal only: what is not ours, what is hot, what is not the network's."""
    if row is profile.runtime:
        return "dim"
    if row.entry.schedule == "none":
        return "yellow"
    return "bold" if profile.share(row) >= HOT else ""


def _print_sum(console: Console, profile: Profile) -> None:
    whole = f"{profile.latency.median_us / 1e3:.3f} ms ({profile.kind})"
    if not profile.peak:
        console.print(f"sum of the operators {profile.sum_us / 1e3:.3f} ms, the whole network {whole}")
        return
    cycles = sum(row.work.cycles for row in profile.rows)
    macs = sum(row.multiply_adds for row in profile.rows)
    console.print(
        f"the whole network {whole}, {macs / cycles:.2f} of {profile.peak} multiply-adds a cycle\n"
        "MAC/cy: multiply-adds a cycle; L1 k, L2 k: thousands of misses; MB: cache lines\n"
        "between L1 and L2 and between L2 and memory; runtime: TVM's and the C library"
    )
    error = profile.device["model_error_percent"]
    quality = "not calibrated" if error is None else f"about {error:.0f} % off on average"
    console.print(f"modelled: the clock of the emulated core is a model, {quality}")
    print_unmodelled(console, profile.cost)


def _print_plain(console: Console, profile: Profile) -> None:
    """Operators without a schedule of ours: what stands between our operators and could not be fused into them."""
    plain = profile.plain
    if not plain:
        console.print("every operator is scheduled by a template or a record")
        return
    if len(plain) == len(profile.operators):
        console.print("none of these operators is ours: all are TVM's plain loops")
        return
    names = ", ".join(row.entry.name for row in plain[:NAMED])
    more = f" and {len(plain) - NAMED} more" if len(plain) > NAMED else ""
    share = sum(map(profile.share, plain))
    console.print(
        f"not ours, TVM's plain loops: {names}{more}; they cost {profile.plain_us:.1f} us, {100 * share:.1f} %",
        markup=False,
    )


def _print_loop(console: Console, loop: HotLoop, peak: int) -> None:
    console.print(
        f"\nhottest loop of {loop.operator}: {loop.cycles / 1e3:.0f} kcycles, {100 * loop.share_of_operator:.0f} % of "
        f"it, {loop.multiply_adds_per_cycle:.2f} of {peak} multiply-adds a cycle, bound by {loop.bound}",
        markup=False,
    )
    for block in loop.blocks:
        console.print(f"{block.runs} runs, {block.cycles / block.runs:.1f} cycles each", markup=False)
        for index, text in enumerate(block.instructions):
            console.print(f"  {block.address + 4 * index:8x}  {text}", markup=False)
    if loop.left_out:
        console.print(f"{loop.left_out} more blocks of it take less than 1 % each")
