"""Tunes the operators of all published ShuffleNets at 224x224 and writes the best record of each to tuning_logs/.

    python benchmarks/ship_records.py --target cortex-a72
    python benchmarks/ship_records.py --target x86-64 --device local --trials 24
    python benchmarks/ship_records.py --target cortex-a55 --after cortex-a53 --trials 3

The networks share most of their operators. Every operator gets ``--trials`` trials, and those that carry a network of
width 1 three times as many. All trials are kept in ``--work``; the run may be stopped at any time, and the same command
goes on from there. ``tuning_logs/<target>/best.jsonl`` is written anew after every batch of operators.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_shufflenet.graph.pipeline import fuse

os.environ.setdefault("TVM_NUM_THREADS", "1")

from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.errors import BadInput, DeployError, NothingMeasured
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.tuning.measuring.measurer import start_workers
from tvm_shufflenet.tuning.measuring.workers import Workers
from tvm_shufflenet.tuning.records.shipped import write_best
from tvm_shufflenet.tuning.records.store import RecordStore, workload_hash
from tvm_shufflenet.tuning.search.driver import Tuner
from tvm_shufflenet.tuning.search.progress import Progress
from tvm_shufflenet.workflow.imported import import_model

PUBLISHED = re.compile(r"shufflenet_v1_g\d_x\d_\d+|shufflenet_v2_x\d_\d+")
FAVOURED = re.compile(r".*_x1_0")
FAVOURED_TRIALS = 3
FAVOURED_SHARE = 0.02  # of the network's operations
# Operators of a kind are tuned together and share a cost model, whose training takes longer the more it has seen.
TOGETHER = 24
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Wanted:
    """An operator to tune, and how many trials it is worth."""

    task: OperatorTask
    workload: str
    trials: int

    @property
    def kind(self) -> str:
        return rules.template_name(self.task.mod) or ""


def collect(names: list[str], target: Target, trials: int) -> list[Wanted]:
    """The distinct operators of the networks; how often one occurs is counted over all of them."""
    found: dict[str, Wanted] = {}
    for number, name in enumerate(names, start=1):
        for wanted in operators(name, target, trials):
            known = found.get(wanted.workload)
            found[wanted.workload] = wanted if known is None else merged(known, wanted)
        print(f"{number}/{len(names)} networks, {len(found)} operators ({name})", flush=True)
    return list(found.values())


def operators(name: str, target: Target, trials: int) -> Iterator[Wanted]:
    module = import_model(models.find_model(name)).module
    tasks = fuse(module, target).tasks
    total = sum(task.occurrences * task.flops for task in tasks)
    for task in tasks:
        heavy = FAVOURED.fullmatch(name) and task.occurrences * task.flops >= FAVOURED_SHARE * total
        yield Wanted(task, workload_hash(task.mod), trials * (FAVOURED_TRIALS if heavy else 1))


def merged(one: Wanted, other: Wanted) -> Wanted:
    task = replace(one.task, occurrences=one.task.occurrences + other.task.occurrences)
    return Wanted(task, one.workload, max(one.trials, other.trials))


def groups(wanted: Iterable[Wanted]) -> list[list[Wanted]]:
    """Those with most trials first, then by kind, heaviest first."""
    ordered = sorted(wanted, key=lambda each: (-each.trials, each.kind, -each.task.flops))
    found: list[list[Wanted]] = []
    for each in ordered:
        last = found[-1] if found else None
        if last and len(last) < TOGETHER and (last[0].trials, last[0].kind) == (each.trials, each.kind):
            last.append(each)
        else:
            found.append([each])
    return found


class Shipping:
    """One run for a target on a device; trials go to ``store``, the best of them to ``folder``."""

    def __init__(self, target: Target, device: Device, workers: Workers, store: RecordStore, folder: Path, seed: int):
        self.target, self.device, self.store, self.folder, self.seed = target, device, store, folder, seed
        self.workers = workers
        self.causes: dict[str, int] = {}
        self._started = time.monotonic()

    def left(self, group: list[Wanted]) -> list[Wanted]:
        """Those that have not had their number of trials, earlier runs' included."""
        return [each for each in group if len(self.store.trials(each.workload, self.device.clock)) < each.trials]

    def tune(self, group: list[Wanted], label: str) -> None:
        """Bring a group to its number of trials. A space may be exhausted before."""

        def report(progress: Progress) -> None:
            minutes = (time.monotonic() - self._started) / 60
            print(
                f"{label}: {progress.reused + progress.done}/{progress.requested} trials, {progress.failed} failed, "
                f"{progress.trials_per_minute:.0f} trials/min, {minutes:.0f} min in all ({progress.task})",
                flush=True,
            )

        tuner = Tuner(
            [each.task for each in group],
            self.target,
            self.device,
            self.store,
            trials=sum(each.trials for each in group),
            seed=self.seed,
            on_progress=report,
        )
        try:
            result = tuner.run(self.workers)
        except NothingMeasured as exc:
            print(f"{label}: {exc}", flush=True)
            return
        for cause, count in result.causes.items():
            self.causes[cause] = self.causes.get(cause, 0) + count

    def write(self, wanted: Iterable[Wanted]) -> str:
        """Write the best records; returns what was written, in words."""
        known = {each.workload for each in wanted}
        lines = [best for best in self.store.best(self.device.clock) if best.trial.workload in known]
        path = write_best(self.folder, lines)
        return f"{path}: {len(lines)} of {len(known)} operators, {path.stat().st_size / 1e6:.2f} MB"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="see tvm-shufflenet targets")
    parser.add_argument("--device", help="as for tvm-shufflenet tune")
    parser.add_argument("--trials", type=int, default=16, metavar="N", help="trials for each operator (16)")
    parser.add_argument("--models", nargs="*", metavar="M", help="networks (all published ShuffleNets)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the N operators that are worth most trials")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where all trials go (build/ship_records/<target>)")
    parser.add_argument("--after", metavar="TARGET", help="also try what is shipped for that target")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write (tuning_logs/<target>)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search (0)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    target = find_target(options.target)
    if target.shipped is not None:
        raise BadInput(f"{target.name} reads the records shipped for {target.shipped}", "", f"tune {target.shipped}")
    names = options.models or [name for name in models.names() if PUBLISHED.fullmatch(name)]
    after = find_target(options.after) if options.after else target
    store = RecordStore(
        options.work or ROOT / "build/ship_records" / target.name,
        target.tvm(),
        shipped=ROOT / "tuning_logs" / after.name if options.after else None,
        shipped_target=after.tvm(),
    )
    wanted = collect(names, target, options.trials)
    todo = groups(wanted)
    if options.limit:
        todo = groups([each for group in todo for each in group][: options.limit])
    output = options.output or ROOT / "tuning_logs" / target.name
    with find_device(options.device, target) as device, start_workers(device) as workers:
        shipping = Shipping(target, device, workers, store, output, options.seed)
        print(f"{len(wanted)} operators of {len(names)} networks for {target.name} on {device.describe()}", flush=True)
        for number, group in enumerate(todo, start=1):
            if left := shipping.left(group):
                shipping.tune(left, f"group {number}/{len(todo)}")
                print(shipping.write(wanted), flush=True)
        print(shipping.write(wanted), *(f"failed by {cause}: {count}" for cause, count in shipping.causes.items()))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeployError as exc:
        sys.exit(f"{exc}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
