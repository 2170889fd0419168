"""Final choices by the network's latency: an operator's best schedule alone is not always best in the network.

What an operator takes in a network depends on what the others have left in the caches. So the network is built and
timed with the records that are fastest by themselves, with what is shipped, and with mixtures of candidates that are
nearly as fast. The fastest network is kept; it is never slower than what is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NEAR = 1.05  # candidates that are slower than the fastest by more, by themselves, are not tried in the network
CANDIDATES = 3  # of each operator
NETWORKS = 8  # that are built and timed, what is shipped and the fastest records among them
GAIN = 0.997  # a clock of its own tells nothing smaller from noise

Assignment = Mapping[str, str]  # the trace, by workload


@dataclass(frozen=True)
class Timed:
    """One inference of a network, in microseconds. ``operators_us`` is what each workload took in it, all its calls,
    where the device counts that."""

    us: float
    operators_us: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """Which records were ``chosen``, None where nothing beat what is shipped. Times are of the whole network: by what
    is shipped, by the records that are fastest by themselves, and by what was chosen."""

    chosen: Assignment | None
    shipped_us: float
    fastest_us: float
    chosen_us: float
    networks: int

    def describe(self) -> str:
        """For people: what is kept, and what else there was."""
        what = "the shipped schedules are kept" if self.chosen is None else "chosen"
        ours, shipped, fastest = (us / 1e3 for us in (self.chosen_us, self.shipped_us, self.fastest_us))
        return (
            f"by the network's own time, {self.networks} tried: {what}, {ours:.3f} ms\n"
            f"(as shipped {shipped:.3f}, each operator's fastest record {fastest:.3f})"
        )


def near(ranked: Sequence[tuple[str, float]], shipped: str | None) -> list[str]:
    """The traces of a workload that are worth a trial in the network: those nearly as fast as the first, by themselves,
    and what is ``shipped``. Traces come with their seconds, the fastest first."""
    found = [trace for trace, seconds in ranked[:CANDIDATES] if seconds <= NEAR * ranked[0][1]]
    return found + [trace for trace, _ in ranked if trace == shipped and trace not in found]


def decide(
    candidates: Mapping[str, Sequence[str]],
    shipped: Assignment,
    time: Callable[[Assignment | None], Timed],
    weights: Mapping[str, float],
    networks: int = NETWORKS,
) -> Decision:
    """Choose among the ``candidates`` of each workload, the fastest by itself first.

    ``shipped`` are the schedules that are shipped, by workload; ``time`` builds and times a network, None being what is
    shipped as a whole. ``weights`` are what the workloads cost by themselves: the heaviest are decided first where the
    device does not say what each takes in the network.
    """
    search = _Search(time, networks)
    fastest = {workload: ranked[0] for workload, ranked in candidates.items()}
    as_shipped, own = search.timed(None), search.timed(fastest)
    search.learn(shipped, as_shipped)
    if own.operators_us:
        search.mix(candidates, fastest)
    else:
        search.flip(candidates, shipped, sorted(candidates, key=lambda each: -weights.get(each, 0.0)))
    return Decision(search.best, as_shipped.us, own.us, search.best_us, search.networks)


class _Search:
    """The fastest network so far, and what its operators have taken in any."""

    def __init__(self, time: Callable[[Assignment | None], Timed], networks: int):
        self._time, self._left = time, networks
        self._costs: dict[str, dict[str, float]] = {}
        self._known: dict[frozenset, Timed] = {}
        self.best: Assignment | None = None
        self.best_us = float("inf")
        self.networks = 0

    def timed(self, assignment: Assignment | None, gain: float = 1.0) -> Timed:
        """Time a network and keep it if it takes less than ``gain`` times what the best one does."""
        key = frozenset((assignment or {}).items())
        if key in self._known:
            return self._known[key]
        found = self._known[key] = self._time(assignment)
        self.networks += 1
        self._left -= 1
        if found.us < gain * self.best_us:
            self.best, self.best_us = assignment, found.us
        if assignment is not None:
            self.learn(assignment, found)
        return found

    def learn(self, assignment: Assignment, found: Timed) -> None:
        """Keep what each operator took; of several networks, the least."""
        for workload, trace in assignment.items():
            if workload in found.operators_us:
                costs, us = self._costs.setdefault(workload, {}), found.operators_us[workload]
                costs[trace] = min(us, costs.get(trace, us))

    def mix(self, candidates: Mapping[str, Sequence[str]], fastest: Assignment) -> None:
        """Each operator by what took least in any network, in turn with networks of candidates that none has had."""
        while self._left:
            mixture = {workload: self._cheapest(workload, traces) for workload, traces in candidates.items()}
            self.timed(mixture)
            fresh = {
                workload: next((trace for trace in traces if trace not in self._costs_of(workload)), mixture[workload])
                for workload, traces in candidates.items()
            }
            if fresh == mixture or not self._left:
                return
            self.timed(fresh)

    def _cheapest(self, workload: str, traces: Sequence[str]) -> str:
        costs = self._costs_of(workload)
        return min((trace for trace in traces if trace in costs), key=costs.get, default=traces[0])

    def _costs_of(self, workload: str) -> dict[str, float]:
        return self._costs.get(workload, {})

    def flip(self, candidates: Mapping[str, Sequence[str]], shipped: Assignment, order: Iterable[str]) -> None:
        """One operator after the other: another candidate stays where the whole network is faster by it."""
        for workload in order:
            for trace in candidates[workload]:
                current = self.best if self.best is not None else self._as_candidates(candidates, shipped)
                if not self._left:
                    return
                if trace != current[workload]:
                    self.timed({**current, workload: trace}, GAIN)

    @staticmethod
    def _as_candidates(candidates: Mapping[str, Sequence[str]], shipped: Assignment) -> Assignment:
        """What is shipped, as far as it is among the candidates."""
        return {key: shipped[key] if shipped.get(key) in traces else traces[0] for key, traces in candidates.items()}
