"""Trials of an earlier run of the same search, reused when the search is repeated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tvm.s_tir import meta_schedule as ms

from .folder import RecordFolder
from .journal import Trial


class Recalled(NamedTuple):
    """A trial that an earlier run of the same search has made, and the samples of its time; none where it failed."""

    trial: Trial
    seconds: tuple[float, ...]


class EarlierRun:
    """``trials`` of a folder, hidden until each is recalled and shown."""

    def __init__(self, folder: RecordFolder, trials: Iterable[Trial] = ()):
        self._folder = folder
        self.hidden = set(trials)
        # Those that were not asked for yet, with the entries of those that succeeded.
        succeeded = {entry.trial: entry for entry in folder.entries.values() if entry.trial in self.hidden}
        self._left = {(trial.workload, trial.trace): (trial, succeeded.get(trial)) for trial in self.hidden}

    def recall(self, workload: str, trace: str) -> Recalled | None:
        """What is known of a hidden trial. It stays hidden until it is shown."""
        trial, entry = self._left.pop((workload, trace), (None, None))
        if trial is None:
            return None
        return Recalled(trial, tuple(entry.line.body()[1]) if entry else (trial.seconds,) if trial.seconds else ())

    def show(self, trial: Trial) -> None:
        self.hidden.discard(trial)

    def reveal(self) -> list[tuple[Trial, ms.database.TuningRecord | None]]:
        """Show the trials that were not recalled; returns them with their records, if they are of use."""
        left = [(trial, entry and self._folder.usable(entry)) for trial, entry in self._left.values()]
        self._left = {}
        self.hidden.difference_update(trial for trial, _ in left)
        return left
