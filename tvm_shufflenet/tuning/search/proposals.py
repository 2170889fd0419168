"""Proposes schedules for trials: known good ones, likely ones, and those found by the search."""

from __future__ import annotations

from collections.abc import Iterable

from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from ...graph.tasks import argument_shapes
from ...hardware.machine import Machine
from ...schedules import rules
from ...schedules.nearest import near_trace
from ..records.journal import Setting
from ..records.store import RecordStore, trace_hash
from .task import BATCH, Task


class Proposals:
    """For tasks on one clock with so many threads. The search learns from ``database`` and ``cost_model``."""

    def __init__(
        self,
        store: RecordStore,
        setting: Setting,
        machine: Machine,
        database: ms.database.Database,
        cost_model: ms.CostModel,
    ):
        self._store, self._setting, self._machine = store, setting, machine
        self._database, self._cost_model = database, cost_model
        self._neighbours = store.neighbours(setting.threads)

    def schedules(self, task: Task, share: int) -> list[ms.MeasureCandidate]:
        """Schedules that have had no trial: guesses first, and a search, which takes longer, where they do not do."""
        guesses = [] if task.guessed else self._unseen(task, self._guesses(task))
        task.guessed = True
        return guesses if len(guesses) >= share else guesses + self._unseen(task, self._found(task))

    def _guesses(self, task: Task) -> list[ms.MeasureCandidate]:
        """What is known to be good, or likely; first what compilation takes without records of this device."""
        shipped = self._shipped_candidate(task)
        if task.space != "template":
            return shipped
        return [*(shipped or self._near_candidate(task)), rules.default_candidate(task.mod, self._machine)]

    def _found(self, task: Task) -> list[ms.MeasureCandidate]:
        """What the search proposes."""
        if not task.searched:
            task.searched = True
            task.context.pre_tuning(
                max_trials=10**6, num_trials_per_iter=BATCH, database=self._database, cost_model=self._cost_model
            )
        return task.context.generate_measure_candidates() or []

    def _unseen(self, task: Task, candidates: Iterable[ms.MeasureCandidate]) -> list[ms.MeasureCandidate]:
        """Candidates that have not been tried and are not queued, each once."""
        self._store.catch_up()  # another run may be writing to the same folder
        task.seen |= {trial.trace for trial in self._store.trials(task.workload, *self._setting)}
        new = {}
        for candidate in candidates:
            key = trace_hash(candidate.sch.trace)
            if key not in task.seen:
                new.setdefault(key, candidate)
        task.seen |= set(new)
        return list(new.values())

    def _shipped_candidate(self, task: Task) -> list[ms.MeasureCandidate]:
        """What is shipped for a CPU like this one: tuning must not end with less, and no time but this device's tells
        whether it does."""
        record = self._store.stand_in(task.mod, *self._setting)
        if record is None:
            return []
        schedule = Schedule(task.mod)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        return [ms.MeasureCandidate(schedule, record.args_info)]

    def _near_candidate(self, task: Task) -> list[ms.MeasureCandidate]:
        """What compilation takes where nothing is shipped: with a record, it must not be worse."""
        near = near_trace(task.mod, argument_shapes(task.mod), self._machine, self._neighbours)
        return [] if near is None else [rules.candidate(task.mod, near[0])]
