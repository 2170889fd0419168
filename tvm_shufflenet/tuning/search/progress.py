"""The progress of a tuning run."""

from __future__ import annotations

from dataclasses import dataclass, field

from .task import Task


@dataclass(frozen=True)
class Progress:
    """Where a tuning run stands; handed to the caller's ``on_progress`` after every batch.

    ``network_us`` is the sum of the best times of all operators, None before each has one; ``timed`` of ``operators``
    have. ``causes`` counts failures by cause.
    """

    measured: int
    failed: int
    requested: int
    reused: int
    network_us: float | None
    task: str
    elapsed_s: float
    timed: int = 0
    operators: int = 0
    causes: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.measured + self.failed

    @property
    def trials_per_minute(self) -> float:
        return 60 * self.done / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        left = self.requested - self.reused - self.done
        return left * self.elapsed_s / self.done if self.done else None


@dataclass(frozen=True)
class TuneResult:
    """What a run did. ``reused`` trials came from earlier runs; ``causes`` counts failures by cause.

    ``noisy`` trials' samples did not agree, however often they were taken; ``drift`` is how much slower than at its
    best the device was at worst. ``repeated`` counts attempts that a fault ended and that were made again.
    """

    requested: int
    measured: int
    failed: int
    reused: int
    wall_s: float
    causes: dict[str, int]
    first_error: str | None
    rule_kind: str | None
    tasks: tuple[Task, ...]
    noisy: int = 0
    drift: float = 1.0
    repeated: int = 0

    @property
    def trials_per_minute(self) -> float:
        return 60 * (self.measured + self.failed) / self.wall_s if self.wall_s else 0.0
