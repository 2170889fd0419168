"""benchmarks/timing.py and what is shared with the workflow."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from helpers.kernels import MACHINES, module
from helpers.laid_out import Pointwise
from helpers.scripts import load
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.difference import largest_error
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.support import toolchain

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_an_operator_is_timed_and_one_that_does_not_build_is_an_error():
    timing = load("timing")
    target = find_target("cortex-a72")
    with find_device(None, target) as device:
        made = rules.default_schedule(module(Pointwise(1, 16, 4, 4, 16, 16)), MACHINES[0]).mod
        assert 0 < timing.seconds(made, target, device) < 1e-3
        with pytest.raises(RuntimeError, match="build: "):
            timing.seconds(tvm.IRModule(), target, device)


def test_the_largest_error_knows_nan_and_other_shapes():
    one = np.zeros((1, 3), np.float32)
    assert largest_error(one + np.float32(0.5), one) == 0.5
    assert np.isnan(largest_error(one * np.float32("nan"), one))
    assert largest_error(one, np.zeros((1, 4), np.float32)) == float("inf")
