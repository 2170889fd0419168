"""Alternating traversal: which operators turn round, that their loops do, and that no bit of a result changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch import nn
from tvm import relax, tirx
from tvm.script import tirx as T
from tvm.sym import Analyzer

from helpers.kernels import HOST, MACHINES, draw, module, schedules
from helpers.laid_out import Convolution, Depthwise, Pointwise
from helpers.networks import answer
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.bindings import Bindings
from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.library.alternate import (
    THREADS,
    AlternateTraversal,
    RunBackwards,
    marked,
    walked_backwards,
)
from tvm_shufflenet.library.lowering import PIPELINE
from tvm_shufflenet.models import exporting
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit


@T.prim_func(s_tir=True)
def order(log: T.Buffer((11,), "int32"), clock: T.Buffer((1,), "int32")):
    """Notes at what time each place is visited."""
    for place in T.serial(11):
        with T.sblock("visit"):
            i = T.axis.spatial(11, place)
            log[i] = clock[0]
            clock[0] = clock[0] + 1


@T.prim_func(s_tir=True)
def shared(log: T.Buffer((11,), "int32")):
    for place in T.parallel(11):
        with T.sblock("visit"):
            i = T.axis.spatial(11, place)
            log[i] = i


@T.prim_func(s_tir=True)
def sums(data: T.Buffer((3, 4), "float32"), result: T.Buffer((3,), "float32")):
    for step, row in T.grid(4, 3):
        with T.sblock("sum"):
            i, k = T.axis.remap("SR", [row, step])
            with T.init():
                result[i] = T.float32(0)
            result[i] = result[i] + data[i, k]


def turned(function: tirx.PrimFunc, threads: int = 1) -> tvm.IRModule:
    return tvm.IRModule({"main": marked(function).with_attr({THREADS: threads, "global_symbol": "main"})})


def outcome(mod: tvm.IRModule, operands: list[np.ndarray]) -> list[np.ndarray]:
    """What the operands hold after a run of the module as a library's functions are built."""
    compiled = tvm.tirx.build(mod, target=HOST.tvm(), pipeline=PIPELINE)
    tensors = [tvm.runtime.tensor(operand) for operand in operands]
    tvm.runtime.Executable(compiled)["main"](*tensors)
    return [tensor.numpy() for tensor in tensors]


def test_a_loop_runs_backwards():
    times, _ = outcome(turned(order), [np.zeros(11, np.int32), np.zeros(1, np.int32)])
    assert times.tolist() == list(range(11))[::-1]


@pytest.mark.parametrize(
    ("threads", "places"),
    [(1, [*range(10, -1, -1)]), (2, [5, 4, 3, 2, 1, 0, 10, 9, 8, 7, 6]), (4, [2, 1, 0, 5, 4, 3, 8, 7, 6, 10, 9])],
)
def test_each_thread_walks_its_own_share_backwards(threads, places):
    found = []

    def visit(loop: tirx.For) -> None:
        bound = loop.body[0]
        step = [tvm_ffi.structural_map(bound.value, (tirx.Var, lambda _, i=i: T.int32(i))) for i in range(11)]
        found.extend(int(Analyzer().simplify(value)) for value in step)

    tvm_ffi.structural_walk(RunBackwards()(turned(shared, threads))["main"].body, (tirx.For, visit))
    assert found == places


def test_a_sum_keeps_its_order():
    """Only the rows turn round: the steps are those of a reduction."""
    names = []
    tvm_ffi.structural_walk(marked(sums).body, (tirx.For, lambda loop: names.append(loop.loop_var.name)))
    assert sorted(names) == ["row_backwards", "step"]


KERNELS = [
    Pointwise(1, 24, 7, 7, 24, 20, relu=True),
    Pointwise(1, 12, 10, 10, 12, 24, 3, shuffle_groups=3),
    Depthwise(1, 8, 14, 14, (3, 3), (2, 2)),
    Convolution(1, 3, 17, 19, 8, stride=(2, 2), relu=True),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_no_bit_of_a_result_changes(kernel):
    operands = [draw(*shape) for shape, _ in argument_shapes(module(kernel))]
    for mod in (each for machine in MACHINES[::2] for each in schedules(kernel, machine)[:3]):
        expected = outcome(mod, operands)
        np.testing.assert_array_equal(outcome(turned(mod["main"]), operands)[-1], expected[-1])


def test_neighbours_alternate():
    """A unit's last operator and its first touch the largest tensor; each walks it the other way."""
    torch.manual_seed(0)
    units = nn.Sequential(*(ShuffleUnit(24, 24, 3, 1, 3) for _ in range(3))).eval()
    imported = frontend.to_relax(exporting.export(units, (1, 24, 14, 14)))
    fused = pipeline.fuse(imported, HOST).module
    backwards = {variable.name_hint for variable in walked_backwards(Bindings(fused["main"]))}
    assert backwards == {"depthwise", "pointwise1", "pointwise2"}
    data = tvm.runtime.tensor(draw(1, 24, 14, 14))
    answers = []
    for each in (fused, AlternateTraversal()(fused)):
        executable = relax.build(each, tvm.target.Target("llvm"), tir_pipeline=PIPELINE)
        answers.append(answer(relax.VirtualMachine(executable, tvm.cpu()), data))
    np.testing.assert_array_equal(*answers)
