"""Verifies a library against PyTorch before it is timed, and before it becomes a package.

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

import tvm

from ..devices.base import Device
from ..devices.local import LocalDevice
from ..devices.network import Network, second_run
from ..errors import DeployError, DeviceFailed, WrongResult
from ..library.build import build
from ..library.scheduling import Scheduled
from ..signature import Signature, Tensors, from_bytes, to_bytes
from ..support.activity import doing
from ..text import counted
from .answers import Answer, Answers, Difference, worst
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
SAID = ("name", "max_abs_err", "ok", "inputs", "fault")  # by a benchmark, of its output
STATE = "an operator writes into memory that is not its own: its input, or what an earlier inference left"


def check(network: Network, answers: Answers, name: str, answer: Answer | None = None) -> Difference:
    """The largest difference from PyTorch's ``answer``, else from that to the reference inputs, in one run.

    Raises WrongResult where it exceeds the tolerance or is NaN where PyTorch's is not, and keeps a reproducer.
    """
    answer = answer or answers.reference
    inputs = probe(answer.probe, answers.inputs)
    outputs = network.run(inputs)
    found = answer.difference(outputs, answers.spoilt(answer.probe))
    if not found.right:
        what = f"the {name} library is off by {found.error:.3g} from PyTorch, {found.tolerance:.3g} is allowed"
        what += _which(found, answer)
        raise _wrong(what, CAUSE, network, answer, inputs, outputs)
    return found


def _which(found: Difference, answer: Answer) -> str:
    """Which output and which inputs, where a reader cannot know."""
    facts = [f"output: {found.output}"] if len(answer.expected) > 1 else []
    facts += [f"input: {answer.probe}"] if answer.probe != REFERENCE else []
    return f" ({', '.join(facts)})" if facts else ""


def check_rest(network: Network, answers: Answers, name: str) -> int:
    """After ``check`` on the reference inputs, and perhaps more runs on them: once more without setting them anew, then
    the other inputs. Returns how many inputs the library was found right for. Raises WrongResult."""
    check_again(network, answers, name)
    return 1 + _check_others(network, answers, name)


def check_again(network: Network, answers: Answers, name: str) -> None:
    """Run once more on the reference inputs, which were the latest, without setting them anew. Raises WrongResult for
    other bits, and for an input that has changed."""
    fault, outputs = second_run(network, answers.inputs)
    if fault is not None:
        raise _wrong(f"the {name} library {fault}", STATE, network, answers.reference, answers.inputs, outputs)


def _wrong(what: str, cause: str, network: Network, answer: Answer, inputs: Tensors, outputs: Tensors) -> WrongResult:
    kept = keep_network(what, network, answer.tolerances, inputs, answer.expected, outputs)
    return WrongResult(f"{what}; {kept}", cause, UNTUNED)


def _check_others(network: Network, answers: Answers, name: str) -> int:
    """On an emulated core those are left out that ``PROBE_LIMIT_S`` has no time for, but not the second one."""
    started, done = time.monotonic(), 0
    for answer in answers.each[1:]:
        late = network.device.emulated and time.monotonic() - started > PROBE_LIMIT_S
        if late and done:
            break
        check(network, answers, name, answer)
        done += 1
    return done


@dataclass(frozen=True)
class Candidate:
    """What was built of a scheduled network and is not a package yet: a ``library`` for TVM's runtime, the ``bench`` of
    one that needs none, or both; the ``uses`` that schedules are put to in it; and PyTorch's ``answers``."""

    scheduled: Scheduled
    library: Path | None
    bench: Path | None
    uses: Sequence[Use]
    signature: Signature
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
    answers = candidate.answers
    found, inputs = [], []
    if candidate.library is not None:
        difference, count = _verify_library(candidate.library, candidate.signature, answers, device)
        found.append(difference)
        inputs.append(count)
    if candidate.bench is not None and isinstance(device, LocalDevice):
        difference, count = _verify_bench(candidate.bench, candidate.signature, answers, device)
        found.append(difference)
        inputs.append(count)
    return verification(device.name, worst(found), answers, min(inputs), len(candidate.uses))


def verification(by: str, found: Difference, answers: Answers, inputs: int, operators: int = 0) -> Verification:
    """What is to be said of a library that was right, by the difference ``found``, for so many ``inputs``."""
    next_step = answers.blind and SEES_NOTHING
    return Verification(by, found.error, found.tolerance, operators, answers.blind, next_step, inputs, answers.note)


def _verify_library(library: Path, signature: Signature, answers: Answers, device: Device) -> tuple[Difference, int]:
    """The largest difference for the reference inputs, and how many inputs the library was right for. A device of ours
    runs it with another number of threads as well."""
    with Network(device, library, signature) as network:
        found = check(network, answers, library.name)
        count = check_rest(network, answers, library.name)
    if isinstance(device, LocalDevice):
        threads = device.other_threads
        with device.with_threads(threads) as other, Network(other, library, signature) as network:
            name = f"{library.name} ({counted(threads, 'thread')})"
            found = worst([found, check(network, answers, name)])
            check_again(network, answers, name)
    return found, count


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


def _verify_bench(bench: Path, signature: Signature, answers: Answers, device: LocalDevice) -> tuple[Difference, int]:
    """Largest difference from PyTorch that the static benchmark finds in itself, and for how many inputs it is right;
    with another number of threads, for one. Raises WrongResult, DeviceFailed."""
    with TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
        given, made = Path(folder, "input"), Path(folder, "output")
        given.write_bytes(to_bytes(answers.inputs, signature.inputs))
        threads = device.other_threads
        _run_bench(bench, device, threads, "--input", str(given), "--output", str(made))
        outputs = from_bytes(made.read_bytes(), signature.outputs)
    found = answers.reference.difference(outputs)
    if not found.right:
        what = f"with {threads} threads, off by {found.error:.3g} from PyTorch, {found.tolerance:.3g} is allowed"
        raise WrongResult(f"{bench.name} is wrong: {what}", CAUSE, UNTUNED)
    said = _run_bench(bench, device, device.threads)
    try:
        name, own, right, inputs, fault = (said["output"][key] for key in SAID)
        of_itself = Difference(name, own, answers.reference.tolerances[name])
    except KeyError as exc:
        raise DeviceFailed(f"{bench.name} does not say what it found", f"no {exc}", UNTUNED) from exc
    if not right or not math.isfinite(own):
        raise WrongResult(f"{bench.name} is wrong: {fault}", CAUSE, UNTUNED)
    return worst([found, of_itself]), inputs


def _run_bench(bench: Path, device: LocalDevice, threads: int, *more: str) -> Mapping:
    """What it says in JSON. Raises DeviceFailed."""
    options = ["--json", "--warmup", "0", "--repeat", "1", "--threads", str(threads)]
    try:
        command = [*device.launcher(), str(bench), *options, *more]
        return json.loads(subprocess.run(command, capture_output=True, timeout=BENCH_LIMIT_S).stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
        raise DeviceFailed(f"{bench.name} does not run on {device.name}: {exc}", "its code crashes", UNTUNED) from exc
