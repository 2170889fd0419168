"""Correct or nothing: what a library has to show before it is timed, and before it becomes a package.

Its answers to the probes (probes.py) are compared with PyTorch's (answers.py), a second run on one input with the
first, bit by bit, and the input with what it was. What becomes a package also runs with another number of threads.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tvm

from ..devices.base import Device
from ..devices.local import LocalDevice
from ..devices.network import Network, largest_error, second_run
from ..errors import DeployError, DeviceFailed, WrongResult
from ..library.build import build
from ..library.scheduling import Scheduled
from ..support.activity import doing
from ..text import counted
from .answers import Answers
from .first_use import Use, WrongUse, compare, first_uses
from .outcome import NEVER_VERIFIED, Verification
from .probes import REFERENCE, probe
from .reproducer import keep_network, keep_operator

UNTUNED = "compile it --untuned, and report the reproducer"
BENCH_LIMIT_S = 300.0
# On an emulated core one inference of a large network takes a minute, and NaN more: QEMU has no fast way for them.
PROBE_LIMIT_S = 10.0
CAUSE = "a schedule or the compiler computes something else"
SEES_NOTHING = "train it, or give it weights under which its answers differ"
STATE = "an operator writes into memory that is not its own: its input, or what an earlier inference left"


def check(
    network: Network,
    data: np.ndarray,
    reference: np.ndarray,
    tolerance: float,
    name: str,
    given: str = REFERENCE,
    spoilt: np.ndarray | None = None,
) -> float:
    """Largest absolute difference from ``reference``, in one run on ``data``, the input called ``given``.

    Raises WrongResult where it exceeds ``tolerance`` or is NaN where neither the reference is nor it is ``spoilt``, and
    keeps a reproducer.
    """
    output = network.run(data)
    error = largest_error(output, reference, spoilt)
    if not error <= tolerance:
        what = f"the {name} library is off by {error:.3g} from PyTorch, {tolerance:.3g} is allowed"
        what += "" if given == REFERENCE else f" (input: {given})"
        raise _wrong(what, CAUSE, network, tolerance, data, reference, output)
    return error


def check_rest(network: Network, answers: Answers, data: np.ndarray, name: str) -> int:
    """After ``check`` on the reference input ``data``, and perhaps more runs on it: once more without setting it anew,
    then the other inputs. Returns how many inputs the library was found right for. Raises WrongResult."""
    check_again(network, data, answers, name)
    return 1 + _check_others(network, answers, data, name)


def check_again(network: Network, data: np.ndarray, answers: Answers, name: str) -> None:
    """Run once more on the latest input ``data``, without setting it anew. Raises WrongResult for other bits, and for
    an input that has changed."""
    fault, output = second_run(network, data)
    if fault is not None:
        what = f"the {name} library {fault}"
        raise _wrong(what, STATE, network, answers.tolerance, data, answers.reference.expected, output)


def _wrong(what, cause, network, tolerance, data, expected, found) -> WrongResult:
    kept = keep_network(what, network, tolerance, data, expected, found)
    return WrongResult(f"{what}; {kept}", cause, UNTUNED)


def _check_others(network: Network, answers: Answers, data: np.ndarray, name: str) -> int:
    """On an emulated core those are left out that ``PROBE_LIMIT_S`` has no time for, but not the second one."""
    started, done = time.monotonic(), 0
    for answer in answers.each[1:]:
        late = network.device.emulated and time.monotonic() - started > PROBE_LIMIT_S
        if late and done:
            break
        given, spoilt = probe(answer.probe, data), answers.spoilt(answer.probe)
        check(network, given, answer.expected, answer.tolerance, name, answer.probe, spoilt)
        done += 1
    return done


@dataclass(frozen=True)
class Candidate:
    """What was built of a scheduled network and is not a package yet: a ``library`` for TVM's runtime, the ``bench`` of
    one that needs none, or both; the ``uses`` that schedules are put to in it; and PyTorch's ``answers``, that to
    ``data`` first."""

    scheduled: Scheduled
    library: Path | None
    bench: Path | None
    uses: Sequence[Use]
    data: np.ndarray
    answers: Answers


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
    _verify_operators(candidate, device)
    data, answers = candidate.data, candidate.answers
    errors, inputs = [], []
    if candidate.library is not None:
        error, count = _verify_library(candidate.library, data, answers, device)
        errors.append(error)
        inputs.append(count)
    if candidate.bench is not None and isinstance(device, LocalDevice):
        error, count = _verify_bench(candidate.bench, data, answers, device)
        errors.append(error)
        inputs.append(count)
    return verification(device.name, max(errors), answers, min(inputs), len(candidate.uses))


def verification(by: str, error: float, answers: Answers, inputs: int, operators: int = 0) -> Verification:
    """What is to be said of a library that was right, ``error`` off, for so many ``inputs``."""
    next_step = answers.blind and SEES_NOTHING
    return Verification(by, error, answers.tolerance, operators, answers.blind, next_step, inputs, answers.note)


def _verify_library(library: Path, data: np.ndarray, answers: Answers, device: Device) -> tuple[float, int]:
    """The largest error for the reference input, and how many inputs the library was right for. A device of ours runs
    it with another number of threads as well."""
    reference = answers.reference
    with Network(device, library) as network:
        error = check(network, data, reference.expected, reference.tolerance, library.name)
        count = check_rest(network, answers, data, library.name)
    if isinstance(device, LocalDevice):
        threads = device.other_threads
        with device.with_threads(threads) as other, Network(other, library) as network:
            name = f"{library.name} ({counted(threads, 'thread')})"
            error = max(error, check(network, data, reference.expected, reference.tolerance, name))
            check_again(network, data, answers, name)
    return error, count


def _unverified(reason: str, candidate: Candidate) -> Verification:
    elsewhere = "tvm-shufflenet bench PACKAGE --device D"
    if candidate.library is None:
        elsewhere = "tvm-shufflenet deploy PACKAGE --to WHERE"
    return Verification(reason=reason, next_step=elsewhere)


def _verify_operators(candidate: Candidate, device: Device) -> None:
    """Raises WrongResult for a scheduled operator that does not compute what it did before it was scheduled."""
    first, scheduled = first_uses(candidate.uses), candidate.scheduled
    if not first:
        return
    with TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
        library = candidate.library or build(scheduled, Path(folder, "operators.so"))
        wrong = compare(first, library, device)
    if wrong is not None:
        raise _wrong_operator(wrong, scheduled, device)


def _wrong_operator(wrong: WrongUse, scheduled: Scheduled, device: Device) -> WrongResult:
    use, target = wrong.use, scheduled.target
    how = next(operator.schedule for operator in scheduled.operators if operator.name == use.name)
    code = tvm.ir.save_json(use.scheduled)
    kept = keep_operator(use.name, wrong.what, target, device.name, code, use.workload, wrong.expected, wrong.found)
    return WrongResult(
        f"operator {use.name}, scheduled by its {how}: {wrong.what}; {kept}",
        "a record of a schedule that is wrong, or a fault of the compiler",
        UNTUNED,
    )


def _verify_bench(bench: Path, data: np.ndarray, answers: Answers, device: LocalDevice) -> tuple[float, int]:
    """Largest difference from PyTorch that the static benchmark finds in itself, and for how many inputs it is right;
    with another number of threads, for one. Raises WrongResult, DeviceFailed."""
    reference = answers.reference
    with TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
        given, made = Path(folder, "input"), Path(folder, "output")
        given.write_bytes(data.tobytes())
        threads = device.other_threads
        _run_bench(bench, device, threads, "--input", str(given), "--output", str(made))
        output = np.frombuffer(made.read_bytes(), np.float32).reshape(reference.expected.shape)
    error = largest_error(output, reference.expected)
    if not error <= reference.tolerance:
        what = f"with {threads} threads, off by {error:.3g} from PyTorch, {reference.tolerance:.3g} is allowed"
        raise WrongResult(f"{bench.name} is wrong: {what}", CAUSE, UNTUNED)
    found = _run_bench(bench, device, device.threads)
    try:
        own, right, inputs, fault = (found["output"][key] for key in ("max_abs_err", "ok", "inputs", "fault"))
    except KeyError as exc:
        raise DeviceFailed(f"{bench.name} does not say what it found", f"no {exc}", UNTUNED) from exc
    if not right or not math.isfinite(own):
        raise WrongResult(f"{bench.name} is wrong: {fault}", CAUSE, UNTUNED)
    return max(error, own), inputs


def _run_bench(bench: Path, device: LocalDevice, threads: int, *more: str) -> Mapping:
    """What it says in JSON. Raises DeviceFailed."""
    options = ["--json", "--warmup", "0", "--repeat", "1", "--threads", str(threads)]
    try:
        command = [*device.launcher(), str(bench), *options, *more]
        return json.loads(subprocess.run(command, capture_output=True, timeout=BENCH_LIMIT_S).stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
        raise DeviceFailed(f"{bench.name} does not run on {device.name}: {exc}", "its code crashes", UNTUNED) from exc
