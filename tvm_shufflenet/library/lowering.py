"""How scheduled operators are lowered: TVM's own passes, and two of ours behind those that compute addresses."""

from __future__ import annotations

import math

import tvm
import tvm_ffi
from tvm import tirx

from .alternate import RunBackwards

PIPELINE = "tvm_shufflenet"
STACK_BYTES = 1024  # what is smaller lies on the stack, where TVM may choose


@tirx.transform.prim_func_pass(opt_level=0, name="TilesOnStack")
class TilesOnStack:
    """Put small tiles of scope "local" on the stack, where LLVM makes registers of them.

    TVM asks its runtime for their memory. LLVM cannot see that such memory is nobody else's: where it inlines an
    operator into the function that unpacks its arguments, it forgets that these do not overlap, and every accumulator
    goes through memory, at less than half the speed.
    """

    def transform_function(self, function: tirx.PrimFunc, _mod, _context) -> tirx.PrimFunc:
        return function.with_body(tvm_ffi.structural_mutate(function.body, (tirx.AllocBuffer, _on_stack)))


def _on_stack(allocation: tirx.AllocBuffer, _mutator) -> tirx.Stmt:
    buffer = allocation.buffer
    if buffer.scope() != "local" or size_of(buffer) >= STACK_BYTES:
        return allocation
    tile = tirx.decl_buffer(buffer.ty.shape, str(buffer.ty.dtype.dtype), f"{buffer.name}_tile")
    return tirx.SeqStmt([tirx.AllocBuffer(tile), tirx.DeclBuffer(buffer, data=tile.data)])


def size_of(buffer: tirx.Var) -> int:
    """Bytes of a buffer of known shape."""
    dtype = tvm.DataType(str(buffer.ty.dtype.dtype))
    return math.prod(int(dim) for dim in buffer.ty.shape) * -(-dtype.bits * dtype.lanes // 8)


def _pipeline():
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("default")
    return tvm.transform.Sequential([lower, TilesOnStack(), RunBackwards()]), finalize_host, finalize_device


tirx.register_tir_pipeline(PIPELINE, _pipeline)
