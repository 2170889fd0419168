"""A profile as a table for the terminal, 80 columns wide, and the assembly of hot loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich import box
from rich.table import Table

from ..packages.operator_text import entry_text, layers_text
from ..profiling.result import HOW
from ..text import counted
from .grid import print_noise, print_unmodelled

if TYPE_CHECKING:
    from rich.console import Console

    from ..profiling.result import HotLoop, OperatorCost, Profile

HOT = 0.1  # shares of the whole that stand out
NAMED = 6  # operators that one line names


def print_profile(console: Console, profile: Profile) -> None:
    threads = counted(profile.threads, "thread")
    console.print(f"{profile.manifest.model} on {profile.device.name}, {threads}")
    console.print(f"{profile.kind}: {HOW[profile.kind]}")
    console.print(_rows(profile, console.width))
    console.print(_meanings(profile))
    _print_sum(console, profile)
    print_noise(console, {"the whole network": profile.latency.noise})
    _print_plain(console, profile)
    for loop in profile.assembly:
        _print_loop(console, loop, profile.core_peak)
    console.print(f"largest error against PyTorch {profile.max_abs_err:.2g}, {profile.manifest.tolerance:.2g} allowed")


class Column(NamedTuple):
    """A column of numbers or words. Where the console is narrow, those of the highest ``rank`` are left out first."""

    title: str
    cell: Callable[[Profile, OperatorCost], str]
    rank: int = 0
    justify: Literal["left", "right"] = "right"


TIMES = (
    Column("n", lambda profile, row: "" if row is profile.runtime else str(row.entry.occurrences)),
    Column("us", lambda profile, row: f"{row.time_us:.{0 if row.time_us > 1e5 else 1}f}"),
    Column("share", lambda profile, row: f"{100 * profile.share(row):.1f} %"),
)
COUNTED = (
    *TIMES,
    Column("kcycles", lambda profile, row: f"{row.work.cycles / 1e3:.0f}", 3),
    Column("MAC/cy", lambda profile, row: f"{row.macs_per_cycle:.2f}" if row.multiply_adds else ""),
    Column("peak", lambda profile, row: _of_peak(profile, row) if row.multiply_adds else "", 2),
    Column("L1 k", lambda profile, row: _short(row.work.l1_misses / 1e3, 1), 4),
    Column("L2 k", lambda profile, row: _short(row.work.l2_misses / 1e3, 1), 4),
    Column("MB", lambda profile, row: _short((row.work.l1_bytes + row.work.l2_bytes) / 1e6, 2), 3),
    Column("bound by", lambda profile, row: row.work.bound, 1, "left"),
)
TIMED = (
    *TIMES,
    Column("us a call", lambda profile, row: f"{row.time_us / row.entry.occurrences:.1f}", 3),
    Column("GMAC/s", lambda profile, row: f"{row.gmacs_per_second:.1f}" if row.multiply_adds else "", 2),
    Column("scheduled by", lambda profile, row: {"none": "TVM"}.get(row.entry.schedule, row.entry.schedule), 1, "left"),
)
NAME, LEAST_NAME = 24, 14  # columns for an operator's name, at most and at least


def _rows(profile: Profile, width: int) -> Table:
    """As many columns as there is room for beside the operators' names, which are cut where they are long: the JSON has
    all of it."""
    columns = list(COUNTED if profile.peak else TIMED)
    while _width(profile, columns) + LEAST_NAME > width and any(column.rank for column in columns):
        columns.remove(max(columns, key=lambda column: column.rank))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    room = max(LEAST_NAME, min(NAME, width - _width(profile, columns)))
    table.add_column(profile.kind, max_width=room, no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column.title, justify=column.justify, no_wrap=True)
    for row in profile.rows:
        cells = [column.cell(profile, row) for column in columns]
        table.add_row(row.entry.name.removeprefix("fused_"), *cells, style=_style(profile, row))
    return table


def _meanings(profile: Profile) -> Table:
    """What each operator is, for those who know the network by its layers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("operator", "what it is", "layers of the model"):
        table.add_column(title, overflow="fold")
    for row in profile.operators:
        entry = row.entry
        table.add_row(entry.name.removeprefix("fused_"), entry_text(entry), layers_text(entry.layers))
    return table


def _of_peak(profile: Profile, row: OperatorCost) -> str:
    return f"{100 * row.macs_per_cycle / profile.peak:.0f} %"


def _width(profile: Profile, columns: Sequence[Column]) -> int:
    """Of the table without the names."""
    cells = ([column.title, *(column.cell(profile, row) for row in profile.rows)] for column in columns)
    return sum(1 + max(map(len, each)) for each in cells) + 2


def _short(number: float, digits: int) -> str:
    """Without decimals where they would cost more room than they say."""
    return f"{number:.{digits if number < 100 else 0}f}"


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
    error = profile.device.model_error_percent
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
