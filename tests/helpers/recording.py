"""Workloads, trials and record folders as the tuner makes them."""

from __future__ import annotations

import tvm
from tvm.s_tir import meta_schedule as ms

from helpers.laid_out import Pointwise
from tvm_shufflenet.hardware.isa import NEON
from tvm_shufflenet.hardware.machine import unknown
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.tuning.records.store import (
    RecordStore,
    Trial,
    trace_hash,
    workload_hash,
)

MODELLED = "emulated:cortex-a72"
TARGET = find_target("arm64").tvm()
MACHINE = unknown(NEON)


def workload(channels: int = 8) -> tvm.IRModule:
    return tvm.IRModule({"main": Pointwise(1, 16, 4, 4, 16, channels, groups=2, relu=True).function()})


def candidate(mod: tvm.IRModule, decision: int = 0) -> ms.MeasureCandidate:
    """The template's default, with another decision for one knob."""
    default = rules.default_candidate(mod, MACHINE)
    trace = default.sch.trace
    knobs = [inst for inst in trace.insts if inst.kind.name == "SampleCategorical"]
    knob = next(inst for inst in knobs if len(inst.attrs[0]) > decision)
    schedule = tvm.s_tir.Schedule(mod)
    trace.with_decision(knob, decision, remove_postproc=False).apply_to_schedule(schedule, remove_postproc=False)
    return ms.MeasureCandidate(schedule, default.args_info)


def put(
    store: RecordStore,
    mod,
    seconds=0.5,
    kind="measured",
    decision=0,
    cause=None,
    device=None,
    target=TARGET,
    threads=1,
    search=None,
):
    """Append one trial as the tuner does: a record where it has ``seconds``, else a failure."""
    chosen = candidate(mod, decision)
    device = device or {"measured": "board", "modelled": MODELLED}[kind]
    trial = Trial(
        workload_hash(mod),
        trace_hash(chosen.sch.trace),
        "template",
        device,
        kind,
        "0.27",
        seconds=seconds,
        cause=cause,
        threads=threads,
        search=search,
    )
    record = None
    if seconds is not None:
        entry = ms.database.Workload(mod)
        record = ms.database.TuningRecord(chosen.sch.trace, entry, [seconds], target, chosen.args_info)
    store.append(trial, record, mod)


def best_us(store: RecordStore, mod, target=TARGET) -> float | None:
    """What a compilation would choose, in microseconds."""
    record = store.database().query_tuning_record(mod, target, "main")
    return None if record is None else round(1e6 * float(record.run_secs[0]), 6)


def all_us(store: RecordStore, clock=None) -> list[float]:
    database = store.database() if clock is None else store.database_of(clock)
    found = database.get_all_tuning_records()
    return sorted(round(1e6 * float(record.run_secs[0]), 6) for record in found)


def complaints(store: RecordStore) -> set[tuple[str, int]]:
    return {(line.file, line.number) for line in store.skipped}
