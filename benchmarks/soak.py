"""Tuning for hours: do descriptors, processes or memory grow?

    python benchmarks/soak.py --minutes 120

A network is tuned at full rate on emulated devices at a tracker, each a process of its own (fault_campaign.py, without
faults). Every few seconds it counts the open descriptors, processes and megabytes of the tuner, its workers, the
tracker and the devices with all below them: anonymous memory alone, each process's share of it, since which pages of a
library count as one process's own depends on who else has it loaded. The medians of the first and the last tenth of the
time after a warm-up are compared: growth of more than 5 % (and of more than one descriptor or process) is a leak, and
exit code 1. A tuner that has tried its whole space is followed by one with another seed, and judged for as long as it
lived; tracker and devices serve them all, and are warm when the first has ended: only then has a device served whole
networks, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import fault_campaign
import program
import psutil
from fault_campaign import Kept, Laboratory

from tvm_shufflenet.tuning.records.folder import JOURNAL

ALLOWED = 0.05
WINDOW = 0.1  # of the time after the warm-up
LEAST_SAMPLES = 20


class Usage(NamedTuple):
    """What a group of processes has open."""

    descriptors: int
    processes: int
    megabytes: float


@dataclass(frozen=True)
class Sample:
    seconds: float
    trials: int
    usage: dict[str, Usage]


def usage_of(processes: Iterable[psutil.Process]) -> Usage:
    """Those that end meanwhile do not count, nor does memory that is shared with whoever else runs."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append((process.num_fds(), megabytes_of(process.pid)))
    return Usage(sum(fds for fds, _ in found), len(found), sum(megabytes for _, megabytes in found))


def megabytes_of(pid: int) -> float:
    try:
        fields = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    except OSError as exc:
        raise psutil.NoSuchProcess(pid) from exc
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) / 1024


def sample(laboratory: Laboratory, tuner: Kept, records: Path, seconds: float) -> Sample:
    trials = fault_campaign.line_count(records / JOURNAL)
    top, *below = tuner.tree() or [None]
    devices = (process for server in laboratory.servers for process in server.tree())
    groups = {"tuner": [top] if top else [], "workers": below, "tracker": laboratory.tracker.tree(), "devices": devices}
    return Sample(seconds, trials, {name: usage_of(processes) for name, processes in groups.items()})


def growth(samples: list[Sample], group: str, warm_up_s: float) -> dict[str, tuple[float, float]] | None:
    """First and last median of each quantity while there are trials; None where there are too few samples for medians.

    Without workers, the tuner has come to its end: it compiles and times whole networks, which takes more than a trial.
    """
    tuning = [each for each in samples if each.usage["workers"].processes]
    settled = [each.usage[group] for each in tuning if each.seconds - samples[0].seconds >= warm_up_s]
    if len(settled) < LEAST_SAMPLES:
        return None
    count = max(LEAST_SAMPLES // 2, int(WINDOW * len(settled)))
    return {
        name: tuple(statistics.median(getattr(u, name) for u in part) for part in (settled[:count], settled[-count:]))
        for name in Usage._fields
    }


def leaks(name: str, before: float, after: float) -> bool:
    return after > before * (1 + ALLOWED) and (name == "megabytes" or after > before + 1)


def soak(laboratory: Laboratory, options: argparse.Namespace) -> list[list[Sample]]:
    """The samples of each tuner that ran."""
    runs: list[list[Sample]] = []
    started = time.monotonic()
    while time.monotonic() - started < 60 * options.minutes:
        seed = len(runs)
        records = laboratory.folder / f"records-{seed}"
        model = ["--model", options.model, "--strategy", options.strategy]
        tuner = laboratory.tuner(records, 10**6, seed, model)
        runs.append([])
        while (seconds := time.monotonic() - started) < 60 * options.minutes and tuner.ended() is None:
            time.sleep(options.every)
            if any(kept.ended() is not None for kept in (laboratory.tracker, *laboratory.servers)):
                raise fault_campaign.Failed("the tracker or a device has ended: " + laboratory.logs())
            runs[-1].append(sample(laboratory, tuner, records, seconds))
            if options.samples:
                with open(options.samples, "a") as file:
                    found = {name: tuple(usage) for name, usage in runs[-1][-1].usage.items()}
                    file.write(json.dumps([seed, round(seconds, 1), runs[-1][-1].trials, found]) + "\n")
        if tuner.ended() not in (None, 0):
            raise fault_campaign.Failed("the tuner has failed: " + laboratory.logs())
        tuner.stop()
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--warm-up", type=float, default=5, metavar="MINUTES", help="of each tuner (5)")
    parser.add_argument("--every", type=float, default=5, metavar="SECONDS")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--model", default="shufflenet_v1_g3_x1_0")
    parser.add_argument("--strategy", default="template")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="add every sample as a line of JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and tidy up
    with fault_campaign.scratch() as folder, Laboratory(folder, options.devices, small=False) as laboratory:
        laboratory.wait_for_devices()
        runs = soak(laboratory, options)
    everything = [each for run in runs for each in run]
    warm_up_s = 60 * options.warm_up
    first_s = runs[0][-1].seconds if len(runs) > 1 else 0.0
    judged = {f"{name}, run {n}": (run, name, warm_up_s) for n, run in enumerate(runs) for name in ("tuner", "workers")}
    judged |= {name: (everything, name, max(first_s, warm_up_s)) for name in ("tracker", "devices")}
    found, leaking = 0, []
    print(f"{'':16} {'descriptors':>18} {'processes':>14} {'megabytes':>18}")
    for label, (samples, name, warm_s) in judged.items():
        if (grown := growth(samples, name, warm_s)) is None:
            continue
        found += 1
        pairs = [f"{before:.0f} -> {after:.0f}" for before, after in grown.values()]
        print(f"{label:16} {pairs[0]:>18} {pairs[1]:>14} {pairs[2]:>18}")
        leaking += [f"{label}: {quantity}" for quantity, pair in grown.items() if leaks(quantity, *pair)]
    trials = sum(run[-1].trials for run in runs if run)
    print(f"{trials} trials in {options.minutes:g} minutes, {trials / options.minutes:.0f} a minute")
    if not found:
        raise RuntimeError("too short a time to tell: give it more --minutes, or less --warm-up")
    if leaking:
        raise RuntimeError("it grows: " + ", ".join(leaking))
    return 0


if __name__ == "__main__":
    program.run(main)
