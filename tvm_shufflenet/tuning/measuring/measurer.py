"""Runs a schedule on a device; on failure, decides whether the schedule or the device is at fault.

A schedule that failed is sent again until it has failed often enough with the device well right afterwards. A device
that fails repeatedly rests, is started again and checked by the probe, and is given up where that does not help.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import tvm

from ...devices.base import Device, Endpoint
from ...errors import DeployError, DeviceFailed
from ...hardware.targets import Target
from ...library.link import trial_command
from ...verification.operators import Reference, known_reference
from ..records.store import workload_hash
from .health import COOLING_S, DRIFT, PROBE_EVERY, Drift, Quarantine, probe
from .trial import Cause, Job, Outcome
from .workers import Workers

# A schedule is to blame for a failure once it has failed so often while the device was well right afterwards; what is
# lost by a device, by the way to it or by this host is made again.
BLAMED_AFTER, MOST_ATTEMPTS = 3, 20
PROBES = 4  # through a tracker, until the device that failed has been asked
TRIAL_SECONDS = 30.0  # on the device
BUILD_SECONDS = 15.0  # before that, on a loaded host


@contextlib.contextmanager
def start_workers(device: Device, trial_seconds: float = TRIAL_SECONDS) -> Iterator[Workers]:
    """As many as the device can use; they load TVM, so several searches may share them."""
    workers = Workers(device.workers, trial_seconds + BUILD_SECONDS)
    try:
        yield workers
    finally:
        workers.close()


class GivenUp(DeviceFailed):
    """A device that does not come back, however long it rests."""


@dataclass(frozen=True)
class Attempt:
    """A schedule sent to ``endpoint``."""

    mod: tvm.IRModule
    reference: Reference
    endpoint: Endpoint
    submitted: float
    job: Job
    future: Future[Outcome]


class Measurer:
    """Measures scheduled modules on ``device``, whose trials end after ``trial_seconds`` at the latest.

    ``workers`` build and run them. ``first_error`` is the first that was noted, None while all went well; ``repeated``
    counts attempts that were made again; ``has_worked`` tells whether any gave a time.
    """

    def __init__(self, target: Target, device: Device, trial_seconds: float = TRIAL_SECONDS):
        self.target, self.device, self.trial_seconds = target, device, trial_seconds
        self.workers: Workers | None = None
        self.quarantine, self.drift = Quarantine(), Drift()
        self.repeated = 0
        self.first_error: str | None = None
        self.has_worked = False
        self._link_command = tuple(trial_command(target))
        self._since_probe = 0
        self._passed_check = 0.0  # what was sent to the device before says nothing of it now
        self._probe_reference: Reference | None = None

    def submit(self, mod: tvm.IRModule, reference: Reference, urgent: bool = False) -> Attempt:
        """Send a schedule whose results are to be ``reference``; an ``urgent`` one before those that wait."""
        endpoint = self.device.endpoint()
        job = self._job(mod, endpoint, reference)
        return Attempt(mod, reference, endpoint, time.monotonic(), job, self.workers.submit(job, urgent))

    def note(self, error: str) -> None:
        """Keep the error if it is the first."""
        self.first_error = self.first_error or error

    def outcome(self, attempt: Attempt) -> Outcome:
        """Its times or what is to be said of it, after as many attempts as it takes. Raises GivenUp."""
        outcome = self._verdict(attempt)
        if outcome.seconds:
            self._note_pace(outcome)
            self.has_worked = True
            self.quarantine.good(outcome.address)
            self.quarantine.good(self.device.name)
        return outcome

    def _job(self, mod: tvm.IRModule, endpoint: Endpoint, reference: Reference) -> Job:
        return Job(
            tvm.ir.save_json(mod),
            self.target.tvm_config,
            self._link_command,
            self.target.machine,
            endpoint if endpoint.key is None else replace(endpoint, avoid=self.quarantine.resting()),
            number=1,
            repeat=3,
            min_repeat_ms=15,
            session_seconds=self.trial_seconds,
            reference=reference,
        )

    def _verdict(self, attempt: Attempt) -> Outcome:
        blame = 0
        for attempts in range(1, MOST_ATTEMPTS + 1):
            outcome = attempt.future.result()
            if outcome.cause is None:
                break
            outcome, device_is_well = self._examined(outcome, attempt)
            blame += device_is_well
            if blame == BLAMED_AFTER or attempts == MOST_ATTEMPTS:
                break
            self.repeated += 1
            attempt = self.submit(attempt.mod, attempt.reference, urgent=True)
        return outcome

    def _examined(self, outcome: Outcome, attempt: Attempt) -> tuple[Outcome, bool]:
        """A failure with its cause, and whether its device is well otherwise; if it is not, this waits until it is."""
        if not self._is_current(attempt.endpoint):
            return replace(outcome, cause=Cause.DEVICE), False
        probed = self._probe_of(outcome.address)
        if probed.cause is None and probed.address == (outcome.address or probed.address):
            return outcome, bool(outcome.address) or outcome.cause is not Cause.DEVICE
        if probed.cause is not None:
            what = "the device computes wrongly: " if probed.cause is Cause.WRONG else ""
            outcome = replace(outcome, cause=Cause.DEVICE, error=what + probed.error)
        self.note(outcome.error)
        self._fault(outcome, attempt)
        return outcome, False

    def _probe_of(self, address: str) -> Outcome:
        """What the probe says of the device at ``address``; of another one, where a tracker does not lend that."""
        for _ in range(PROBES):
            probed = self._probe()
            if probed.cause or probed.address == address or not address:
                break
        return probed

    def _is_current(self, endpoint: Endpoint) -> bool:
        """Whether a trial was meant for the device as it runs now, not for one that died and has been restarted."""
        return endpoint == self.device.endpoint()

    def _fault(self, outcome: Outcome, attempt: Attempt) -> None:
        """A device has failed: where it is gone or fails repeatedly, wait until it is back. Raises where it is not."""
        if not self._is_current(attempt.endpoint) or attempt.submitted < self._passed_check:
            return
        if outcome.address:
            self.quarantine.fault(outcome.address)
        several = attempt.endpoint.key is not None and self._devices() > len(self.quarantine.resting())
        if self.quarantine.fault(self.device.name) and not several:
            return self._rest(outcome.error)
        try:
            self.device.restart()
        except DeployError as exc:
            self._rest(str(exc))

    def _devices(self) -> int:
        try:
            return self.device.devices()
        except DeployError:
            return 0

    def _rest(self, error: str) -> None:
        """Wait, ever longer, until the device passes a check. Raises where it does not, or has come back too often."""
        name = self.device.name
        while True:
            if self.quarantine.given_up(name, self.has_worked):
                raise GivenUp(
                    f"{name} failed trial after trial, and rest did not help: {error}",
                    "it is gone, or every schedule crashes it",
                    "the records are kept; run the same command again once the device answers",
                )
            time.sleep(self.quarantine.rest_s(name))
            error = self._check() or ""
            if not error:
                self._passed_check = time.monotonic()
                return
            self.quarantine.fault(name, at_once=True)

    def _check(self) -> str | None:
        """What is wrong with the device, if anything: it is started again, and runs the probe."""
        try:
            self.device.restart()
        except DeployError as exc:
            return str(exc)
        outcome = self._probe()
        return outcome.error if outcome.cause else None

    def _probe(self) -> Outcome:
        """The probe's outcome, whose result is known and whose time should ever be the same."""
        if self._probe_reference is None:
            self._probe_reference = known_reference(probe(), workload_hash(probe()))
        return self.submit(probe(), self._probe_reference, urgent=True).future.result()

    def _note_pace(self, outcome: Outcome) -> None:
        """Every so often, see whether a real clock keeps its pace; a device that does not may cool down."""
        if self.device.cost_model is not None:
            return
        self._since_probe += 1
        if self._since_probe < PROBE_EVERY and self.has_worked:
            return
        self._since_probe = 0
        for pause_s in (0.0, *COOLING_S):
            time.sleep(pause_s)
            found = self._probe()
            if not found.seconds or self.drift.note(found.address, float(np.median(found.seconds))) <= DRIFT:
                return
