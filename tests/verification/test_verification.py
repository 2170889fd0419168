"""Trials check what they time: the digests, what they let pass, and what becomes of a schedule that is wrong."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from helpers.kernels import MACHINES, module
from helpers.laid_out import Pointwise
from tvm_shufflenet.devices import find_device, operands
from tvm_shufflenet.devices.operands import Operands, digest, filled
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.link import trial_command
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.measuring import trial
from tvm_shufflenet.tuning.measuring.trial import Cause, Job, run_trial
from tvm_shufflenet.verification import operators as verification
from tvm_shufflenet.verification.operators import Reference, difference, known_reference, reference

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
KERNEL = Pointwise(1, 48, 8, 8, 48, 48, 3, relu=True, shuffle_groups=3)
TARGETS = {"local": "local", "emulated": "cortex-a72"}


@pytest.fixture(scope="module", params=TARGETS)
def device(request):
    with find_device(request.param, find_target(TARGETS[request.param])) as device:
        yield device


@I.ir_module
class InPlace:
    @T.prim_func
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "main"})
        for i in range(64):
            B[i] = B[i] * T.float32(0.5) + A[i]


@I.ir_module
class OneElementOff:
    @T.prim_func
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "main"})
        for i in range(64):
            B[i] = B[i] * T.float32(0.5) + A[i]
        B[17] = B[17] + T.float32(0.01)


def expect(array: np.ndarray) -> Reference:
    """What ``reference`` would keep of an operator whose only argument ends as ``array``."""
    from tvm_shufflenet.verification.operators import _allowed

    return Reference((tuple(digest(array)),), (tuple(_allowed(np.zeros_like(array), array, array)),))


def results(shape=(24, 28, 28)) -> np.ndarray:
    """ReLU of sums of products."""
    return np.maximum(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), 0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(5,), (32,), (3, 7, 11), (24, 56, 56)])
def test_the_device_fills_and_digests_as_numpy_does(device, shape, dtype):
    session = device.endpoint().connect(20)
    made = Operands(session, session.cpu(0), [(shape, dtype), (shape, dtype), ((6,), "int32")])
    assert made._fill and made._digest, "this server does it itself"
    for seed, tensor in enumerate(made.tensors[:2]):
        np.testing.assert_array_equal(tensor.numpy(), filled(shape, dtype, seed))
    np.testing.assert_array_equal(made.tensors[2].numpy(), range(6))
    for sums, tensor in zip(made.digests(), made.tensors, strict=True):
        np.testing.assert_allclose(sums, digest(tensor.numpy()), rtol=0, atol=1e-11)


def test_filled_numbers_are_ordinary_and_differ_between_arguments():
    one, other = (filled((24, 56, 56), "float32", seed) for seed in (0, 1))
    for numbers in (one, other):
        assert -1 <= numbers.min() < -0.99 and 0.99 < numbers.max() < 1 and abs(numbers.mean()) < 0.01
        assert np.abs(numbers[numbers != 0]).min() > 1e-8
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_rounding_passes():
    exact = results()
    scale = 1e-6 * np.sqrt(np.square(exact).mean())
    rounded = exact + np.float32(scale) * np.random.default_rng(1).standard_normal(exact.shape, dtype=np.float32)
    assert difference(expect(exact), [digest(rounded)]) is None


def spoiled(how: str) -> np.ndarray:
    array = results()
    if how == "one element":
        array[11, 5, 5] += 0.01
    elif how == "NaN":
        array[3, 3, 3] = np.nan
    elif how == "two planes exchanged":
        array[[4, 5]] = array[[5, 4]]
    elif how == "planes shuffled":
        array = array.reshape(3, 8, 28, 28).transpose(1, 0, 2, 3)
    elif how == "one plane not written":
        array[23] = filled(array.shape, "float32", 0)[23]
    elif how == "shifted by one":
        array = np.roll(array, 1)
    elif how == "all zero":
        array[:] = 0
    return array


@pytest.mark.parametrize(
    "how",
    [
        "one element",
        "NaN",
        "two planes exchanged",
        "planes shuffled",
        "one plane not written",
        "shifted by one",
        "all zero",
    ],
)
def test_a_wrong_result_shows(how):
    assert "differs from the unscheduled operator's" in difference(expect(results()), [digest(spoiled(how))])


def test_where_the_reference_is_nan_the_trial_must_be_too():
    spoilt = spoiled("NaN")
    assert difference(expect(spoilt), [digest(spoilt)]) is None
    assert difference(expect(spoilt), [digest(results())]) is not None


def job(device, mod: tvm.IRModule, expected: Reference | None) -> Job:
    target = find_target(TARGETS[device.name.partition(":")[0]])
    return Job(
        tvm.ir.save_json(mod),
        target.tvm_config,
        tuple(trial_command(target)),
        target.machine,
        device.endpoint(),
        number=1,
        repeat=1,
        min_repeat_ms=0,
        session_seconds=20,
        reference=expected,
    )


def test_a_reference_is_computed_once(monkeypatch):
    mod = module(KERNEL)
    workload = f"{os.getpid()} {time.monotonic_ns()}"  # not one of an earlier run
    found = known_reference(mod, workload)
    assert found == reference(mod)
    monkeypatch.setattr(verification, "reference", lambda mod: pytest.fail("computed again"))
    assert known_reference(mod, workload) == found


@pytest.mark.parametrize("upload", [False, True], ids=["on the device", "by upload"])
def test_a_right_schedule_is_timed_and_a_wrong_one_is_not(device, upload, monkeypatch):
    """Also by a server that has no functions of ours."""
    if upload:
        for user in (operands, trial):
            monkeypatch.setattr(user, "server_function", lambda session, name: None)
    expected, mod = reference(module(KERNEL)), module(KERNEL)
    right = rules.default_schedule(mod, MACHINES[0]).mod
    other = rules.default_schedule(module(replace(KERNEL, relu=False)), MACHINES[0]).mod
    assert run_trial(job(device, right, expected)).seconds
    outcome = run_trial(job(device, other, expected))
    assert (outcome.seconds, outcome.cause) == ((), Cause.WRONG) and "argument 3" in outcome.error
    assert run_trial(job(device, other, None)).seconds, "nothing to compare with"


def test_an_operator_that_works_in_place_is_compared_after_its_first_run(device):
    assert run_trial(job(device, InPlace, reference(InPlace))).seconds
    outcome = run_trial(job(device, OneElementOff, reference(InPlace)))
    assert outcome.cause is Cause.WRONG and "argument 1, 1 of 32 sums" in outcome.error
