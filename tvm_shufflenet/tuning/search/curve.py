"""The best time after every trial of a search, by operator and strategy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...graph.tasks import OperatorTask
from ..records.journal import Setting, Trial
from ..records.store import RecordStore, workload_hash


@dataclass(frozen=True)
class Curve:
    """``best_us`` has an entry for every trial, in microseconds of one call: None until the first that succeeded."""

    operator: str
    occurrences: int
    strategy: str
    best_us: tuple[float | None, ...]
    failed: int

    @classmethod
    def of(cls, operator: str, occurrences: int, strategy: str, trials: list[Trial]) -> Curve:
        times = (math.inf if trial.seconds is None else 1e6 * trial.seconds for trial in trials)
        best = tuple(us if math.isfinite(us) else None for us in itertools.accumulate(times, min))
        return cls(operator, occurrences, strategy, best, sum(trial.seconds is None for trial in trials))

    @property
    def gain(self) -> float | None:
        """How many times faster the best trial is than the first that succeeded."""
        found = [us for us in self.best_us if us is not None]
        return found[0] / found[-1] if found else None


def curves(operators: Iterable[OperatorTask], store: RecordStore, setting: Setting) -> Iterator[Curve]:
    """A curve for each operator and each strategy that has tried it, on one clock with one number of threads."""
    for operator in operators:
        trials = store.journal(workload_hash(operator.mod), setting)
        for strategy in sorted({trial.strategy for trial in trials}, reverse=True):  # template first
            own = [trial for trial in trials if trial.strategy == strategy]
            yield Curve.of(operator.name, operator.occurrences, strategy, own)
