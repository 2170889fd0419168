"""Tiles of accumulators lie on the stack, and what is computed stays the same."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from kernels import HOST, module
from tvm import tirx

from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.library.lowering import PIPELINE, STACK_BYTES, on_stack
from tvm_shufflenet.operators.pointwise import Pointwise
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.targets import find_target

KERNEL = Pointwise(1, 45, 14, 14, 45, 45, residual=True, relu=True)
WORKSPACE = "TVMBackendAllocWorkspace"


def scheduled(target: str = "x86-64-avx512") -> tvm.IRModule:
    """Its tile of 8 rows of 3 vectors takes more than TVM leaves on the stack by itself."""
    return rules.default_schedule(module(KERNEL), rules.machine(find_target(target))).mod


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
