"""The operators as FuseOperators makes them: in the layouts that their templates choose, the same for all machines."""

from __future__ import annotations

import functools

from tvm_shufflenet.hardware.isa import NEON
from tvm_shufflenet.hardware.machine import unknown
from tvm_shufflenet.operators import convolution, copy, dense, depthwise, pointwise, pooling, registry


def _laid_out(operator: type):
    @functools.wraps(operator, updated=())
    def make(*args, **kwargs):
        return registry.laid_out(operator(*args, **kwargs), unknown(NEON))

    return make


Convolution = _laid_out(convolution.Convolution)
Copy = _laid_out(copy.Copy)
Dense = _laid_out(dense.Dense)
Depthwise = _laid_out(depthwise.Depthwise)
Pointwise = _laid_out(pointwise.Pointwise)
Pooling = _laid_out(pooling.Pooling)
