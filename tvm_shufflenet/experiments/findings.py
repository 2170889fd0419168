"""Conclusions of an experiment, worded from its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from ..latency import Latency, spread
from .catalogue import size_name

if TYPE_CHECKING:
    from .results import Results, Row

# A difference below this share is none: less than two searches for the same operator may differ by.
NOTHING = 0.02
# A network that takes so many times what its operators took alone is compiled into something else than they were.
SLOWED = 1.25

Verdict = Literal["holds", "holds in part", "does not hold", "overturned by fusion", "undecided"]


class Effect(NamedTuple):
    """How much more time for a multiply-add a ``row`` needs than ``follower``, which follows the guideline."""

    row: Row
    follower: Row
    cost: float

    @property
    def seen(self) -> bool:
        """Whether it is more than nothing, and more than the samples of either differ by."""
        noise = max(spread(each.latency.samples_us) for each in (self.row, self.follower))
        return self.cost > max(NOTHING, noise)

    @property
    def fused(self) -> bool:
        """Whether what the row has more calls no operator of its own."""
        return self.row.calls == self.follower.calls


def effects(results: Results) -> list[Effect]:
    """Of an experiment of a guideline, for every row that has been timed beside the one that follows it."""
    pairs = ((row, results.against(row)) for row in results.rows if row.latency)
    return [
        Effect(
            row, other, row.latency.median_us / other.latency.median_us * other.multiply_adds / row.multiply_adds - 1
        )
        for row, other in pairs
        if other and other.latency and other is not row
    ]


def verdict(results: Results) -> Verdict | None:
    """Whether a guideline holds on this device, None of an experiment of none. Undecided where a network failed, or
    where operators have no record of their own or became slower in the network: then it is schedules or compilers that
    differ, not networks."""
    if results.experiment.guideline is None:
        return None
    found = effects(results)
    if not found or len(found) != len(results.experiment.cases) - 1 or _without_record(results) or _slowed(results):
        return "undecided"
    seen = [effect for effect in found if effect.seen]
    if seen:
        return "holds" if len(seen) == len(found) else "holds in part"
    fused = results.experiment.elementwise and all(effect.fused for effect in found)
    return "overturned by fusion" if fused else "does not hold"


def _without_record(results: Results) -> bool:
    return any(set(row.scheduled_by) & {"near record", "template"} for row in results.rows)


def _slowed(results: Results) -> list[Row]:
    timed = [row for row in results.rows if row.latency and row.alone_us]
    return [row for row in timed if row.latency.median_us > SLOWED * row.alone_us]


def findings(results: Results) -> list[str]:
    by_name = {"shuffle": _shuffle, "networks": _networks}
    if results.experiment.guideline is not None:
        return _guideline(results)
    return [*by_name.get(results.experiment.name, lambda results: [])(results), *_limits(results)]


def _limits(results: Results) -> list[str]:
    """How near each network comes to what the core allows, by input size."""
    lines = []
    for size in results.experiment.sizes:
        near = [
            f"{row.case.label} {row.over_limit:.2f}" for row in results.rows if row.case.size == size and row.over_limit
        ]
        if near:
            lines.append(f"times what multiply-adds and memory take at least, at {size_name(size)}: {', '.join(near)}")
    return lines


def _guideline(results: Results) -> list[str]:
    experiment, found = results.experiment, effects(results)
    if not found:
        return []
    lines = [f"{experiment.name.upper()}, {experiment.guideline}: {verdict(results)}"]
    costs = ", ".join(f"{effect.row.case.label} {100 * effect.cost:+.1f} %" for effect in found)
    lines.append(f"time for a multiply-add, against {found[0].follower.case.label}: {costs}")
    if experiment.elementwise:
        calls = sorted({row.calls for row in results.rows if row.calls})
        fused = len(calls) == 1
        how = f"are fused: {calls[0]} calls with and without" if fused else f"are not all fused: {calls} calls"
        lines.append(f"{experiment.elementwise} {how}")
    if _without_record(results):
        lines.append("operators without a record of their own: schedules differ, too; --trials N searches for them")
    lines += [
        f"{row.case.label} takes {row.latency.median_us / row.alone_us:.2f} times what its operators took alone, "
        f"{row.alone_us / 1e3:.3f} ms: they are compiled to slower code there"
        for row in _slowed(results)
    ]
    return lines


def _shuffle(results: Results) -> list[str]:
    pairs = [(row, results.against(row)) for row in results.rows if row.latency]
    return [
        f"{row.case.label}: {_cost(row.latency, without.latency)} once it is fused, "
        f"{_cost(row.untuned, without.untuned)} in TVM untuned"
        for row, without in pairs
        if without and without.latency
    ]


def _cost(latency: Latency, without: Latency) -> str:
    more_us = latency.median_us - without.median_us
    return f"{more_us / 1e3:+.2f} ms ({100 * more_us / without.median_us:+.1f} %)"


def _networks(results: Results) -> list[str]:
    """The fastest of each level of complexity, here and in the paper."""
    levels: dict[str, list[Row]] = {}
    for row in results.rows:
        levels.setdefault(row.case.against, []).append(row)
    lines = []
    for rows in levels.values():
        timed = [row for row in rows if row.latency]
        if len(timed) < len(rows):
            continue
        ours = min(timed, key=lambda row: row.latency.median_us).case
        paper = min(rows, key=lambda row: row.case.paper_ms).case
        agreed = "as in the paper" if ours is paper else f"in the paper {paper.label}"
        lines.append(f"about {ours.paper_macs_m:.0f} M: {ours.label} is fastest, {agreed}")
    return lines
