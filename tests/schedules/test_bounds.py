"""No operator reads or writes outside its buffers, whatever the template's variant: its operands lie at guard pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.s_tir import Schedule

from helpers.kernels import HOST
from helpers.laid_out import Convolution, Dense, Depthwise, Pointwise, Pooling
from helpers.pointwise_cases import PointwiseCase
from tvm_shufflenet.hardware.isa import AVX512, NEON
from tvm_shufflenet.hardware.machine import Machine, unknown
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.schedules import rules

PROGRAM = Path(__file__).with_name("guarded.py")


@pytest.fixture(scope="module")
def fence():
    """The process that runs operators between guard pages, each in a child of its own."""
    process = subprocess.Popen([sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


def fenced(fence, mods: list[tvm.IRModule], operands: list[np.ndarray], folder: Path) -> None:
    """Run each of ``mods`` with the fence before and behind its operands. A process that touches it dies."""
    stored, libraries = folder / "operands.npz", [folder / f"{index}.so" for index in range(len(mods))]
    np.savez(stored, *operands)
    for mod, library in zip(mods, libraries, strict=True):
        tvm.compile(mod, HOST.tvm()).export_library(str(library))
    fence.stdin.write(json.dumps([str(stored), *map(str, libraries)]) + "\n")
    fence.stdin.flush()
    status, last = json.loads(fence.stdout.readline())
    assert status == 0, f"exit {status} at {last}"


def variants(mod: tvm.IRModule, machine: Machine) -> list[tvm.IRModule]:
    template = rules.TEMPLATES[rules.template_name(mod)]
    return [point.mod for point in template(Schedule(mod, seed=3), machine)]


# Operands are whole multiples of 64 bytes, the alignment that the compiled functions rely on.
CASES = {
    "49 pixels, 16 channels": Pointwise(16, 32, 7, 7, 32, 16, relu=True),
    "196 pixels, shuffled": Pointwise(4, 48, 14, 14, 48, 48, groups=3, relu=True, shuffle_groups=3),
    "tables": Pointwise(4, 48, 14, 14, 32, 16, gathered=True, window=Window(16, 32, scattered=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("machine", [unknown(NEON), unknown(AVX512)], ids=lambda machine: machine.isa.name)
@pytest.mark.parametrize("name", CASES)
def test_pointwise_stays_inside(name, machine, fence, tmp_path):
    case = PointwiseCase(CASES[name])
    mod = tvm.IRModule({"main": case.kernel.function()})
    fenced(fence, [rules.default_schedule(mod, machine).mod, *variants(mod, machine)[:3]], case.operands(), tmp_path)


def test_dense_stays_inside(fence, tmp_path):
    kernel, random = Dense(1, 64, 32, True, (4, 4)), np.random.default_rng(0)
    operands = [random.standard_normal(shape, dtype=np.float32) for shape in ((1, 64, 4, 4), (32, 64), (32,), (1, 32))]
    operands[1] = kernel.pack_weight(operands[1])
    mod = tvm.IRModule({"main": kernel.function()})
    fenced(fence, [rules.default_schedule(mod, unknown(AVX512)).mod], operands, tmp_path)


def test_the_fence_holds(fence, tmp_path):
    """An operator that reads one element too far dies: the test can fail."""
    from tvm import te

    source = te.placeholder((16,), name="source")
    shifted = te.compute((16,), lambda i: source[i + 1], name="shifted")
    mod = tvm.IRModule({"main": te.create_prim_func([source, shifted])})
    with pytest.raises(AssertionError, match=r"exit -11.*after"):
        fenced(fence, [mod], [np.zeros(16, np.float32), np.zeros(16, np.float32)], tmp_path)


# As above, results too are multiples of 64 bytes.
SLIDING = {
    "depthwise": (Depthwise(2, 16, 7, 7), [(2, 16, 7, 7), (16, 9), (16,)]),
    "depthwise of stride 2": (Depthwise(1, 16, 14, 14, stride=(2, 2)), [(1, 16, 14, 14), (16, 9), (16,)]),
    "convolution": (Convolution(1, 4, 18, 28, 16, stride=(2, 2)), [(1, 4, 18, 28), (16, 4, 3, 3), (16,)]),
    "pooling": (Pooling(1, 16, 9, 21), [(1, 16, 9, 21)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("machine", [unknown(NEON)], ids=lambda machine: machine.isa.name)
@pytest.mark.parametrize("name", SLIDING)
def test_sliding_windows_stay_inside(name, machine, fence, tmp_path):
    kernel, shapes = SLIDING[name]
    random = np.random.default_rng(0)
    operands = [random.standard_normal(shape, dtype=np.float32) for shape in (*shapes, kernel.output_shape)]
    if len(shapes) > 1:
        operands[1] = kernel.pack_weight(operands[1])
    mod = tvm.IRModule({"main": kernel.function()})
    fenced(fence, [rules.default_schedule(mod, machine).mod, *variants(mod, machine)[:2]], operands, tmp_path)
