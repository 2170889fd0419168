"""Times what a tuning trial is made of, on one core of this machine.

    python benchmarks/trials.py
    python benchmarks/trials.py --operators shufflenet_v2_x1_0:depthwise2 --target cortex-a53

Each operator is tried with its default schedule and others of its template's space, in two rounds: in the first no
block's cost is known, in the second all are, as for a schedule that is tried again. ``device`` is from the connection
to the checked result (upload, load, fill, run, count, price, digest); ``build`` is what comes before, TVM's compiler
and the linker. Milliseconds, medians over the schedules. This process and all it starts share one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import program
import tvm
from ranking import draw, tasks_of

from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.link import trial_command
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.measuring.trial import Job, build, measure
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics
from tvm_shufflenet.verification.operators import reference

# Both pointwise convolutions and the depthwise one of the third stage, where the network spends most of its time.
OPERATORS = ["shufflenet_v1_g3_x1_0:" + name for name in ("pointwise6", "depthwise3", "pointwise7")]
SESSION_SECONDS = 120.0


@contextmanager
def forgotten_costs():
    """A cache in which everything is built and no block's cost is known."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in toolchain.cache_dir().iterdir():
            if not entry.name.startswith("timelines"):
                Path(folder, entry.name).symlink_to(entry)
        os.environ["TVM_SHUFFLENET_CACHE"] = folder
        yield


def trial_ms(job: Job, folder: Path) -> tuple[float, float]:
    """Build and device. Raises DeployError, and what TVM raises."""
    library = folder / "trial.so"
    started = time.perf_counter()
    shapes = build(job, library)
    built = time.perf_counter()
    measure(job, job.endpoint.connect(job.session_seconds), library, shapes)
    return 1e3 * (built - started), 1e3 * (time.perf_counter() - built)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cortex-a72", help="one with a modelled core (cortex-a72)")
    parser.add_argument("--operators", nargs="+", default=OPERATORS, metavar="MODEL:OPERATOR")
    parser.add_argument("--schedules", type=int, default=12, help="of each operator, the default included (12)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    load_intrinsics()
    target = find_target(options.target)
    print(f"{'operator':40} {'build':>8} {'device':>8} {'known':>8}   ms, medians of {options.schedules} schedules")
    with forgotten_costs(), EmulatedDevice(find_board(target.board)) as device, tempfile.TemporaryDirectory() as folder:
        for name, task in tasks_of(options.operators, target).items():
            expected = reference(task.mod)
            jobs = [
                Job(
                    tvm.ir.save_json(mod), target.tvm_config, tuple(trial_command(target)), target.machine,
                    device.endpoint(), 1, 3, 15, SESSION_SECONDS, expected,
                )
                for mod in draw(task, target, options.schedules, options.seed)
            ]  # fmt: skip
            first, again = ([trial_ms(job, Path(folder)) for job in jobs] for _ in range(2))
            figures = [median(ms[0] for ms in first), median(ms[1] for ms in first), median(ms[1] for ms in again)]
            print(f"{name:40}" + "".join(f" {figure:8.0f}" for figure in figures), flush=True)
    return 0


if __name__ == "__main__":
    program.run(main)
