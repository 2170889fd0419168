"""The result of a contest: an entry for each contestant, ratios and their geometric mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean

import msgspec

from ..devices.facts import DeviceFacts
from ..errors import DeployError
from ..latency import Latency

# Our tuned library, the same network by the records that are shipped alone, and what TVM makes of it by itself.
OURS, SHIPPED, UNTUNED = "ours", "shipped", "untuned"
OWN = (OURS, SHIPPED, UNTUNED)


@dataclass(frozen=True)
class Contestant:
    """One contestant on one network: a checked ``latency``, or the ``failure`` that stands in its place.

    ``settings`` are its threads and switches as it reports them itself, ``affinity`` the CPUs it was kept on. On an
    emulated core ``cost`` says what the modelled time is made of.
    """

    name: str
    version: str
    latency: Latency | None = None
    max_abs_err: float | None = None
    failure: DeployError | None = None
    settings: dict = field(default_factory=dict)
    affinity: tuple[int, ...] = ()
    rounds_us: tuple[tuple[float, ...], ...] = ()
    cost: dict | None = None


@dataclass(frozen=True)
class Contest:
    """All contestants on one network, one device, one number of threads; our own libraries come first."""

    model: str
    device: DeviceFacts
    threads: int
    tolerance: float
    entries: tuple[Contestant, ...]

    @property
    def ours(self) -> Contestant:
        return self.entry(OURS)

    @property
    def peers(self) -> tuple[Contestant, ...]:
        return tuple(entry for entry in self.entries if entry.name not in OWN)

    def entry(self, name: str) -> Contestant:
        return next(entry for entry in self.entries if entry.name == name)

    @property
    def fastest_peer(self) -> Contestant | None:
        timed = [(entry.latency.median_us, entry) for entry in self.peers if entry.latency]
        return min(timed, key=lambda pair: pair[0])[1] if timed else None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the fastest peer ours is, by medians; None where one of them has no latency."""
        fastest = self.fastest_peer
        if fastest is None or fastest.latency is None or self.ours.latency is None:
            return None
        return fastest.latency.median_us / self.ours.latency.median_us


class Mean(msgspec.Struct, frozen=True):
    """The geometric mean of the ratios on one device with one number of threads, and the networks that had one."""

    device: str
    threads: int
    ratio: float
    models: tuple[str, ...]


def geometric_means(contests: Sequence[Contest]) -> list[Mean]:
    """One for each device and number of threads that has any ratio. Contests of different ones are never mixed."""
    groups: dict[tuple[str, int], dict[str, float]] = {}
    for contest in contests:
        if contest.ratio is not None:
            groups.setdefault((contest.device.name, contest.threads), {})[contest.model] = contest.ratio
    return [
        Mean(device, threads, geometric_mean(ratios.values()), tuple(ratios))
        for (device, threads), ratios in groups.items()
    ]
