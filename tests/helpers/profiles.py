"""Profiles with chosen costs."""

from __future__ import annotations

from tvm_shufflenet.devices.facts import DeviceFacts
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.packages.manifest import OperatorEntry
from tvm_shufflenet.profiling.result import OperatorCost, Profile, Work


def profile_of(*rows: OperatorCost, manifest, kind: str = "modelled", **more) -> Profile:
    device = DeviceFacts("emulated:cortex-a72", kind, 3.8)
    if kind == "modelled":
        runtime = OperatorCost(OperatorEntry("runtime", 1, "runtime", multiply_adds=0), 1.0, work())
        more = {"runtime": runtime, "core_peak": 4} | more
    return Profile(manifest, device, 1, Latency((100.0,), kind), rows, 1e-6, **more)


def work(cycles: float = 526_930_200.0, bound: str = "front end") -> Work:
    return Work(cycles, 23_456_789, 12_345_678, 10**9, 2 * 10**9, {bound: cycles, "L1": 1.0})


def cost(name: str, time_us: float = 292_739.4, schedule: str = "template", calls: int = 120, **more) -> OperatorCost:
    return OperatorCost(OperatorEntry(name, calls, schedule, multiply_adds=3_000_000, arguments=()), time_us, **more)
