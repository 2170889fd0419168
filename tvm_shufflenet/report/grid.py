"""Building blocks of terminal tables, 80 columns wide, and the notes below them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from ..clock.cycles import Cost


def new_table(*columns: str, left: int = 1) -> Table:
    """A plain table: the first ``left`` columns are words, the others numbers.

    Where a console is narrow, words go on in the next line: a number is never cut.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        words = index < left
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def milliseconds(*values_us: float) -> list[str]:
    return [f"{us / 1e3:.3f}" for us in values_us]


def print_noise(console: Console, noise: dict[str, str | None]) -> None:
    """By the name of what was timed, what is to be said of its samples, if anything."""
    for name, words in noise.items():
        if words is not None:
            console.print(f"{name}: {words}" if name else words, markup=False, style="yellow")


def print_unmodelled(console: Console, cost: Cost | None) -> None:
    """How much of a modelled time is a guess, if any of it is."""
    if cost and cost.unmodelled_instructions:
        console.print(
            f"{cost.unmodelled_instructions} executed instructions are unknown to llvm-mca and taken at a cycle each: "
            f"{100 * cost.unmodelled_share:.2g} % of the core's cycles"
        )
