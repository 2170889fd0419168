"""Tracks the health of devices: failing devices back off exponentially and return after a check; clock drift.

The check and the drift go by one small operator, the probe, whose result is known. On a device that is well it gives
the right result; on a clock that keeps its pace, the same time as ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import tvm
from tvm import te

FAULTS_BEFORE_REST = 3
RESTS_BEFORE_THE_END = 5  # together a minute, in which a board boots
FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0
PROBE_EVERY = 32  # trials
DRIFT = 1.10  # a probe this much slower than the fastest one: heat, or another program
COOLING_S = (2.0, 5.0, 10.0)


@dataclass
class Record:
    """How one device has done since it was last well."""

    faults: int = 0
    rests: int = 0
    back_at: float = 0.0


@dataclass
class Quarantine:
    """Which devices are to rest, by address. A device that comes back is sent to rest again by its first fault."""

    now: Callable[[], float] = time.monotonic
    _records: dict[str, Record] = field(default_factory=dict)

    def good(self, address: str) -> None:
        """It has done what it was asked to."""
        self._records.pop(address, None)

    def fault(self, address: str, at_once: bool = False) -> bool:
        """It has failed; true where it now rests, ``at_once`` or because it has failed too often."""
        record = self._records.setdefault(address, Record())
        record.faults += 1
        if not at_once and record.rests == 0 and record.faults < FAULTS_BEFORE_REST:
            return False
        record.back_at = self.now() + min(FIRST_REST_S * 2**record.rests, LONGEST_REST_S)
        record.rests, record.faults = record.rests + 1, 0
        return True

    def resting(self) -> tuple[str, ...]:
        """Addresses of those that rest now."""
        return tuple(address for address, record in self._records.items() if record.back_at > self.now())

    def rest_s(self, address: str) -> float:
        """How long it still has to rest."""
        return max(0.0, self._records.get(address, Record()).back_at - self.now())

    def given_up(self, address: str, has_worked: bool = True) -> bool:
        """Whether it has rested often enough; one that has never worked is not waited for long."""
        allowed = RESTS_BEFORE_THE_END if has_worked else 1
        return self._records.get(address, Record()).rests > allowed


@dataclass
class Drift:
    """How much slower than at its best a device's clock shows the probe to be. Each device has a pace of its own."""

    _best: dict[str, float] = field(default_factory=dict)
    _latest: dict[str, float] = field(default_factory=dict)
    worst: float = 1.0

    def note(self, address: str, seconds: float) -> float:
        """The new ratio; 1.0 for a device at its best."""
        self._best[address] = min(seconds, self._best.get(address, seconds))
        ratio = seconds / self._best[address]
        self._latest[address] = ratio
        self.worst = max(self.worst, ratio)
        return ratio

    def of(self, address: str) -> float | None:
        """The latest ratio, None where it is within bounds: what a trial's time is flagged with."""
        ratio = self._latest.get(address, 1.0)
        return ratio if ratio > DRIFT else None


@functools.cache
def probe() -> tvm.IRModule:
    """A product of two 64 x 64 matrices: about a millisecond as TVM compiles it unscheduled."""
    left, right = (te.placeholder((64, 64), name=name) for name in ("left", "right"))
    k = te.reduce_axis((0, 64), name="k")
    product = te.compute((64, 64), lambda i, j: te.sum(left[i, k] * right[k, j], axis=k), name="product")
    return tvm.IRModule({"main": te.create_prim_func([left, right, product])})
