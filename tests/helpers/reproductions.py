"""Results of experiments with chosen latencies."""

from __future__ import annotations

from helpers import tiny_packages
from tvm_shufflenet.devices.facts import DeviceFacts
from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.experiments.catalogue import EXPERIMENTS, Case
from tvm_shufflenet.experiments.results import Results, Row
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.packages.manifest import Manifest, OperatorEntry

A72 = DeviceFacts("emulated:cortex-a72", "modelled", 4.7)


def manifest(macs_m: float) -> Manifest:
    operators = (OperatorEntry("a", 2, "record", multiply_adds=round(macs_m * 4e5)),)
    operators += (OperatorEntry("b", 1, "template", multiply_adds=round(macs_m * 2e5)),)
    return tiny_packages.manifest((1, 3, 224, 224), (1, 10), model="net", tuned=True, operators=operators)


def row(case: Case, ms: float, macs_m: float, untuned_ms: float | None = None) -> Row:
    untuned = Latency((1e3 * untuned_ms,), "modelled") if untuned_ms else None
    return Row(case, manifest(macs_m), Latency((1e3 * ms,), "modelled"), untuned, 1e-7)


def table8() -> Results:
    experiment = EXPERIMENTS["table8"].at([(224, 224)])
    figures = ((8.0, 38), (26.0, 140), (100.0, 524), (160.0, 720))
    rows = [row(case, *pair) for case, pair in zip(experiment.cases, figures, strict=False)]
    rows.append(Row(experiment.cases[4], failure=BadInput("it has no picture", "", "draw one")))
    return Results(experiment, "cortex-a72", A72, 1, tuple(rows))
