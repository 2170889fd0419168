"""Devices that fail, rest and come back; clocks that drift and samples that do not agree."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import rpc
from tvm.rpc.tracker import Tracker

from helpers.factories import FACTORY
from helpers.servers import RunningServer, eventually
from helpers.tuning_runs import SHAPE, Sabotaged, free_port, journal, operators
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Endpoint
from tvm_shufflenet.devices.local import LocalDevice
from tvm_shufflenet.errors import DeviceFailed, NothingMeasured
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.latency import spread
from tvm_shufflenet.models import find_model
from tvm_shufflenet.tuning.measuring import health, measurer
from tvm_shufflenet.tuning.measuring.health import Drift, Quarantine, probe
from tvm_shufflenet.tuning.measuring.measurer import Measurer
from tvm_shufflenet.tuning.measuring.trial import Cause, Outcome, _cause, _plausible
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.tuning.search.driver import Tuner
from tvm_shufflenet.verification.operators import reference
from tvm_shufflenet.verification.reproducer import read_reproducer
from tvm_shufflenet.workflow.imported import import_model

LOCAL = find_target("local")


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.py"
    path.write_text(FACTORY)
    return import_model(find_model(f"{path}:unit", input_shape=SHAPE))


@pytest.fixture
def quick(monkeypatch):
    """Rests in no time."""
    monkeypatch.setattr(health, "FIRST_REST_S", 0.01)
    monkeypatch.setattr(measurer, "COOLING_S", (0.0, 0.0))


# Quarantine


class Timer:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_device_rests_after_repeated_faults_and_longer_each_time():
    clock = Timer()
    quarantine = Quarantine(clock)
    assert [quarantine.fault("a") for _ in range(3)] == [False, False, True]
    assert quarantine.resting() == ("a",) and quarantine.rest_s("b") == 0
    rests = [quarantine.rest_s("a")]
    for _ in range(7):
        clock.seconds += rests[-1]
        assert quarantine.resting() == ()
        assert quarantine.fault("a"), "back on probation: one fault is enough"
        rests.append(quarantine.rest_s("a"))
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    assert quarantine.given_up("a") and not quarantine.given_up("b")


def test_what_a_device_does_right_is_forgiven_all():
    quarantine = Quarantine(Timer())
    for _ in range(2):
        quarantine.fault("a")
    quarantine.good("a")
    assert [quarantine.fault("a") for _ in range(3)] == [False, False, True]
    quarantine.good("a")
    assert quarantine.resting() == () and not quarantine.given_up("a", has_worked=False)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["good", "fault", "wait"]))))
def test_one_device_s_faults_are_not_the_other_s(events):
    clock = Timer()
    both, alone = Quarantine(clock), {name: Quarantine(clock) for name in "ab"}
    for name, event in events:
        if event == "wait":
            clock.seconds += 1.5
        else:
            getattr(both, event)(name), getattr(alone[name], event)(name)
        assert set(both.resting()) == {n for n in "ab" if alone[n].resting()}


# Noise and drift


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20), st.floats(0.01, 100))
def test_the_spread_has_no_unit_and_one_wild_sample_of_many_does_not_move_it(samples, factor):
    assert spread([factor * s for s in samples]) == pytest.approx(spread(samples), rel=1e-6, abs=1e-9)
    assert spread([1.0] * 5 + [1e9]) == 0


@pytest.mark.parametrize(("seconds", "noisy"), [((1.0,), False), ((1.0, 1.01, 1.02), False), ((1.0, 1.2, 1.4), True)])
def test_samples_that_do_not_agree_flag_a_trial(seconds, noisy):
    assert (Outcome(seconds).noise is not None) is noisy


def test_a_clock_that_slows_down_is_told_from_one_that_is_slow():
    drift = Drift()
    assert [drift.note("fast", 1.0), drift.note("slow", 5.0), drift.note("fast", 1.05)] == [1.0, 1.0, 1.05]
    assert drift.of("fast") is None
    drift.note("fast", 1.5)
    assert (drift.of("fast"), drift.of("slow"), drift.worst) == (1.5, None, 1.5)
    drift.note("fast", 1.0)
    assert drift.of("fast") is None and drift.worst == 1.5


@pytest.mark.parametrize("seconds", [math.nan, -1e-6, 0.0, math.inf, 1e9])
def test_a_time_that_no_clock_shows_is_the_device_s_fault(seconds):
    with pytest.raises(DeviceFailed, match="its timer is broken") as caught:
        _plausible((1e-6, seconds))
    assert _cause(caught.value) is Cause.DEVICE


def tuner_for(unit, device, folder, trials: int, kind=Measurer) -> Tuner:
    tuner = Tuner(operators(unit, LOCAL), LOCAL, device, RecordStore(folder, LOCAL.tvm()), trials=trials)
    tuner.measurer = kind(LOCAL, device)
    return tuner


class Slowing(Measurer):
    """Its device's probe takes longer each time."""

    probes = 0

    def _probe(self) -> Outcome:
        self.probes += 1
        found = super()._probe()
        return replace(found, seconds=(1e-3 * 1.2**self.probes,))


def test_a_measured_run_watches_the_device_s_pace_and_flags_its_trials(unit, tmp_path, quick, monkeypatch, workers):
    monkeypatch.setattr(measurer, "PROBE_EVERY", 4)
    with find_device("local", LOCAL) as device:
        tuner = tuner_for(unit, device, tmp_path, 6, Slowing)
        result = tuner.run(workers)
    assert result.measured == 6 and tuner.measurer.probes >= 2
    assert result.drift > 1.1
    flagged = ["drift" in line for line in journal(tmp_path)]
    assert not flagged[0] and flagged[-1]
    assert RecordStore(tmp_path, LOCAL.tvm()).skipped == []


# Devices that fail


class Losing(Measurer):
    """What it sends to its device is lost on the way, so many times in a row."""

    left = 0

    def _job(self, mod, endpoint, reference):
        made = super()._job(mod, endpoint, reference)
        if self.left:
            self.left -= 1
            return replace(made, endpoint=replace(made.endpoint, port=free_port()))
        return made


def test_a_device_that_fails_repeatedly_rests_is_checked_and_readmitted(unit, tmp_path, quick, monkeypatch, workers):
    checks = []
    check = Losing._check

    def found_again(self):
        self.left = 0
        checks.append(check(self))
        return checks[-1]

    monkeypatch.setattr(Losing, "_check", found_again)
    with find_device("local", LOCAL) as device:
        tuner = tuner_for(unit, device, tmp_path, 12, Losing)
        tuner.measurer.left = 10**6
        result = tuner.run(workers)
    assert (result.measured, result.failed) == (12, 0) and result.repeated >= 3
    assert checks == [None]


def test_a_device_that_never_passes_its_check_is_given_up(unit, tmp_path, quick, monkeypatch, workers):
    monkeypatch.setattr(LocalDevice, "restart", lambda self: (_ for _ in ()).throw(DeviceFailed("it does not start")))
    with find_device("local", LOCAL) as device:
        tuner = tuner_for(unit, device, tmp_path, 12, Losing)
        tuner.measurer.left = 12
        started = time.monotonic()
        with pytest.raises(NothingMeasured):
            tuner.run(workers)
    assert time.monotonic() - started < 30


def test_a_device_that_computes_wrongly_is_told_from_a_wrong_schedule(unit, tmp_path, quick, monkeypatch, workers):
    """Wrong results: of two schedules by a device whose probe is right, then by one whose probe is wrong as well."""
    for wrong_device in (False, True):
        with find_device("local", LOCAL) as device:
            tuner = tuner_for(unit, device, tmp_path / str(wrong_device), 4, Sabotaged)
            tuner.measurer.wrong = True
            if not wrong_device:
                result = tuner.run(workers)
                assert (result.measured, result.causes) == (2, {"wrong": 2})
                folder = Path(result.first_error.rpartition("reproducer: ")[2])
                assert "differs from the unscheduled operator's" in read_reproducer(folder).what
                assert {"scheduled.json", "workload.py", "trace.json"} <= {path.name for path in folder.iterdir()}
                continue
            right = reference(probe())
            sums = np.array(right.digests)
            tuner.measurer._probe_reference = replace(right, digests=tuple(map(tuple, (sums + 1).tolist())))
            with pytest.raises(NothingMeasured, match="the device computes wrongly") as lost:
                tuner.run(workers)
            assert "reproducer" not in str(lost.value)


# Several devices at one tracker


@pytest.fixture
def tracker():
    running = Tracker(host="127.0.0.1", port=20990, port_end=21990, silent=True)
    yield running
    running.terminate()


def devices_of(port: int) -> int:
    session = rpc.connect_tracker("127.0.0.1", port)
    try:
        return session.summary()["queue_info"].get("board", {"free": 0})["free"]
    finally:
        session.close()


@pytest.fixture
def servers(tracker, tmp_path):
    """Two device servers of one key."""
    options = ("--tracker", f"127.0.0.1:{tracker.port}", "--key", "board")
    running = [RunningServer(LOCAL.machine, tmp_path / f"log-{number}", *options) for number in range(2)]
    eventually(lambda: devices_of(tracker.port) == 2, "both on offer")
    yield running
    for server in running:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()


def test_devices_of_one_key_work_side_by_side_and_one_that_dies_loses_its_trial_only(
    unit, tmp_path, tracker, servers, quick, workers
):
    endpoint = Endpoint("127.0.0.1", tracker.port, "board")
    first, second = (f"127.0.0.1:{server.port}" for server in servers)
    assert replace(endpoint, avoid=(first,)).connect(10).address == second
    killed = []

    def kill_one(_):
        if not killed:
            killed.append(servers[0].process.kill())

    with find_device(f"tracker://127.0.0.1:{tracker.port}/board", LOCAL) as device:
        assert device.workers == 3 and device.devices() == 2
        tuner = tuner_for(unit, device, tmp_path / "records", 24)
        tuner.on_progress = kill_one
        result = tuner.run(workers)
    assert (result.measured, result.failed) == (24, 0)
