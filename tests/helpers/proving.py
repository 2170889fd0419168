"""A network through the whole line on this machine, against PyTorch: what it computes, twice, on several inputs."""

from __future__ import annotations

import random

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from helpers.generated import Generated, inputs
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.isa import AVX2, AVX512, NEON
from tvm_shufflenet.hardware.machine import unknown
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.library.lowering import executable
from tvm_shufflenet.library.scheduling import schedule_tuned
from tvm_shufflenet.models import exporting
from tvm_shufflenet.schedules import rules

MACHINES = (unknown(NEON), unknown(AVX2), unknown(AVX512))


def random_schedules(module: tvm.IRModule, target: Target, seed: int) -> ms.database.MemoryDatabase:
    """A record for each operator that has a template: a random point of a random variant, for some machine."""
    draw, database = random.Random(seed), ms.database.MemoryDatabase()
    for task in pipeline.fuse(module, target).tasks:
        name = rules.template_name(task.mod)
        if name is None:
            continue
        points = list(rules.TEMPLATES[name](Schedule(task.mod, seed=seed + 1), draw.choice(MACHINES)))
        candidate = rules.candidate(task.mod, draw.choice(points).trace)
        workload = database.commit_workload(task.mod)
        database.commit_tuning_record(
            ms.database.TuningRecord(candidate.sch.trace, workload, [1e-3], target.tvm(), candidate.args_info)
        )
    return database


def wrong(network: Generated, seed: int | None = None, count: int = 3) -> str | None:
    """What is wrong with the compiled network, None where it is right. With a ``seed`` its schedules are random."""
    target = find_target("local")
    imported = frontend.to_relax(exporting.export(network, network.shape))
    database = ms.database.MemoryDatabase() if seed is None else random_schedules(imported, target, seed)
    scheduled = schedule_tuned(fuse(imported, target), database)
    built = executable(scheduled.planned, target.tvm())
    return _difference(network, relax.VirtualMachine(built, tvm.cpu()), count)


def _difference(network: Generated, machine: relax.VirtualMachine, count: int) -> str | None:
    for number, data in enumerate(inputs(network, count)):
        given = tvm.runtime.tensor(data)
        first, second = (_answer(machine, given) for _ in range(2))
        expected, exact = (_reference(network, data, dtype) for dtype in (torch.float32, torch.float64))
        if first.shape != expected.shape:
            return f"input {number}: shape {first.shape}, not {expected.shape}"
        if not np.array_equal(given.numpy(), data):
            return f"input {number} was overwritten"
        if not np.array_equal(first, second, equal_nan=True):
            return f"input {number}: another answer the second time"
        if exact.size:
            allowed = 1e-5 * np.abs(exact).max() + 20 * np.abs(exact - expected).max()
            off = np.abs(first - exact).max()
            if not off <= allowed:
                return f"input {number}: off by {off:.3g}, {allowed:.3g} allowed"
    return None


def _reference(network: Generated, data: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """PyTorch's answer; weights come back from float64 as they were."""
    with torch.no_grad():
        answer = network.to(dtype)(torch.from_numpy(data).to(dtype)).numpy()
    network.float()
    return answer


def _answer(machine: relax.VirtualMachine, data: tvm.runtime.Tensor) -> np.ndarray:
    output = machine["main"](data)
    return (output if isinstance(output, tvm.runtime.Tensor) else output[0]).numpy().copy()
