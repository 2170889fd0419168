"""Runs an experiment: for every network, search where requested, compile, verify against PyTorch, time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..devices.base import Device
from ..errors import DeployError
from ..hardware.targets import Target
from ..profiling.roofline import limit_us
from ..tuning.records.store import RecordStore
from ..workflow.bench import bench_package
from ..workflow.compile import compile_package
from ..workflow.imported import Imported, import_model
from ..workflow.tune import tune_network
from .catalogue import Case, Experiment, size_name
from .results import Results, Row

Announce = Callable[[str], None]
WARMUP = 5


def run(
    experiment: Experiment,
    target: Target,
    device: Device,
    store: RecordStore,
    *,
    threads: int = 1,
    repeats: int = 10,
    trials: int = 0,
    announce: Announce = lambda text: None,
    on_row: Callable[[Results], None] = lambda results: None,
) -> Results:
    """On a started device. With ``trials``, a search of so many for each operator comes first, and ``store`` keeps it.

    A network that fails has its reason in its row, the others go on; ``on_row`` is called with the results so far after
    each, so that an interrupted run leaves something.
    """
    imported = partial(_imported, target=target, device=device, store=store, threads=threads, trials=trials)
    results = Results(experiment, target.name, device.facts, threads, ())
    for number, case in enumerate(experiment.cases, start=1):
        announce(f"{number} of {len(experiment.cases)}: {case.label} at {size_name(case.size)}")
        try:
            row = _row(case, imported(case), experiment.untuned, target, device, store, threads, repeats)
        except DeployError as exc:
            row = Row(case, failure=exc)
        results = replace(results, rows=(*results.rows, row))
        on_row(results)
    return results


def _imported(case: Case, target: Target, device: Device, store: RecordStore, threads: int, trials: int) -> Imported:
    """The network, its operators searched for."""
    imported = import_model(case.make(case.size))
    fused = imported.fused(target)
    count = trials * len(fused.tasks)
    if count:
        tune_network(
            fused, device, store, strategy="template", trials=count, seed=0, threads=threads,
            on_progress=lambda progress: None,
        )  # fmt: skip
    return imported


def _row(
    case: Case,
    imported: Imported,
    untuned: bool,
    target: Target,
    device: Device,
    store: RecordStore,
    threads: int,
    repeats: int,
) -> Row:
    row = Row(case)
    with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
        for name, records in _variants(store, untuned):
            package = compile_package(imported, target, records, Path(folder) / name, threads, clocks=(device.clock,))
            found = bench_package(package, device, threads, WARMUP, repeats)
            if records is None:
                row = replace(row, untuned=found.latency)
            else:
                row = replace(row, manifest=package.manifest, latency=found.latency, max_abs_err=found.max_abs_err)
                if board := device.facts.board:
                    row = replace(row, limit_us=limit_us(package.manifest.operators, board, threads))
    return row


def _variants(store: RecordStore, untuned: bool) -> Iterator[tuple[str, RecordStore | None]]:
    yield "tuned", store
    if untuned:
        yield "untuned", None
