"""Small tiles of accumulators lie on the stack, and what is computed stays the same."""

from __future__ import annotations

import numpy as np
import tvm
import tvm_ffi
from kernels import HOST, module
from tvm import tirx

from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.library.lowering import PIPELINE, STACK_BYTES, size_of
from tvm_shufflenet.operators.pointwise import Pointwise
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.targets import find_target

KERNEL = Pointwise(1, 45, 14, 14, 45, 45, residual=True, relu=True)


def scheduled() -> tvm.IRModule:
    return rules.default_schedule(
        module(KERNEL), rules.machine(find_target("cortex-a72"))
    ).mod  # wider tiles may be too large


def allocations(mod: tvm.IRModule, pipeline: str) -> list[tuple[str, int]]:
    """Scope and bytes of what a lowered function allocates."""
    lower = tirx.get_tir_pipeline(pipeline)[0]
    target = HOST.tvm()
    lowered = lower(tirx.transform.BindTarget(target.with_host(target))(mod))
    found = []

    def note(allocation: tirx.AllocBuffer) -> None:
        found.append((allocation.buffer.scope(), size_of(allocation.buffer)))

    for _, function in lowered.functions_items():
        tvm_ffi.structural_walk(function.body, (tirx.AllocBuffer, note))
    return found


def test_small_tiles_move_to_the_stack_and_large_ones_stay():
    before, after = allocations(scheduled(), "default"), allocations(scheduled(), PIPELINE)
    small = [size for scope, size in before if scope == "local" and size < STACK_BYTES]
    assert small and ("global", small[0]) in after
    assert [scope for scope, size in after if scope == "local" and size < STACK_BYTES] == []
    assert sorted(size for _, size in before) == sorted(size for _, size in after)


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
