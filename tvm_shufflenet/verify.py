"""Correct or nothing: what a library has to show before it is timed, and before it becomes a package."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import tvm

from .activity import doing
from .devices.base import Device
from .devices.local import LocalDevice
from .devices.network import Network, largest_error
from .errors import DeployError, DeviceFailed, WrongResult
from .library.build import Scheduled, build
from .library.link import linker_command
from .library.package import NEVER_VERIFIED, Verification
from .reproducer import keep_network, keep_operator
from .targets import Target
from .tuning.first_use import Use, WrongUse, compare, first_uses

if TYPE_CHECKING:
    from .workflow import Imported

UNTUNED = "compile it --untuned, and report the reproducer"
BENCH_LIMIT_S = 300.0


def check(network: Network, data: np.ndarray, reference: np.ndarray, tolerance: float, name: str) -> float:
    """Largest absolute difference from ``reference``. Raises WrongResult where it exceeds ``tolerance`` or is NaN, and
    keeps a reproducer."""
    output = network.run(data)
    error = largest_error(output, reference)
    if not error <= tolerance:
        what = f"the {name} library is off by {error:.3g} from PyTorch, {tolerance:.3g} is allowed"
        kept = keep_network(what, network, tolerance, data, reference, output)
        raise WrongResult(f"{what}; {kept}", "a schedule or the compiler computes something else", UNTUNED)
    return error


@dataclass(frozen=True)
class Candidate:
    """What was built of a network and is not a package yet: a ``library`` for TVM's runtime, the ``bench`` of one that
    needs none, or both; and the ``uses`` that schedules are put to in it."""

    imported: Imported
    target: Target
    scheduled: Scheduled
    uses: Sequence[Use]
    library: Path | None
    bench: Path | None


@doing("verifying")
def verify(candidate: Candidate, device: Device | DeployError | None) -> Verification:
    """Compare with PyTorch, on a started device, and first of all each scheduled operator with its unscheduled self,
    where nobody has done that before. Raises WrongResult, DeviceFailed; says why there was no ``device``."""
    if device is None:
        return NEVER_VERIFIED
    if isinstance(device, DeployError):
        return _unverified(device.what, candidate)
    if candidate.library is None and not isinstance(device, LocalDevice):
        return _unverified(f"{device.name} is given libraries for TVM's runtime only", candidate)
    imported = candidate.imported
    operators = _verify_operators(candidate, device)
    errors = []
    if candidate.library is not None:
        with Network(device, candidate.library) as network:
            name = candidate.library.name
            errors.append(check(network, imported.input, imported.reference, imported.tolerance, name))
    if candidate.bench is not None and isinstance(device, LocalDevice):
        errors.append(_verify_bench(candidate.bench, device))
    return Verification(device.name, max(errors), imported.tolerance, operators)


def _unverified(reason: str, candidate: Candidate) -> Verification:
    elsewhere = "tvm-shufflenet bench PACKAGE --device D"
    if candidate.library is None:
        elsewhere = "tvm-shufflenet deploy PACKAGE --to WHERE"
    return Verification(reason=reason, next_step=elsewhere)


def _verify_operators(candidate: Candidate, device: Device) -> int:
    """How many scheduled operators are known to compute what they did before they were scheduled."""
    target, scheduled = candidate.target, candidate.scheduled
    first = first_uses(candidate.uses)
    if first:
        with TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
            library = candidate.library
            if library is None:
                library = build(scheduled, target, Path(folder, "operators.so"), linker_command(target)).path
            wrong = compare(first, library, device)
        if wrong is not None:
            raise _wrong_operator(wrong, scheduled, target, device)
    return len(candidate.uses)


def _wrong_operator(wrong: WrongUse, scheduled: Scheduled, target: Target, device: Device) -> WrongResult:
    use = wrong.use
    how = next(operator.schedule for operator in scheduled.operators if operator.name == use.name)
    code = tvm.ir.save_json(use.scheduled)
    kept = keep_operator(use.name, wrong.what, target, device.name, code, use.workload, wrong.expected, wrong.found)
    return WrongResult(
        f"operator {use.name}, scheduled by its {how}: {wrong.what}; {kept}",
        "a record of a schedule that is wrong, or a fault of the compiler",
        UNTUNED,
    )


def _verify_bench(bench: Path, device: LocalDevice) -> float:
    """Largest difference from PyTorch that the static benchmark finds in itself. Raises WrongResult, DeviceFailed."""
    command = [*device.launcher(), str(bench), "--json", "--warmup", "0", "--repeat", "1"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=BENCH_LIMIT_S)
        output: Mapping = json.loads(done.stdout)["output"]
        error, right = float(output["max_abs_err"]), bool(output["ok"])
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as exc:
        raise DeviceFailed(f"{bench.name} does not run on {device.name}: {exc}", "its code crashes", UNTUNED) from exc
    if not right or not math.isfinite(error):
        what = f"{bench.name} is off by {error:.3g} from PyTorch"
        raise WrongResult(what, "a schedule or the compiler computes something else", UNTUNED)
    return error
