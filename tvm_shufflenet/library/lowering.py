"""Lowers a scheduled network: TVM's passes, with our checks of what is written in place.

Operators likewise, with three of ours behind the passes that compute addresses.
"""

from __future__ import annotations

import math

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import transform

from ..graph.phases import phase
from .alternate import RunBackwards
from .keep_nan import KeepNaN
from .overwriting import check_storages, check_writes

PIPELINE = "tvm_shufflenet"
STACK_BYTES = 8192  # what is larger is no tile of registers; a thread's stack may be small
AS_IT_IS = "disable_lower_builtin"
# Of scope "global", what is smaller than that lies on the stack by TVM's own choice.
TVM_STACK_BYTES = 1024


@tirx.transform.prim_func_pass(opt_level=0, name="TilesOnStack")
class TilesOnStack:
    """Put tiles of scope "local" on the stack, where LLVM makes registers of them.

    TVM asks its runtime for their memory. LLVM cannot see that such memory is nobody else's: where it inlines an
    operator into the function that unpacks its arguments, it forgets that these do not overlap, and every accumulator
    goes through memory, at less than half the speed.
    """

    def transform_function(self, function: tirx.PrimFunc, _mod, _context) -> tirx.PrimFunc:
        return function.with_body(
            tvm_ffi.structural_mutate(function.body, (tirx.AllocBuffer, lambda each, _: on_stack(each)))
        )


def on_stack(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
    """The allocation as one that TVM lowers no further, if it is a tile's."""
    buffer = allocation.buffer
    if buffer.scope() != "local" or size_of(buffer) > STACK_BYTES:
        return allocation
    return tirx.AllocBuffer(buffer, {**allocation.annotations, AS_IT_IS: tirx.IntImm("bool", 1)})


def lies_on_stack(allocation: tirx.AllocBuffer) -> bool:
    """Whether the generated code holds it on the stack, rather than ask the runtime for memory."""
    small = allocation.buffer.scope() == "global" and size_of(allocation.buffer) < TVM_STACK_BYTES
    return small or AS_IT_IS in allocation.annotations


def size_of(buffer: tirx.Var) -> int:
    """Bytes of a buffer of known shape."""
    dtype = tvm.DataType(str(buffer.ty.dtype.dtype))
    return math.prod(int(dim) for dim in buffer.ty.shape) * -(-dtype.bits * dtype.lanes // 8)


def _pipeline():
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("default")
    return phase("lowered", lower, KeepNaN(), TilesOnStack(), RunBackwards()), finalize_host, finalize_device


tirx.register_tir_pipeline(PIPELINE, _pipeline)


# TVM's default passes, in three parts between which the network is checked.
_TO_KERNELS = (
    relax.backend.DispatchSampling(),
    relax.backend.DispatchSortScan(),
    transform.LegalizeOps(),
    transform.RewriteDataflowReshape(),
)
_TO_STORAGES = (
    transform.ToNonDataflow(),
    transform.RemovePurityChecking(),
    transform.CallTIRRewrite(),
    transform.StaticPlanBlockMemory(),
)
_TO_THE_MACHINE = (
    transform.LowerAllocTensor(),
    transform.KillAfterLastUse(),
    transform.LowerRuntimeBuiltin(),
    transform.ComputePrimValue(),
    transform.VMShapeLower(),
    transform.AttachGlobalSymbol(),
)


def with_storages(module: tvm.IRModule) -> tvm.IRModule:
    """A network of scheduled operators with its memory planned, and proved to overwrite nothing that is needed. Raises
    DeployError."""
    kernels = phase("kernels", *_TO_KERNELS)(module)
    check_writes(kernels)
    planned = phase("planned", *_TO_STORAGES)(kernels)
    check_storages(planned)
    return planned


def executable(planned: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """A network with its memory planned, compiled for TVM's virtual machine."""
    # Compiled, not interpreted: 0.2 us an operator instead of 0.5.
    return relax.build(
        planned,
        target,
        relax_pipeline=phase("machine", *_TO_THE_MACHINE),
        tir_pipeline=PIPELINE,
        exec_mode="compiled",
    )
