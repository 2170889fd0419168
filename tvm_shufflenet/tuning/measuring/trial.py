"""One trial, in a worker process: build a scheduled operator, link it, run it on the device, check it, time it.

Workers live long: importing TVM takes seconds, a trial a fraction of one. They are recycled now and then against leaks.
"""

from __future__ import annotations

import enum
import gc
import hashlib
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...devices.base import Endpoint
from ...devices.operands import Operands, server_function
from ...errors import DeployError, DeviceFailed, WrongResult, first_line
from ...latency import spread
from ...verification.operators import Reference, wrong_run

NOISY = 0.05
NOISE_ROUNDS = 4  # samples are taken again, up to so many times, until they agree


class Cause(str, enum.Enum):
    """Why a trial failed. Only ``DEVICE`` and ``TIMEOUT`` may pass: the trial is worth another try."""

    BUILD = "build"
    CRASH = "crash"  # its session was cut off, by a crash or by the time limit, and the device is well
    DEVICE = "device"
    RUN = "run"
    TIMEOUT = "timeout"
    WRONG = "wrong"  # it computes something else than the unscheduled operator


@dataclass(frozen=True)
class Job:
    """What a worker needs for one trial: a module as TVM's JSON, and where and how to run it.

    Its results are compared with ``reference`` where there is one. A device with a modelled clock repeats itself to the
    digit, so that the first of the runs that are checked is the one that is timed, and the last three numbers do not
    matter.
    """

    module_json: str
    target_config: dict
    link_command: tuple[str, ...]
    machine: str
    endpoint: Endpoint
    number: int
    repeat: int
    min_repeat_ms: int
    session_seconds: float
    reference: Reference | None = None


@dataclass(frozen=True)
class Outcome:
    """Seconds per run, or the cause and text of a failure; ``address`` is the device's that ran it, ``found`` the
    digests of a wrong result."""

    seconds: tuple[float, ...] = ()
    cause: Cause | None = None
    error: str = ""
    address: str = ""
    found: tuple[tuple[float, ...], ...] = ()

    @property
    def noise(self) -> float | None:
        """The spread of the samples, None where it is no larger than clocks and caches explain."""
        measured = spread(self.seconds) if self.seconds else 0.0
        return measured if measured > NOISY else None


def run_trial(job: Job) -> Outcome:
    """Build, link, check and time. Never raises: a failed trial is a result."""
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        library = Path(folder) / "trial.so"
        try:
            shapes = build(job, library)
        except Exception as exc:
            return Outcome(cause=Cause.BUILD, error=first_line(exc))
        try:
            session = job.endpoint.connect(job.session_seconds)
        except DeviceFailed as exc:
            return Outcome(cause=Cause.DEVICE, error=f"{exc.what}: {exc.cause}")
        try:
            return Outcome(seconds=measure(job, session, library, shapes), address=session.address)
        except Exception as exc:
            error = str(exc) if isinstance(exc, DeployError) else first_line(exc)
            return Outcome((), _cause(exc), error, session.address, getattr(exc, "found", ()))


class Differs(WrongResult):
    """An operator's result is another than the unscheduled operator's: ``found`` are the digests of its arguments."""

    def __init__(self, what: str, found: list[np.ndarray]):
        super().__init__(what)
        self.found = tuple(tuple(sums.tolist()) for sums in found)


def _cause(exc: Exception) -> Cause:
    if isinstance(exc, WrongResult):
        return Cause.WRONG
    if isinstance(exc, DeviceFailed):  # its clock shows what no clock can
        return Cause.DEVICE
    # Cut off by a crash of the schedule, our time limit or the device's end: the driver looks at the device.
    lost = any(word in first_line(exc).lower() for word in ("closed", "reset", "broken pipe", "socket", "shutdown"))
    return Cause.CRASH if lost else Cause.RUN


def build(job: Job, library: Path) -> list[tuple[tuple[int, ...], str]]:
    """Write the shared library; returns shape and dtype of each argument."""
    import tvm

    from ...library.link import link
    from ...library.lowering import PIPELINE
    from ...schedules.admitted import check_straight

    target = tvm.target.Target(job.target_config)
    module = tvm.ir.load_json(job.module_json)
    for function in module.functions.values():
        check_straight(function)
    with target:
        compiled = tvm.compile(module, target, tir_pipeline=PIPELINE)

    def link_objects(output, objects, **_options):
        link(objects, Path(output), list(job.link_command), job.machine)

    compiled.export_library(str(library), fcompile=link_objects)
    from ...graph.tasks import argument_shapes

    return argument_shapes(module)


def measure(job: Job, session, library: Path, shapes) -> tuple[float, ...]:
    """Upload, load, run, check; returns seconds per run. Raises WrongResult, DeviceFailed, and what TVM raises."""
    session.upload(str(library))
    module = session.load_module(library.name)
    device = session.cpu(0)
    operands = Operands(session, device, shapes)
    time_once = server_function(session, "time_once")
    if time_once is not None:
        nanoseconds = time_once(module, "main", *operands.tensors)
        _check(job.reference, operands, module["main"])
        _check_receipt(session, library, nanoseconds)
        return _plausible((1e-9 * nanoseconds,))
    module["main"](*operands.tensors)
    _check(job.reference, operands, module["main"])
    timer = module.time_evaluator("main", device, number=job.number, repeat=job.repeat, min_repeat_ms=job.min_repeat_ms)
    seconds: tuple[float, ...] = ()
    for _ in range(NOISE_ROUNDS):
        seconds += _plausible(tuple(float(s) for s in timer(*operands.tensors).results))
        if spread(seconds) <= NOISY:
            break
    _check_receipt(session, library)
    return seconds


def _check(reference: Reference | None, operands: Operands, run: Callable) -> None:
    """After a first run; it is run once more. Raises Differs."""
    if reference is None:
        return
    first = operands.digests()
    run(*operands.tensors)
    wrong = wrong_run(reference, first, operands.digests())
    if wrong is not None:
        raise Differs(*wrong)


def _check_receipt(session, library: Path, nanoseconds: int | None = None) -> None:
    """Whether the server got the library, and we its answer, as they were sent. Raises DeviceFailed."""
    receipt = server_function(session, "receipt")
    if receipt is None:
        return
    text, _, seal = str(receipt(library.name)).rpartition(" ")
    digest, _, latest = text.partition(" ")
    genuine = seal == hashlib.sha256(text.encode()).hexdigest()
    same = digest == hashlib.sha256(library.read_bytes()).hexdigest() and nanoseconds in (None, int(latest or -1))
    if not (genuine and same):
        raise DeviceFailed("the connection to the device changed what was sent", "a bad cable, adapter or proxy")


def _plausible(seconds: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 < s < 1e4 for s in seconds):
        raise DeviceFailed(f"the device reported a time of {seconds} s", "its timer is broken")
    return seconds


def prepare_worker(folder: str) -> None:
    """Once per worker process: import what every trial needs, use one thread of the host, write to ``folder``."""
    # A terminal's Ctrl-C reaches every process; the main one ends its workers, and no trial fails by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = folder
    os.environ["TVM_NUM_THREADS"] = "1"
    import tvm  # noqa: F401
    from tvm.s_tir import meta_schedule  # noqa: F401

    gc.collect()
    gc.freeze()  # to look through these modules' objects again and again takes 5 % of a trial
