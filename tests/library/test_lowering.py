"""Tiles of accumulators lie on the stack, and what is computed stays the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from tvm import tirx
from tvm.s_tir import Schedule

from helpers.kernels import HOST, module
from helpers.laid_out import Pointwise
from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.keep_nan import KeepNaN
from tvm_shufflenet.library.lowering import PIPELINE, STACK_BYTES, on_stack
from tvm_shufflenet.schedules import rules

KERNEL = Pointwise(1, 45, 14, 14, 45, 45, residual=True, relu=True)
WORKSPACE = "TVMBackendAllocWorkspace"


def scheduled(target: str = "x86-64-avx512") -> tvm.IRModule:
    """Its tile of 8 rows of 3 vectors takes more than TVM leaves on the stack by itself."""
    return rules.default_schedule(module(KERNEL), machine_for(find_target(target))).mod


def assembly(mod: tvm.IRModule, target: str, pipeline: str) -> str:
    return tvm.compile(mod, find_target(target).tvm(), tir_pipeline=pipeline).mod.inspect_source("s")


@pytest.mark.parametrize("target", ["cortex-a72", "x86-64", "x86-64-avx512"])
def test_tiles_are_on_the_stack(target):
    assert WORKSPACE in assembly(scheduled(target), target, "default")
    assert WORKSPACE not in assembly(scheduled(target), target, PIPELINE)


def test_what_is_too_large_for_a_stack_stays():
    buffer = tirx.decl_buffer((STACK_BYTES // 4 + 1,), "float32", scope="local")
    assert not on_stack(tirx.AllocBuffer(buffer)).annotations
    assert on_stack(tirx.AllocBuffer(tirx.decl_buffer((STACK_BYTES // 4,), "float32", scope="local"))).annotations


def test_the_result_is_the_same_to_the_bit():
    rng = np.random.default_rng(0)
    arguments = [rng.standard_normal(shape).astype(dtype) for shape, dtype in argument_shapes(scheduled())]
    results = []
    for pipeline in ("default", PIPELINE):
        tensors = [tvm.runtime.tensor(argument) for argument in arguments]
        tvm.compile(scheduled(), HOST.tvm(), tir_pipeline=pipeline)["main"](*tensors)
        results.append(tensors[-1].numpy())
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], arguments[-1])


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("how", ["relu", "clip", "maximum", "minimum", "max pool"])
def test_a_nan_stays(how, vectorised):
    """On either side, as in PyTorch; TVM's own lowering loses it."""
    from tvm import te, topi

    one, other = (te.placeholder((1, 1, 8, 8), name=name) for name in ("one", "other"))
    result = {
        "relu": lambda: topi.nn.relu(one),
        "clip": lambda: topi.clip(one, -0.5, 0.5),
        "maximum": lambda: topi.maximum(one, other),
        "minimum": lambda: topi.minimum(one, other),
        "max pool": lambda: topi.nn.pool2d(one, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), "max"),
    }[how]()
    schedule = Schedule(te.create_prim_func([one, other, result]))
    if vectorised and how != "max pool":
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            schedule.vectorize(schedule.get_loops(block)[-1])
    library = tvm.compile(schedule.mod, find_target("local").tvm(), tir_pipeline=PIPELINE)
    first, second = np.random.default_rng(0).standard_normal((2, 1, 1, 8, 8), dtype=np.float32)
    first[..., 2, 3], second[..., 5, 6] = np.nan, np.nan
    output = tvm.runtime.tensor(np.zeros((1, 1, 8, 8), np.float32))
    library["main"](tvm.runtime.tensor(first), tvm.runtime.tensor(second), output)
    ours, data = torch.from_numpy(output.numpy()), (torch.from_numpy(first), torch.from_numpy(second))
    expected = {
        "relu": lambda one, _: one.relu(),
        "clip": lambda one, _: one.clamp(-0.5, 0.5),
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "max pool": lambda one, _: torch.nn.functional.max_pool2d(one, 3, 1, 1),
    }[how](*data)
    assert expected.isnan().any() and torch.equal(ours.nan_to_num(99), expected.nan_to_num(99))


def test_whole_numbers_are_compared_as_before():
    value = tirx.Var("value", "int32")
    body = tirx.Evaluate(tirx.Max(value, tirx.IntImm("int32", 0)))
    function = tirx.PrimFunc([value], body)
    kept = KeepNaN()(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    tvm.ir.assert_structural_equal(kept["main"].body, body, map_free_vars=True)
