"""A line of the journal of trials, and what a trial's time depends on."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..latency import Kind, clock_name


class Setting(NamedTuple):
    """What a time depends on beside the schedule: only records of one setting compete with each other."""

    clock: str
    threads: int


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal. ``workload`` and ``trace`` are hashes; ``seconds`` is None where the trial failed.

    ``threads`` is how many the schedule was tuned for and timed with; lines from before it was written mean one.
    """

    workload: str
    trace: str
    strategy: str
    device: str
    kind: Kind
    tvm: str
    seconds: float | None = None
    cause: str | None = None
    error: str | None = None
    threads: int = 1

    @property
    def clock(self) -> str:
        return clock_name(self.kind, self.device)

    @property
    def setting(self) -> Setting:
        return Setting(self.clock, self.threads)
