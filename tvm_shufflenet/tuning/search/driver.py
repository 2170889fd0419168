"""Tuning: MetaSchedule's search, cost model and records with our own measuring loop.

TVM's own loop visits every task once before it has a result, starts its builders anew for every batch and ends with
success when nothing was measured. This one starts with the heaviest operators, spends further trials where they still
buy time, keeps its workers, never measures the same schedule twice, and says what failed and why.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm.s_tir import meta_schedule as ms

from ...devices.base import Device
from ...errors import NothingMeasured
from ...graph.tasks import OperatorTask
from ...hardware.machine import machine_for
from ...hardware.targets import Target
from ...schedules import rules
from ...support.memory import release_freed
from ...support.toolchain import TVM_VERSION
from ...verification.operators import known_reference
from ...verification.reproducer import keep_operator
from ..measuring.measurer import TRIAL_SECONDS, Attempt, GivenUp, Measurer, start_workers
from ..measuring.trial import Cause, Outcome
from ..measuring.workers import Workers
from ..records.earlier import Recalled
from ..records.journal import Setting
from ..records.store import RecordStore, Trial, trace_hash, workload_hash
from .intrinsics import load_intrinsics
from .progress import Progress, TuneResult
from .proposals import Proposals
from .task import BATCH, GENERATIONS, LABELS, MEASURED_RATIO, PARENTS, POPULATION, Task, made_for


@dataclass(frozen=True)
class Try:
    """A schedule and what was sent to the device, or what the search's earlier run recorded of it."""

    candidate: ms.MeasureCandidate
    made: Attempt | Recalled


@dataclass(frozen=True)
class Batch:
    """Trials of one task under way."""

    task: Task
    tries: list[Try]


def _mean_seconds(record: ms.database.TuningRecord) -> float:
    """What a database orders its records by."""
    return float(np.mean([float(each) for each in record.run_secs]))


@contextlib.contextmanager
def _frozen_heap() -> Iterator[None]:
    """Let the collector look through what is made from here on alone, and so do it often: garbage waits until it is a
    quarter of all objects, and those of the modules that are loaded are 240 000."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Tuner:
    """Searches schedules for ``operators``, a network's or any others, each workload once.

    ``trials`` counts all finished trials of these operators on this clock with this strategy and so many ``threads``,
    those of earlier runs in ``store`` included. The ``device`` uses as many threads, and ends what takes a trial longer
    than ``trial_seconds``. Raises NothingMeasured where ``trials`` comes to none.

    A search that goes on where an earlier run of it ended, or was killed, first goes through that run again with what
    it recorded in the place of trials. So it has learned and drawn what it would have without the break, and makes the
    same trials. Where it comes to another schedule than the earlier run, it takes the records as knowledge and goes on.
    """

    def __init__(
        self,
        operators: Iterable[OperatorTask],
        target: Target,
        device: Device,
        store: RecordStore,
        *,
        strategy: str = "template",
        trials: int,
        seed: int = 0,
        threads: int = 1,
        trial_seconds: float = TRIAL_SECONDS,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ):
        load_intrinsics()
        np.random.seed(seed % 2**32)  # the cost model draws from numpy's global state while it is still untrained
        self.target, self.device, self.store = target, device, store
        self.strategy, self.requested, self.seed, self.threads = strategy, trials, seed, threads
        self.on_progress = on_progress
        self.tvm_target = target.tvm()
        self.machine = machine_for(target, threads)
        operators = list(operators)
        store.meet(operator.mod for operator in operators)
        self.search = self._identity(operators)
        self.earlier = store.hide(self.search if self._finished(operators) < trials else None)
        self.database = store.database_of(device.clock, threads)
        # One thread: several wait for each other in loops that other processes' work makes long, seconds a training.
        config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=1)
        self.cost_model = ms.cost_model.XGBModel(config=config, num_warmup_samples=64, early_stopping_rounds=20)
        self.proposals = Proposals(store, Setting(device.clock, threads), self.machine, self.database, self.cost_model)
        self.measurer = Measurer(target, device, trial_seconds)
        self.measured = self.failed = 0
        self.causes: Counter[str] = Counter()
        self.noisy = 0
        self.tasks = [self._task(task) for task in operators]
        self.tasks.sort(key=lambda task: -task.weight * task.flops)
        self.reused = sum(task.trials for task in self.tasks)

    def _identity(self, operators: list[OperatorTask]) -> str:
        """Hash of what decides which schedules are tried in which order, beside what was known before."""
        wanted = [(workload_hash(operator.mod), operator.occurrences) for operator in operators]
        about = [self.strategy, self.seed, self.threads, self.device.clock, sorted(wanted)]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def _finished(self, operators: list[OperatorTask]) -> int:
        """How many of the trials asked for are done."""
        return sum(
            made_for(self._space(operator.mod), self._known(workload_hash(operator.mod))) for operator in operators
        )

    def _known(self, workload: str) -> list[Trial]:
        """The trials of a workload on this clock with so many threads, whatever strategy they were made for."""
        return self.store.trials(workload, self.device.clock, self.threads)

    def _space(self, mod: tvm.IRModule) -> str:
        return "template" if self.strategy == "template" and rules.template_name(mod) else "generated"

    def _task(self, extracted: OperatorTask) -> Task:
        mod = extracted.mod
        shash = workload_hash(mod)
        space = self._space(mod)
        context = ms.TuneContext(
            mod,
            target=self.tvm_target,
            space_generator=rules.space(mod, self.machine, self.strategy),
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=POPULATION[space],
                init_measured_ratio=MEASURED_RATIO,
                init_min_unmeasured=2 * BATCH,
                genetic_num_iters=GENERATIONS[space],
            ),
            task_name=extracted.name,
            num_threads=1,  # with more, which thread draws first decides what is searched, whatever the seed
            rand_state=1 + (self.seed + int(shash)) % (2**31 - 2),
        )
        task = Task(
            extracted.name,
            extracted.occurrences,
            mod,
            extracted.flops,
            space,
            shash,
            context,
            self.database.commit_workload(mod),
        )
        earlier = self._known(shash)
        task.seen = {trial.trace for trial in earlier}
        task.trials = made_for(space, earlier)
        task.best_seconds = min((t.seconds for t in earlier if t.seconds), default=float("inf"))
        task.rounds = -(-task.trials // BATCH)
        return task

    def run(self, workers: Workers | None = None) -> TuneResult:
        """Measure until the trials are used up or every space is exhausted; ends its own workers however it leaves."""
        started = time.monotonic()
        if self._left() > 0:
            self.store.prepare()
            try:
                own = start_workers(self.device, self.measurer.trial_seconds)
                with contextlib.nullcontext(workers) if workers else own as self.measurer.workers, _frozen_heap():
                    self._search(started)
            except GivenUp as exc:
                if self.measured + self.reused:
                    raise
                raise self._nothing_measured(exc.what) from exc
            finally:
                self.store.hide(None)
        if self.measured + self.reused == 0:
            raise self._nothing_measured(f"--trials {self.requested} left nothing to do")
        return TuneResult(
            self.requested,
            self.measured,
            self.failed,
            self.reused,
            time.monotonic() - started,
            dict(self.causes),
            self.measurer.first_error,
            next(filter(None, (rules.rule_kind(task.context) for task in self.tasks)), None),
            tuple(self.tasks),
            self.noisy,
            self.measurer.drift.worst,
            self.measurer.repeated,
        )

    def _nothing_measured(self, otherwise: str) -> NothingMeasured:
        return NothingMeasured("nothing was measured", self.measurer.first_error or otherwise, "tvm-shufflenet doctor")

    def _left(self) -> int:
        return self.requested - self.reused - self.measured - self.failed

    def _search(self, started: float) -> None:
        """Keep one batch ahead of the device, except where searching would disturb what is being timed."""
        ahead = 1 if self.device.shares_host else 2
        running: deque[Batch] = deque()
        while True:
            while len(running) < ahead:
                batch = self._next_batch(sum(len(batch.tries) for batch in running))
                if batch is None:
                    break
                running.append(batch)
            if not running:
                return
            batch = running.popleft()
            outcomes = [self._collect(batch.task, each) for each in batch.tries]
            self._learn(batch.task, [each.candidate for each in batch.tries], outcomes)
            release_freed()  # a population's schedules are gone
            if any(isinstance(each.made, Attempt) for each in batch.tries):
                self.on_progress(self.progress(batch.task.name, time.monotonic() - started))

    def _next_batch(self, planned: int) -> Batch | None:
        """Under way when this returns; None where no trial is left beyond the ``planned`` ones, or nothing to try."""
        while (room := self._left() - planned) > 0 and (task := self._next_task()) is not None:
            candidates = self._candidates(task, room)
            if not candidates:
                task.exhausted = True
                if task.searched:
                    task.context.post_tuning()  # it keeps every module that it has proposed, some 30 KB each
            elif tries := self._tries(task, candidates, planned):
                task.searching = True
                return Batch(task, tries)
        return None

    def _tries(self, task: Task, candidates: list[ms.MeasureCandidate], planned: int) -> list[Try]:
        """Those that the earlier run made are recalled, the others sent to the device."""
        recalled = [self.earlier.recall(task.workload, trace_hash(each.sch.trace)) for each in candidates]
        pairs = list(zip(candidates, recalled, strict=True))
        if None in recalled and self._take_as_knowledge():
            room = self._left() - planned - sum(known is not None for known in recalled)
            new = [pair for pair in pairs if pair[1] is None]
            late = new[max(0, room) :]
            task.waiting = [*(candidate for candidate, _ in late), *task.waiting]
            pairs = [pair for pair in pairs if not any(pair is each for each in late)]
        return [Try(each, known or self._submitted(task, each)) for each, known in pairs]

    def _submitted(self, task: Task, candidate: ms.MeasureCandidate) -> Attempt:
        if task.reference is None:
            task.reference = known_reference(task.mod, task.workload)
        return self.measurer.submit(candidate.sch.mod, task.reference)

    def _take_as_knowledge(self) -> bool:
        """Learn at once from what an earlier run of this search recorded and this one does not come to; whether there
        was any."""
        left = self.earlier.reveal()
        tasks = {task.workload: task for task in self.tasks}
        for trial, record in left:
            task = tasks[trial.workload]
            task.seen.add(trial.trace)
            task.waiting = [each for each in task.waiting if trace_hash(each.sch.trace) != trial.trace]
            task.trials += 1
            self.reused += 1
            if record is not None:
                task.best_seconds = min(task.best_seconds, trial.seconds)
                self._offer(task, record)
        return bool(left)

    def _next_task(self) -> Task | None:
        free = [task for task in self.tasks if not task.exhausted and not task.searching]
        fresh = [task for task in free if task.rounds == 0]
        if fresh:
            return fresh[0]
        return max(free, key=Task.promise, default=None)

    def _candidates(self, task: Task, left: int) -> list[ms.MeasureCandidate]:
        """The next schedules worth a trial, for at most ``left``; others wait for the task's next turn.

        Where trials are few, every operator's first ones come before any operator's later ones.
        """
        fresh = sum(not each.rounds and not each.exhausted and not each.searching for each in self.tasks)
        share = left if task.rounds or left >= BATCH * fresh else max(1, left // fresh)
        if not task.waiting:
            task.waiting = self.proposals.schedules(task, share)
        chosen, task.waiting = task.waiting[:share], task.waiting[share:]
        return chosen

    def _collect(self, task: Task, tried: Try) -> Outcome:
        """The outcome of a trial, on disk when this returns."""
        if isinstance(tried.made, Recalled):
            return self._recollect(task, tried.candidate, tried.made)
        outcome = self.measurer.outcome(tried.made)
        if outcome.cause is Cause.WRONG:
            outcome = replace(outcome, error=f"{outcome.error}; {self._kept(task, tried, outcome)}")
        trial = Trial(
            task.workload,
            trace_hash(tried.candidate.sch.trace),
            LABELS[task.space],
            self.device.name,
            self.device.kind,
            TVM_VERSION,
            seconds=float(np.median(outcome.seconds)) if outcome.seconds else None,
            cause=outcome.cause.value if outcome.cause else None,
            error=outcome.error or None,
            threads=self.threads,
            noise=outcome.noise,
            drift=self.measurer.drift.of(outcome.address) if outcome.seconds else None,
            search=self.search,
        )
        record = None
        if outcome.seconds:
            record = self._commit(task, tried.candidate, outcome)
            self.measured += 1
            self.noisy += trial.noise is not None
        else:
            self.failed += 1
            self.causes[outcome.cause.value] += 1
            self.measurer.note(outcome.error)
        self.store.append(trial, record, task.mod)
        task.trials += 1
        return outcome

    def _kept(self, task: Task, tried: Try, outcome: Outcome) -> str:
        return keep_operator(
            task.name, outcome.error, self.target, self.device.name, tried.made.job.module_json, task.mod,
            task.reference, outcome.found, tried.candidate.sch.trace,
        )  # fmt: skip

    def _recollect(self, task: Task, candidate: ms.MeasureCandidate, recalled: Recalled) -> Outcome:
        """As if the trial had been made now."""
        cause = recalled.trial.cause and Cause(recalled.trial.cause)
        outcome = Outcome(recalled.seconds, cause, recalled.trial.error or "")
        if outcome.seconds:
            self._commit(task, candidate, outcome)
        self.earlier.show(recalled.trial)
        self.reused += 1
        task.trials += 1
        return outcome

    def _commit(self, task: Task, candidate: ms.MeasureCandidate, outcome: Outcome) -> ms.database.TuningRecord:
        record = ms.database.TuningRecord(
            candidate.sch.trace, task.record_workload, list(outcome.seconds), self.tvm_target, candidate.args_info
        )
        self._offer(task, record)
        return record

    def _offer(self, task: Task, record: ms.database.TuningRecord) -> None:
        """Let the search have a record that may be a parent. A database keeps every trace that it is given, 20 KB."""
        best = self.database.get_top_k(task.record_workload, PARENTS[task.space])
        if len(best) < PARENTS[task.space] or _mean_seconds(record) < _mean_seconds(best[-1]):
            self.database.commit_tuning_record(record)

    def _learn(self, task: Task, candidates: list, outcomes: list[Outcome]) -> None:
        results = [
            ms.runner.RunnerResult(list(outcome.seconds) or None, outcome.error if not outcome.seconds else None)
            for outcome in outcomes
        ]
        if task.searched:
            task.context.notify_runner_results(candidates, results)
        self.cost_model.update(task.context, candidates, results)
        best = min((float(np.median(o.seconds)) for o in outcomes if o.seconds), default=float("inf"))
        task.idle_rounds = 0 if best < 0.99 * task.best_seconds else task.idle_rounds + 1
        task.best_seconds = min(task.best_seconds, best)
        task.rounds += 1
        task.searching = False

    def progress(self, task: str, elapsed_s: float) -> Progress:
        total = sum(task.cost_seconds for task in self.tasks)
        network = total * 1e6 if np.isfinite(total) else None
        timed = sum(np.isfinite(task.best_seconds) for task in self.tasks)
        return Progress(
            self.measured, self.failed, self.requested, self.reused, network, task, elapsed_s,
            int(timed), len(self.tasks), dict(self.causes),
        )  # fmt: skip
