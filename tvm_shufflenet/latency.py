"""Latency samples, each marked as measured or modelled."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["measured", "modelled"]
MEASURED: Kind = "measured"
MODELLED: Kind = "modelled"


def clock_name(kind: Kind, device: str) -> str:
    """What times must share to be compared: all real clocks count alike, each modelled core is a clock of its own."""
    return MEASURED if kind == MEASURED else device


def spread(samples: Sequence[float]) -> float:
    """Median absolute deviation from the median, as a share of it: a few wild samples do not change it."""
    median = statistics.median(samples)
    return statistics.median(abs(sample - median) for sample in samples) / median


# A processor that is left alone repeats an inference within a few percent. Samples do not agree where a tenth of them
# takes this many times the median or more, or one in a hundred (of fewer, the slowest) that many: another program,
# heat, a clock that was still rising. The median then depends on when it was taken.
TENTH, HUNDREDTH = 1.10, 2.0


def disagreement(median: float, p90: float | None, p99: float | None) -> str | None:
    """What is to be said of measured samples that do not agree, whatever their unit; None where they do."""
    tenth, hundredth = (None if each is None else each / median for each in (p90, p99))
    if not (tenth and tenth >= TENTH) and not (hundredth and hundredth >= HUNDREDTH):
        return None
    known = {"the 90th percentile": tenth, "the 99th percentile": hundredth}
    facts = " and ".join(f"{name} is {times:.2f}" for name, times in known.items() if times)
    return f"noisy: {facts} times the median; another program, heat or a changing clock: run it again when it is quiet"


class LatencySummary(msgspec.Struct, frozen=True):
    """What is written of a latency, in microseconds; ``samples`` is how many there are."""

    median: float
    min: float
    p90: float
    p99: float
    samples: int
    kind: Kind


@dataclass(frozen=True)
class Latency:
    """Samples in microseconds, all of one ``kind``. Refuses what no clock can show: none, NaN, zero or less."""

    samples_us: tuple[float, ...]
    kind: Kind

    def __post_init__(self) -> None:
        if not self.samples_us or not all(math.isfinite(us) and us > 0 for us in self.samples_us):
            raise ValueError(f"not a latency: {self.samples_us}")

    @classmethod
    def from_seconds(cls, seconds: Sequence[float], kind: Kind) -> Latency:
        return cls(tuple(float(s) * 1e6 for s in seconds), kind)

    @property
    def median_us(self) -> float:
        return statistics.median(self.samples_us)

    @property
    def min_us(self) -> float:
        return min(self.samples_us)

    def percentile_us(self, percent: float) -> float:
        """The smallest sample that at least ``percent`` of all samples do not exceed."""
        ordered = sorted(self.samples_us)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    @property
    def noise(self) -> str | None:
        """Words where the samples do not agree, see ``disagreement``; a model's always do."""
        if self.kind == MODELLED:
            return None
        return disagreement(self.median_us, self.percentile_us(90), self.percentile_us(99))

    @property
    def summary(self) -> LatencySummary:
        p90, p99 = self.percentile_us(90), self.percentile_us(99)
        return LatencySummary(self.median_us, self.min_us, p90, p99, len(self.samples_us), self.kind)

    def __str__(self) -> str:
        return f"{self.median_us / 1e3:.3f} ms ({self.kind}, median of {len(self.samples_us)})"
