"""Every table for the terminal at 80 and at 60 columns: words may go on in the next line, a number is never cut."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from helpers.profiles import cost, profile_of, work
from helpers.reproductions import A72, manifest
from tvm_shufflenet.devices.facts import DeviceFacts
from tvm_shufflenet.hardware.targets import targets
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.report import inspection, peers, profile, records, tables
from tvm_shufflenet.tuning.search.progress import TuneResult
from tvm_shufflenet.workflow.bench import Bench
from tvm_shufflenet.workflow.compare import Comparison
from tvm_shufflenet.workflow.contest import OURS, Contest, Contestant, Mean

LONG = "shufflenet_v1_g3_x1_0_biased_of_somebody_else_s_repository"
MEASURED = DeviceFacts("rpc://[2001:db8::1234:5678]:9090", "measured")


def long_manifest():
    return msgspec.structs.replace(manifest(137), model=LONG)


def latency(kind="measured") -> Latency:
    return Latency((1234567.8, 1234567.9, 1234568.1, 9876543.2), kind)


def best(console):
    row = {"target": "aarch64-linux-gnu cortex-a72 +neon", "clock": "emulated:raspberry-pi-4b", "workload": "1" * 20}
    tensors = [
        ((1, 960, 7, 7), "float32"),
        ((3, 80, 80, 4), "float32"),
        ((960,), "float32"),
        ((1, 960, 7, 7), "float32"),
    ]
    records.print_fastest(console, [SimpleNamespace(**row, arguments=tensors, threads=1, seconds=12345.6e-6)])
    return ["12345.6"]


def listed(console):
    group = {"target": "aarch64-linux-gnu cortex-a72 +neon +v8.2a +dotprod", "clock": "emulated:raspberry-pi-4b"}
    group |= {"tvm": "0.27.0.post1", "threads": 4, "workloads": 638, "records": 123456}
    records.print_summary(console, [{"folder": "f", "groups": [SimpleNamespace(**group)], "failed": {}, "skipped": []}])
    return ["638", "123456"]


def tuned(console):
    shapes = (((1, 960, 14, 14), "float32"),) * 2
    task = SimpleNamespace(
        name="fused_conv2d_add_relu_max_pool2d_7", space="generated", weight=12, trials=1234, best_seconds=98765.4e-6,
        cost_seconds=1185184.8e-6, flops=1e12, arguments=shapes, multiply_adds=0,
    )  # fmt: skip
    result = TuneResult(9999, 9999, 0, 0, 99.0, {}, None, "dotprod", (task,))
    tables.print_tuning(console, result, SimpleNamespace(folder=Path("records")))
    return ["1234", "98765.4", "1185184.8", "10125.0"]


def timed(kind: str):
    def show(console):
        row = cost("fused_conv2d16_add13_relu8_concatenate_reshape", work=work() if kind == "modelled" else None)
        profile.print_profile(console, profile_of(row, manifest=manifest(137), kind=kind))
        return ["120", "292739", "%"]

    return show


def benched(console):
    package = SimpleNamespace(manifest=long_manifest())
    tables.print_bench(console, Bench(package, MEASURED, 1, latency(), None, 1e-7))
    return ["1234.568", "9876.543"]


def deployed(console):
    us = {"median": 1234568.0, "min": 1234567.8, "p90": 9876543.2, "p99": 9876543.2, "samples": 100000}
    timing = SimpleNamespace(device={}, threads=1, latency_us=us, cold_us=None, peak_memory_bytes=None)
    facts = {"copied": (), "unchanged": (), "sent_bytes": 0, "to": "adb", "folder": "/data", "noise": None}
    package = SimpleNamespace(path="p", manifest=long_manifest())
    tables.print_deployed(console, SimpleNamespace(timing=timing, package=package, **facts))
    return ["1234.568", "9876.543", "100000"]


def compared(console):
    tables.print_comparison(console, Comparison(manifest(137), A72, 2, latency(), latency(), 1e-7, shipped=latency()))
    return ["TVM untuned", "shipped", "tuned", "1234.568", "9876.543"]


def contested(kind: str):
    def show(console):
        figures = {"core_cycles": 123.4e6, "l1_misses": 1.23e6, "l2_misses": 4.56e6}
        entries = (OURS, "onnxruntime with a name that is long")
        found = [Contestant(name, "1.0.20261020.dev0+gdeadbeef", latency(kind), 1e-7, cost=figures) for name in entries]
        peers.print_contest(console, Contest(LONG, msgspec.structs.replace(A72, kind=kind), 1, 1e-4, tuple(found)))
        return ["1234.568", "1.00"] + (["123.4", "1.23", "4.56"] if kind == "modelled" else ["9876.543"])

    return show


def means(console):
    entries = (Contestant(OURS, "1", latency(), 1e-7), Contestant("onnxruntime", "1", latency(), 1e-7))
    contest = Contest(LONG, MEASURED, 12, 1e-4, entries)
    peers.print_means(console, [contest], [Mean("d", 12, 1.0, (LONG,))])
    return ["12", "1234.568", "1.00"]


def models(console):
    row = {"name": LONG, "input_shape": [1, 3, 1024, 1024], "multiply_adds": 15503.2e6, "parameters": 138.36e6}
    tables.print_models(console, [row | {"paper_multiply_adds": 15500 * 10**6}])
    return ["15503.2 M", "15500 M", "138.36 M"]


def known_targets(console):
    tables.print_targets(console, targets().values())
    return ["cortex-a72"]


def inspected(console):
    found = long_manifest()
    package = SimpleNamespace(path="p", manifest=found, folder=Path("p"))
    file = {"name": f"include/{LONG}.hpp", "bytes": 123456789, "sha256": "0123456789ab" + "0" * 52}
    file["licences"] = ["Apache-2.0 WITH LLVM-exception", "MIT", "Apache-2.0"]
    inspection.print_inspection(console, {"package": "p", "form": "folder", "files": [file]}, package)
    return ["123456789", "0123456789ab"]


SHOWN = {
    "records best": best, "records list": listed, "tune": tuned, "profile, counted": timed("modelled"),
    "profile, timed": timed("measured"), "bench": benched, "deploy": deployed, "compare": compared,
    "compare with peers": contested("measured"), "compare with peers, modelled": contested("modelled"),
    "geometric means": means, "models": models, "targets": known_targets, "inspect": inspected,
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", SHOWN)
def test_no_number_is_cut(name, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    expected = SHOWN[name](console)
    text = console.file.getvalue()
    lines = [line for line in text.splitlines() if "  " in line.strip()]
    assert max(map(len, lines)) <= width
    for number in expected:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", text), f"{number} is not in\n{text}"
