"""What a workload without a record loses: by its template's default, and after the nearest record.

    python benchmarks/nearest.py --target cortex-a72
    python benchmarks/nearest.py --target cortex-a53 --models shufflenet_v1_g3_x1_0 --limit 5

The shipped records of a target are left out one by one. Each such workload is timed with its record, by default and
after the nearest of all other records where one is near, else by default. Times are over the record's own. The table
gives geometric means by template, and of how many workloads a near record was used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from statistics import geometric_mean
from typing import NamedTuple

os.environ.setdefault("TVM_NUM_THREADS", "1")

import msgspec
import program
import timing
from ship_records import PUBLISHED, ROOT, Wanted, collect

from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.nearest import Neighbour, near_trace
from tvm_shufflenet.tuning.records.shipped import BEST, Best
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics


class LeftOut(NamedTuple):
    """A workload whose record was left out: times without it over the time with it."""

    template: str
    default: float
    nearest: float
    used: bool


def leave_out(wanted: Wanted, record: Best, others: Iterable[Neighbour], target: Target, device: Device) -> LeftOut:
    """Raises RuntimeError."""
    mod, machine = wanted.task.mod, machine_for(target)
    near = near_trace(mod, wanted.task.arguments, machine, others)
    with_record = timing.seconds(rules.candidate(mod, record.record(mod).trace).sch.mod, target, device)
    default = timing.seconds(rules.default_schedule(mod, machine).mod, target, device) / with_record
    if near is None:
        return LeftOut(wanted.kind, default, default, used=False)
    after = timing.seconds(rules.candidate(mod, near[0]).sch.mod, target, device)
    return LeftOut(wanted.kind, default, after / with_record, used=True)


def line(name: str, found: list[LeftOut]) -> str:
    default, nearest = (geometric_mean(getattr(each, field) for each in found) for field in ("default", "nearest"))
    used = sum(each.used for each in found) / len(found)
    return f"{name:14}{len(found):10}{default:10.3f}{nearest:10.3f}{used:8.0%}"


def main() -> int:
    published = [name for name in models.names() if PUBLISHED.fullmatch(name)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cortex-a72", help="one with shipped records (cortex-a72)")
    parser.add_argument("--models", nargs="+", default=published, metavar="M", help="whose operators (the published)")
    parser.add_argument("--limit", type=int, metavar="N", help="time N workloads (all)")
    options = parser.parse_args()
    load_intrinsics()
    target = find_target(options.target)
    shipped = ROOT / "tuning_logs" / target.name / BEST
    if not shipped.is_file():
        raise BadInput(f"no records are shipped for {target.name}", "", "ls tuning_logs")
    lines = shipped.read_bytes().splitlines()
    records = {best.trial.workload: best for best in (msgspec.json.decode(line, type=Best) for line in lines)}
    neighbours = {workload: best.neighbour() for workload, best in records.items() if best.arguments}
    wanted = [each for each in collect(options.models, target, 1) if each.workload in neighbours][: options.limit]
    if not wanted:
        raise BadInput(f"no operator of these models has a record shipped for {target.name}", "", "name other --models")
    found = []
    with find_device(None, target) as device:
        for each in wanted:
            others = [neighbour for workload, neighbour in neighbours.items() if workload != each.workload]
            found.append(leave_out(each, records[each.workload], others, target, device))
            _, default, nearest, used = found[-1]
            print(f"{each.workload} {each.kind}: {default:.3f} {nearest:.3f}{'' if used else ' none near'}", flush=True)
    print(f"{'template':14}{'workloads':>10}{'default':>10}{'nearest':>10}{'used':>8}   times over the record's")
    for kind in sorted({each.template for each in found}):
        print(line(kind, [each for each in found if each.template == kind]))
    print(line("all", found))
    return 0


if __name__ == "__main__":
    program.run(main)
