"""What the benchmarks of single operators share: timing one on a device."""

from __future__ import annotations

import tvm

from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.hardware.targets import Target
from tvm_shufflenet.library.link import trial_command
from tvm_shufflenet.tuning.measuring.trial import Job, run_trial


def seconds(mod: tvm.IRModule, target: Target, device: Device) -> float:
    """The least time of many runs; on a modelled clock of one, which all others repeat. Raises RuntimeError."""
    job = Job(
        tvm.ir.save_json(mod),
        target.tvm_config,
        tuple(trial_command(target)),
        target.machine,
        device.endpoint(),
        number=1,
        repeat=40,
        min_repeat_ms=3,
        session_seconds=120.0,
    )
    outcome = run_trial(job)
    if not outcome.seconds:
        raise RuntimeError(f"{outcome.cause.value}: {outcome.error}")
    return min(outcome.seconds)
