"""Whether the modelled clock puts schedules in the order that llvm-mca's timeline of the really executed code does.

    python benchmarks/ranking.py --target cortex-a72 --json ranking-a72.json
    python benchmarks/ranking.py --target cortex-a53 --operators shufflenet_v1_g3_x1_0:depthwise1 --schedules 10

For each operator, half of the schedules are drawn from the template's space and half from the one that TVM generates
(``--strategies template`` for the template's alone, whose schedules often differ by less than the reference can tell).
Each is run once on the emulated core, which counts and writes down every block that it executes. The model prices the
counts. The other estimate knows nothing of them: it is llvm-mca's timeline of stretches of the instructions as they
ran, spread over the whole trace; each block counts with its mean in these. So it shares none of the model's short cuts
(one history per edge, settled pipelines, what is not simulated, loops, the scale), but the same tables of the core's
instructions. It sees no cache; memory is priced beside it in the plainest way, every line that moved and every load
that waits, one after the other.

Columns: instructions per schedule; the slowest schedule's modelled time over the fastest's; by how much two halves of
the stretches differ (median, worst); then Spearman's coefficients: ``halves`` of the two halves with each other
(low where the sample cannot tell the schedules apart), ``pipeline`` of the model's simulated cycles with the timeline,
``core`` of the same after the scale and the limits of the core's units, ``total`` of its whole time with timeline and
memory, ``time/tl`` of its whole time with the timeline alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np
import program
import timing
import tvm
from strategies import STRATEGIES
from tvm.s_tir import meta_schedule as ms

from tvm_shufflenet import models
from tvm_shufflenet.clock.counts import Code, Counts, read_counts, read_trace, trace_file
from tvm_shufflenet.clock.cycles import CycleModel, Traffic, traffic_of
from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.boards import Board, find_board
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.tuning.records.store import workload_hash
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics
from tvm_shufflenet.workflow.imported import import_model

V1, V2 = "shufflenet_v1_g3_x1_0", "shufflenet_v2_x1_0"
OPERATORS = (
    f"{V1}:pointwise2",  # grouped, 240 to 60 channels at 28x28
    f"{V1}:pointwise7",  # grouped, with the sum, 120 to 480 at 14x14
    f"{V1}:convolution",  # the stem
    f"{V1}:depthwise3",  # 120 channels at 14x14
    f"{V1}:pointwise10",  # grouped, 960 to 240 at 7x7
    f"{V2}:pointwise8",  # 116 to 116 channels at 14x14
    f"{V1}:depthwise1",  # 60 channels at 28x28
)
STRETCHES, LENGTH, LEAD_IN = 24, 1500, 300  # instructions of each stretch that count, and of those before
FRUITLESS_SEEDS = 20  # a space that gave nothing new for so many has no more

Stretch = list[tuple[Code, int]]  # blocks as they ran, and the cycles that each added


@dataclass(frozen=True)
class Point:
    """One schedule, in cycles. ``timeline_cycles`` are extrapolated from all stretches and from either half of them."""

    default: bool
    instructions: int
    simulated_cycles: float
    core_cycles: float
    total_cycles: float
    timeline_cycles: float
    halves: tuple[float, float]
    memory_cycles: float

    @property
    def half_difference(self) -> float:
        return abs(self.halves[0] - self.halves[1]) / self.timeline_cycles


@dataclass(frozen=True)
class Ranking:
    operator: str
    points: tuple[Point, ...]

    def spearman(self) -> dict[str, float]:
        simulated, core, total, timeline, memory = (
            np.array([getattr(point, f"{name}_cycles") for point in self.points])
            for name in ("simulated", "core", "total", "timeline", "memory")
        )
        return {
            "halves": spearman(*zip(*(point.halves for point in self.points), strict=True)),
            "pipeline": spearman(simulated, timeline),
            "core": spearman(core, timeline),
            "total": spearman(total, timeline + memory),
            "time/tl": spearman(total, timeline),
        }

    def line(self) -> str:
        times = [point.total_cycles for point in self.points]
        off = [point.half_difference for point in self.points]
        instructions = np.median([point.instructions for point in self.points])
        coefficients = "".join(f"{value:9.3f}" for value in self.spearman().values())
        return (
            f"{self.operator:36}{len(times):5}{instructions / 1e6:8.2f} M{max(times) / min(times):8.2f}"
            f"{np.median(off):8.1%}{max(off):8.1%}{coefficients}"
        )


HEADER = (
    f"{'operator':36}{'n':>5}{'instr.':>10}{'range':>8}{'median':>8}{'worst':>8}"
    f"{'halves':>9}{'pipeline':>9}{'core':>9}{'total':>9}{'time/tl':>9}"
)


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def ranks(values: Sequence[float]) -> np.ndarray:
    """Places from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def draw(task: OperatorTask, target: Target, count: int, seed: int, strategy: str = "template") -> list[tvm.IRModule]:
    """Schedules of a strategy's space that compile, all different; fewer where it has no more.

    A template's default comes first.
    """
    machine, random = machine_for(target), np.random.default_rng(seed)
    found = [rules.default_schedule(task.mod, machine).mod] if strategy == "template" else []
    known, fruitless = set(map(workload_hash, found)), 0
    for attempt in itertools.count(seed + 1):
        context = ms.TuneContext(
            task.mod,
            target=target.tvm(),
            space_generator=rules.space(task.mod, machine, strategy),
            rand_state=attempt,
        )
        finish = context.space_generator.postprocs or ()  # a template's schedules are finished as they are
        drawn = [each.mod for each in context.generate_design_space() if all(step.apply(each) for step in finish)]
        before = len(found)
        for mod in (drawn[index] for index in random.permutation(len(drawn))):
            if workload_hash(mod) not in known:
                known.add(workload_hash(mod))
                found += [mod] if strategy == "template" or compiles(mod, target) else []
        fruitless = fruitless + 1 if len(found) == before else 0
        if len(found) >= count or fruitless == FRUITLESS_SEEDS:
            return found[:count]


def compiles(mod: tvm.IRModule, target: Target) -> bool:
    """Some schedules of the generated space do not: the search counts them as failed."""
    try:
        tvm.compile(mod, target.tvm())
    except Exception:  # whatever TVM raises
        return False
    return True


def extrapolated(stretches: Iterable[Stretch], executed: Counter[Code]) -> float:
    """Cycles of all that was executed: each block takes what its runs in the stretches take on average.

    So stretches that hold more of a loop's end than there is of it in the whole do no harm.
    """
    cycles, runs = Counter(), Counter()
    for code, added in itertools.chain.from_iterable(stretches):
        cycles[code] += added
        runs[code] += 1
    average = cycles.total() / sum(count * len(code) for code, count in runs.items())
    return float(
        sum(
            count * (cycles[code] / runs[code] if code in runs else average * len(code))
            for code, count in executed.items()
        )
    )


class Estimator:
    """Prices what was traced: by the model, and by llvm-mca's timeline."""

    def __init__(self, board: Board, seed: int):
        self.board, self.seed = board, seed
        self.model = CycleModel(board)

    def point(self, dump: Path, default: bool) -> Point:
        counts, trace = read_counts(dump), read_trace(dump)
        cost, executed = self.model.price(counts), Counter(trace)
        stretches = self.stretches(trace)
        return Point(
            default,
            cost.instructions,
            sum(loop.simulated_cycles for loop in self.model.loops(counts)),
            cost.core_cycles,
            cost.total_cycles,
            extrapolated(stretches, executed),
            (extrapolated(stretches[::2], executed), extrapolated(stretches[1::2], executed)),
            self.memory_cycles(counts),
        )

    def stretches(self, trace: list[Code]) -> list[Stretch]:
        """Each lies anywhere in its part of the trace, so that they do not keep step with a loop."""
        executed = np.cumsum([len(code) for code in trace])
        offsets = (np.arange(STRETCHES) + np.random.default_rng(self.seed).random(STRETCHES)) / STRETCHES
        starts = offsets * max(executed[-1] - LEAD_IN - LENGTH, 0)
        bounds = np.searchsorted(executed, starts[:, None] + [0, LEAD_IN, LEAD_IN + LENGTH])
        windows = [tuple(trace[first : last + 1]) for first, _, last in bounds]
        found = self.model.pipeline.ends(windows)
        parts = zip(windows, (found[window] for window in windows), bounds[:, 1] - bounds[:, 0], strict=True)
        return [list(zip(window, np.diff(ends, prepend=0), strict=True))[led + 1 :] for window, ends, led in parts]

    def memory_cycles(self, counts: Counts) -> float:
        """Every line that moves and every load that waits, nothing of it at the same time as anything else."""
        moved = sum(map(traffic_of, counts.blocks), Traffic())
        beyond_l2_ns = moved.dram_lines * self.board.dram_line_ns + moved.dram_stalls * self.board.dram_latency_ns
        return (moved.l2_lines + moved.l2_stalls) * self.board.core.l2_latency + beyond_l2_ns * self.board.clock_ghz


def rank(name: str, mods: Sequence[tvm.IRModule], target: Target, seed: int) -> Ranking:
    """Runs every schedule on an emulated core. Raises DeployError, RuntimeError."""
    board, points = find_board(target.board), []
    estimator = Estimator(board, seed)
    with tempfile.TemporaryDirectory(prefix="ranking-") as folder, EmulatedDevice(board, traces=Path(folder)) as device:
        for mod in mods:
            timing.seconds(mod, target, device)
            (dump,) = Path(folder).glob("*.2")  # what a session times first was the rehearsal
            points.append(estimator.point(dump, default=not points))
            dump.unlink()
            trace_file(dump).unlink()
    return Ranking(name, tuple(points))


def tasks_of(names: Sequence[str], target: Target) -> dict[str, OperatorTask]:
    found = {}
    for model in dict.fromkeys(name.partition(":")[0] for name in names):
        fused = import_model(models.find_model(model)).fused(target)
        found |= {f"{model}:{task.name}": task for task in fused.tasks}
    return {name: found[name] for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cortex-a72", help="one with a modelled core (cortex-a72)")
    parser.add_argument("--operators", nargs="+", default=OPERATORS, metavar="MODEL:OPERATOR")
    parser.add_argument("--schedules", type=int, default=30, help="of each operator, the default included (30)")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="whose spaces (both)")
    parser.add_argument("--seed", type=int, default=0, help="of schedules and stretches (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all points")
    options = parser.parse_args()
    load_intrinsics()
    target, rankings = find_target(options.target), []
    print(HEADER)
    for name, task in tasks_of(options.operators, target).items():
        share = options.schedules // len(options.strategies)
        mods = [mod for strategy in options.strategies for mod in draw(task, target, share, options.seed, strategy)]
        rankings.append(rank(name, mods, target, options.seed))
        print(rankings[-1].line(), flush=True)
        if options.json:
            facts = {"schema": 1, "target": target.name}
            facts["rankings"] = [asdict(each) | {"spearman": each.spearman()} for each in rankings]
            options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    program.run(main)
