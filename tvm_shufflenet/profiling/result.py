"""A profile: the cost of every operator of a package on one device."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..clock.cycles import Cost
from ..devices.facts import DeviceFacts
from ..latency import Kind, Latency
from ..packages.manifest import Manifest, OperatorEntry

HOW = {
    "measured": "each operator by itself, its data in cache",
    "modelled": "one inference of the whole network",
}


@dataclass(frozen=True)
class Work:
    """What the emulated core did for an operator. ``l1_bytes`` moved between L1 and L2, ``l2_bytes`` between L2 and
    memory; ``bound_cycles`` are the cycles by what set the pace."""

    cycles: float
    l1_misses: int
    l2_misses: int
    l1_bytes: int
    l2_bytes: int
    bound_cycles: dict[str, float]

    @property
    def bound(self) -> str:
        return max(self.bound_cycles, key=self.bound_cycles.get, default="nothing")


@dataclass(frozen=True)
class OperatorCost:
    """All calls of one operator in an inference; ``work`` only where they were counted."""

    entry: OperatorEntry
    time_us: float
    work: Work | None = None

    @property
    def multiply_adds(self) -> int:
        return self.entry.multiply_adds * self.entry.occurrences

    @property
    def gmacs_per_second(self) -> float:
        return self.multiply_adds / self.time_us / 1e3 if self.time_us else 0.0

    @property
    def macs_per_cycle(self) -> float | None:
        return self.multiply_adds / self.work.cycles if self.work else None


@dataclass(frozen=True)
class AssemblyBlock:
    """Instructions that stand in a row and ran equally often: their ``address`` in the library, their cycles in all
    runs together."""

    address: int
    runs: int
    cycles: float
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class HotLoop:
    """The loop that takes most of an operator's time. ``left_out`` blocks of it take next to nothing."""

    operator: str
    cycles: float
    share_of_operator: float
    multiply_adds_per_cycle: float
    bound: str
    blocks: tuple[AssemblyBlock, ...]
    left_out: int


@dataclass(frozen=True)
class Profile:
    """``operators`` by falling cost. ``runtime`` is everything that is no operator's, None where it was not counted;
    ``core_peak`` the multiply-adds that a core can do in a cycle and ``cost`` what the latency is made of, None where
    that is not known."""

    manifest: Manifest
    device: DeviceFacts
    threads: int
    latency: Latency
    operators: tuple[OperatorCost, ...]
    max_abs_err: float
    runtime: OperatorCost | None = None
    core_peak: int | None = None
    assembly: tuple[HotLoop, ...] = ()
    cost: Cost | None = None

    @property
    def peak(self) -> int | None:
        """Multiply-adds that the cores of all threads can do in a cycle."""
        return self.core_peak and self.core_peak * self.threads

    @property
    def kind(self) -> Kind:
        return self.latency.kind

    @property
    def rows(self) -> tuple[OperatorCost, ...]:
        return self.operators + ((self.runtime,) if self.runtime else ())

    @property
    def sum_us(self) -> float:
        """Of all rows: where everything was counted, the latency itself."""
        return math.fsum(row.time_us for row in self.rows)

    def share(self, row: OperatorCost) -> float:
        return row.time_us / self.sum_us

    @property
    def plain(self) -> tuple[OperatorCost, ...]:
        """Operators that no template of ours schedules and no record: TVM's plain loops between our own operators."""
        return tuple(row for row in self.operators if row.entry.schedule == "none")

    @property
    def plain_us(self) -> float:
        return math.fsum(row.time_us for row in self.plain)
