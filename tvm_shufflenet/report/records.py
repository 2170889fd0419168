"""Folders of tuning records as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from .grid import new_table

if TYPE_CHECKING:
    from ..tuning.records.upkeep import Fastest


def print_summary(console: Console, rows: list[dict]) -> None:
    """``rows`` as ``records list --json`` writes them."""
    for row in rows:
        console.print(row["folder"], markup=False)
        table = new_table("target", "clock", "TVM", "threads", "workloads", "records", left=3)
        for group in row["groups"]:
            words = (group.target, group.clock, group.tvm)
            table.add_row(*words, str(group.threads), str(group.workloads), str(group.records))
        console.print(table if row["groups"] else "no records")
        if row["failed"]:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(row["failed"].items()))
            console.print(f"failed trials: {causes}", markup=False)
        for line in row["skipped"]:
            console.print(f"skipped {line}", markup=False)


def print_fastest(console: Console, rows: list[Fastest]) -> None:
    """The best record of each workload."""
    table = new_table("target", "clock", "workload", "tensors", "threads", "best us", left=4)
    for row in rows:
        tensors = " ".join("x".join(map(str, shape)) for shape, _ in row.arguments)
        words = (row.target, row.clock, row.workload, tensors)
        table.add_row(*words, str(row.threads), f"{1e6 * row.seconds:.1f}")
    console.print(table if rows else "no records")
