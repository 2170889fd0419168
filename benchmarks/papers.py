"""The tables of docs/report.md, from what ``tvm-shufflenet reproduce TABLE --json FILE`` wrote.

    python benchmarks/papers.py table8.json groups.json shuffle.json g1.json g2.json g3.json g4.json networks.json

Markdown on standard output: times in ms, one table a file and input size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Row = dict


def ms(row: Row, key: str = "latency_us") -> str:
    return f"{row[key]['median'] / 1e3:.3f}" if row[key] else "failed"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def speedups(rows: list[Row]) -> Iterator[list[str]]:
    yield ["network", "ours", "paper", "x ours", "x paper", "x by multiply-adds"]
    for row in rows:
        times = (ms(row), f"{row['paper_ms']:.1f}")
        ratios = map(ratio, (row["speedup"], row["paper_speedup"], row["theoretical_speedup"]))
        yield [row["label"], *times, *ratios]


def shuffles(rows: list[Row]) -> Iterator[list[str]]:
    yield ["network", "without", "with", "cost", "TVM untuned without", "with", "cost"]
    for without, shuffled in zip(rows[::2], rows[1::2], strict=True):
        if not (without["latency_us"] and shuffled["latency_us"]):
            continue
        cost = shuffled["latency_us"]["median"] / without["latency_us"]["median"] - 1
        untuned = [row["untuned_latency_us"]["median"] / 1e3 for row in (without, shuffled)]
        figures = [f"{each:.1f}" for each in (*untuned, untuned[1] - untuned[0])]
        yield [without["label"].partition(",")[0], ms(without), ms(shuffled), percent(cost), *figures]


def costs(rows: list[Row]) -> Iterator[list[str]]:
    """More time for a multiply-add than the row that follows the guideline."""
    yield ["case", "ours", "paper"]
    by_label = {row["label"]: row for row in rows}
    for row in rows:
        other = by_label[row["against"]]
        if other is not row and row["latency_us"] and other["latency_us"]:
            work = other["multiply_adds"] / row["multiply_adds"]
            ours = row["latency_us"]["median"] / other["latency_us"]["median"]
            yield [row["label"], percent(ours * work - 1), percent(row["paper_ms"] / other["paper_ms"] * work - 1)]


def times(rows: list[Row]) -> Iterator[list[str]]:
    yield ["network", "ours"]
    for row in rows:
        yield [row["label"], ms(row)]


FORMS: dict[str, Callable[[list[Row]], Iterator[list[str]]]] = {"groups": times, "shuffle": shuffles}
FORMS |= dict.fromkeys(("table8", "networks"), speedups)
FORMS |= dict.fromkeys(("g1", "g2", "g3", "g4"), costs)


def main() -> None:
    for path in sys.argv[1:]:
        facts = json.loads(Path(path).read_text())
        sizes = dict.fromkeys(tuple(row["input_size"]) for row in facts["rows"])
        for size in sizes:
            print(f"\n{facts['table']}, {'x'.join(map(str, size))}, {facts['device']['name']}\n")
            head, *lines = FORMS[facts["table"]]([row for row in facts["rows"] if tuple(row["input_size"]) == size])
            for line in (head, ["---"] * len(head), *lines):
                print(f"| {' | '.join(line)} |")
        for finding in facts["findings"]:
            print(finding)


if __name__ == "__main__":
    main()
