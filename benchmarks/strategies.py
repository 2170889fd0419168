"""The template's space against TVM's generated one: both strategies search the same operators from nothing.

    python benchmarks/strategies.py --target cortex-a72 --json strategies-a72.json
    python benchmarks/strategies.py --target local --trials 64 --operators pointwise depthwise
    python benchmarks/strategies.py --target cortex-a72 --strategies template --count 99

For each operator the best time after 8, 16, 32 and 64 trials of either strategy, the time of the record that is shipped
for this clock, and how many trials failed. Failed trials count as trials. What each search costs on this machine is in
the last column.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tvm_shufflenet.graph.pipeline import fuse

os.environ.setdefault("TVM_NUM_THREADS", "1")

from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.errors import NothingMeasured
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.tuning.measuring.measurer import start_workers
from tvm_shufflenet.tuning.measuring.workers import Workers
from tvm_shufflenet.tuning.records.store import RecordStore, workload_hash
from tvm_shufflenet.tuning.search.driver import Tuner
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.schedules import records_folders

MILESTONES = (8, 16, 32, 64)
STRATEGIES = ("template", "ansor")


@dataclass(frozen=True)
class Course:
    """One search: the best time in microseconds by milestone, None where no trial had succeeded."""

    operator: str
    kind: str
    occurrences: int
    strategy: str
    best_us: dict[int, float | None]
    trials: int
    failed: dict[str, int]
    wall_s: float
    shipped_us: float | None

    @property
    def last_us(self) -> float | None:
        return list(self.best_us.values())[-1]

    def line(self) -> str:
        times = [*self.best_us.values(), self.shipped_us]
        best = "".join(f"{us:10.1f}" if us is not None else f"{'-':>10}" for us in times)
        failures = ", ".join(f"{count} {cause}" for cause, count in self.failed.items()) or "-"
        return f"{self.operator:16}{self.strategy:10}{best}{self.trials:8}  {failures:16}{self.wall_s:6.0f} s"


@dataclass(frozen=True)
class Arena:
    """Where the searches take place."""

    target: Target
    device: Device
    workers: Workers
    shipped: RecordStore

    def course(self, task: OperatorTask, strategy: str, trials: int, seed: int) -> Course:
        started, workload = time.monotonic(), workload_hash(task.mod)
        failed: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            store = RecordStore(Path(folder), self.target.tvm())
            tuner = Tuner([task], self.target, self.device, store, strategy=strategy, trials=trials, seed=seed)
            try:
                failed = tuner.run(self.workers).causes
            except NothingMeasured:
                failed = dict(tuner.causes)
            seconds = [trial.seconds for trial in store.trials(workload, self.device.clock)]
        return Course(
            task.name,
            rules.template_name(task.mod) or "",
            task.occurrences,
            strategy,
            {count: best_us(seconds[:count]) for count in milestones(trials)},
            len(seconds),
            failed,
            time.monotonic() - started,
            best_us([trial.seconds for trial in self.shipped.shipped_trials(workload, self.device.clock)]),
        )


def shipped_records(target: Target) -> RecordStore:
    """Those for the target, or for the one whose records serve it."""
    _, folder = records_folders(target, None)
    return RecordStore(folder, find_target(target.shipped or target.name).tvm())


def milestones(trials: int) -> list[int]:
    return [count for count in MILESTONES if count < trials] + [trials]


def best_us(seconds: list[float | None]) -> float | None:
    return min((1e6 * each for each in seconds if each is not None), default=None)


def choose(tasks: list[OperatorTask], words: list[str], count: int) -> list[OperatorTask]:
    """Operators with a template whose name or kind holds one of ``words``; without, the heaviest of each kind first."""
    tasks = sorted(tasks, key=lambda task: -task.occurrences * task.flops)
    kinds: dict[str, list[OperatorTask]] = {}
    for task in tasks:
        kind = rules.template_name(task.mod)
        if kind and any(word in task.name or word in kind for word in words):
            kinds.setdefault(kind, []).append(task)
    ranked = [(rank, task) for group in kinds.values() for rank, task in enumerate(group)]
    return [task for _, task in sorted(ranked, key=lambda pair: pair[0])][:count]


def summary(courses: list[Course]) -> Iterator[str]:
    """What the generated space takes against the template, and the template against what is shipped, both in the end:
    geometric means, and of all the operators' occurrences together."""
    of = {(course.operator, course.strategy): course for course in courses if course.last_us}
    found = [course for (_, strategy), course in of.items() if strategy == "template"]
    pairs = [(of[each.operator, "ansor"].last_us, each.last_us) for each in found if (each.operator, "ansor") in of]
    if pairs:
        yield f"ansor's best takes {mean_ratio(pairs):.2f} times the template's, geometric mean of {len(pairs)}"
    known = [each for each in found if each.shipped_us]
    if known:
        pairs = [(each.last_us, each.shipped_us) for each in known]
        total = sum(each.occurrences * each.last_us for each in known)
        shipped = sum(each.occurrences * each.shipped_us for each in known)
        yield (
            f"the template's best takes {mean_ratio(pairs):.3f} times the shipped record's, geometric mean of "
            f"{len(pairs)}, at most {max(ours / theirs for ours, theirs in pairs):.3f}; "
            f"all occurrences together {total / shipped:.3f}"
        )


def mean_ratio(pairs: list[tuple[float, float]]) -> float:
    return statistics.geometric_mean(ours / theirs for ours, theirs in pairs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="cortex-a72", help="see tvm-shufflenet targets (cortex-a72)")
    parser.add_argument("--device", help="as for tvm-shufflenet tune")
    parser.add_argument("--model", default=models.DEFAULT, help="whose operators (ShuffleNet v1 1x)")
    parser.add_argument("--operators", nargs="*", default=[""], metavar="WORD", help="names or kinds (of every kind)")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES, help="which (both)")
    parser.add_argument("--count", type=int, default=6, help="operators at most (6)")
    parser.add_argument("--trials", type=int, default=64, help="trials of each search (64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the searches (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    target = find_target(options.target)
    imported = import_model(models.find_model(options.model))
    tasks = choose(fuse(imported.module, target).tasks, options.operators, options.count)
    courses: list[Course] = []
    with find_device(options.device, target) as device, start_workers(device) as workers:
        arena = Arena(target, device, workers, shipped_records(target))
        print(f"{imported.model.name} for {target.name} on {device.describe()}: best us after so many trials")
        columns = "".join(f"{count:10}" for count in milestones(options.trials))
        print(f"{'operator':16}{'strategy':10}{columns}{'shipped':>10}{'trials':>8}  {'failed':16}{'search':>8}")
        for task in tasks:
            for strategy in options.strategies:
                courses.append(arena.course(task, strategy, options.trials, options.seed))
                print(courses[-1].line(), flush=True)
        if options.json:
            facts = {
                "schema": 1,
                "model": imported.model.name,
                "target": target.name,
                "device": msgspec.to_builtins(device.facts),
            }
            facts["courses"] = [asdict(course) for course in courses]
            options.json.write_text(json.dumps(facts, indent=2) + "\n")
    for line in summary(courses):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
