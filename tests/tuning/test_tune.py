"""Tuning: it resumes, it outlives its device, it ends cleanly, and it says what failed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from helpers.factories import FACTORY
from helpers.recording import put
from helpers.servers import answers, servers
from helpers.tuning_runs import (
    ARM64,
    MISSING,
    SHAPE,
    Command,
    Crash,
    Sabotaged,
    free_port,
    journal,
    operators,
    tune_command,
)
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Endpoint
from tvm_shufflenet.devices.local import LocalDevice
from tvm_shufflenet.errors import NothingMeasured
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import find_target, host_machine
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.link import trial_command
from tvm_shufflenet.library.scheduling import schedule_tuned
from tvm_shufflenet.models import find_model
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.server.build import server_binary
from tvm_shufflenet.tuning.measuring.trial import Cause, Job, Outcome, run_trial
from tvm_shufflenet.tuning.measuring.workers import PROGRAM, Workers
from tvm_shufflenet.tuning.records.shipped import write_best
from tvm_shufflenet.tuning.records.store import JOURNAL, RECORDS, RecordStore, trace_hash
from tvm_shufflenet.tuning.search.driver import Tuner
from tvm_shufflenet.tuning.search.task import PARENTS
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.tune import tune_network

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """What --model names: a ShuffleNet unit of three operators."""
    path = tmp_path_factory.mktemp("model") / "tiny.py"
    path.write_text(FACTORY)
    return f"{path}:unit"


@pytest.fixture(scope="module")
def unit(model):
    return import_model(find_model(model, input_shape=SHAPE))


@pytest.fixture(scope="module")
def device():
    with find_device("emulated", ARM64) as device:
        yield device


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "records"


def tune(unit, device, folder: Path, trials: int, strategy: str = "template", target=ARM64):
    """One tuning run as the command line does it; returns its result and what ``on_progress`` was told."""
    seen = []
    store = RecordStore(folder, target.tvm())
    result = tune_network(
        fuse(unit.module, target), device, store, strategy=strategy, trials=trials, seed=0, on_progress=seen.append
    )
    return result, seen


def one_operator(unit, target=ARM64) -> list[OperatorTask]:
    """The pointwise convolution that comes first, which has schedules for a whole batch."""
    return [task for task in operators(unit, target) if rules.template_name(task.mod) == "pointwise"][:1]


def keys(trials: list[dict]) -> list[tuple[str, str]]:
    return [(trial["workload"], trial["trace"]) for trial in trials]


@pytest.mark.usefixtures("kept_workers")
class TestResume:
    @pytest.mark.slow
    def test_a_second_run_measures_only_what_is_missing(self, unit, device, folder):
        result, seen = tune(unit, device, folder, 20)
        assert (result.measured, result.failed, result.reused) == (20, 0, 0)
        assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)

        # The heaviest operator comes first, and every operator before any for the second time.
        by_weight = [task.name for task in sorted(result.tasks, key=lambda t: -t.weight * t.flops)]
        assert [progress.task for progress in seen][:3] == by_weight

        again, seen = tune(unit, device, folder, 20)
        assert (again.measured, again.failed, again.reused, seen) == (0, 0, 20, [])
        assert len(journal(folder)) == 20

        more, _ = tune(unit, device, folder, 24)
        assert (more.measured + more.failed, more.reused) == (4, 20)
        lines = journal(folder)
        assert len(lines) == 24 and max(Counter(keys(lines)).values()) == 1
        assert {line["kind"] for line in lines} == {"modelled"} and {line["device"] for line in lines} == {device.name}

    @pytest.mark.slow
    def test_a_killed_run_goes_on_as_if_it_had_not_been(self, unit, device, tmp_path):
        """It makes the trials that it would have made, in the same order, and none twice."""
        written = 11  # of 20: a seed says which come after them
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        tune(unit, device, whole, 20)
        shutil.copytree(whole, killed)
        for name in (JOURNAL, RECORDS):
            lines = (whole / name).read_bytes().splitlines(keepends=True)
            (killed / name).write_bytes(b"".join(lines[:written]))
        result, _ = tune(unit, device, killed, 20)
        assert (result.measured, result.reused) == (20 - written, written)
        assert journal(killed) == journal(whole)

    @pytest.mark.slow
    def test_strategies_count_their_own_trials_and_share_the_records(self, unit, device, folder):
        tune(unit, device, folder, 3, "template")
        result, _ = tune(unit, device, folder, 4, "ansor")
        assert (result.measured + result.failed, result.reused) == (4, 0)
        assert {task.space for task in result.tasks} == {"generated"}
        lines = journal(folder)
        assert Counter(line["strategy"] for line in lines) == {"template": 3, "ansor": 4}
        assert max(Counter(keys(lines)).values()) == 1
        for strategy, trials in (("template", 3), ("ansor", 4)):
            again, _ = tune(unit, device, folder, trials, strategy)
            assert (again.measured, again.failed, again.reused) == (0, 0, trials)


@pytest.mark.usefixtures("kept_workers")
@pytest.mark.slow
def test_threads_are_tuned_for_and_used_by_their_own_records(unit, folder, tmp_path):
    target = find_target("local")
    store = RecordStore(folder, target.tvm())
    with find_device("local", target, threads=2) as device:
        result = tune_network(
            fuse(unit.module, target),
            device,
            store,
            strategy="template",
            trials=3,
            seed=0,
            on_progress=lambda _: None,
            threads=2,
        )
    assert result.measured == 3 and {line["threads"] for line in journal(folder)} == {2}
    made = {}
    for threads in (1, 2):
        database = store.database(threads=threads)
        made[threads] = schedule_tuned(fuse(unit.module, target), database, threads)
        build(made[threads], tmp_path / f"{threads}.so")
    assert "record" in {operator.schedule for operator in made[2].operators}
    assert {operator.schedule for operator in made[1].operators} == {"template"}
    module = operators(unit, target)
    assert [Tuner(module, target, device, store, trials=3, threads=n).reused for n in (1, 2)] == [0, 3]


def test_a_search_tries_what_is_shipped_for_a_cpu_like_it(unit, folder, tmp_path):
    """Else tuning a little could end with less than compiling without any."""
    lender, tasks = find_target("cortex-a72"), operators(unit)
    mod = next(task.mod for task in tasks if rules.template_name(task.mod) == "pointwise")
    work = RecordStore(tmp_path / "work", lender.tvm())
    put(work, mod, kind="modelled", device="emulated:cortex-a72", decision=1, target=lender.tvm())
    (shipped,) = work.best("emulated:cortex-a72")
    write_best(tmp_path / "shipped", [shipped])
    store = RecordStore(folder, ARM64.tvm(), tmp_path / "shipped", lender.tvm())
    tuner = Tuner(tasks, ARM64, find_device("emulated", ARM64), store, trials=8)
    assert tuner.reused == 0
    (task,) = [task for task in tuner.tasks if task.workload == shipped.trial.workload]
    assert shipped.trial.trace in [trace_hash(each.sch.trace) for each in tuner.proposals.schedules(task, 2)]
    assert not task.searched  # two guesses are two trials


def test_a_search_keeps_the_records_that_may_be_parents_alone(unit, folder):
    """A tuner that runs for days may not grow with every trial."""
    tuner = Tuner(one_operator(unit), ARM64, find_device("emulated", ARM64), RecordStore(folder, ARM64.tvm()), trials=1)
    (task,) = tuner.tasks
    parents = PARENTS[task.space]
    candidate = rules.default_candidate(task.mod, tuner.machine)
    times = [float(time) for time in np.random.default_rng(1).permutation(np.arange(1, 101)) * 1e-6]
    for seconds in times:
        tuner._commit(task, candidate, Outcome((seconds,)))
    best = tuner.database.get_top_k(task.record_workload, parents)
    assert [float(record.run_secs[0]) for record in best] == pytest.approx(sorted(times)[:parents])
    assert parents >= 4 and len(tuner.database) < len(times) / 3


@pytest.mark.usefixtures("kept_workers")
def test_few_trials_are_shared_among_all_operators(unit, folder):
    tasks = operators(unit)
    store = RecordStore(folder, ARM64.tvm())
    with find_device("emulated", ARM64) as device:
        result = Tuner(tasks, ARM64, device, store, trials=len(tasks) + 2).run()
    assert result.measured == len(tasks) + 2 and all(task.trials for task in result.tasks)
    first = {line["workload"]: line["trace"] for line in reversed(journal(folder))}
    machine = machine_for(ARM64, 1)
    for task in result.tasks:
        if task.space == "template":
            assert first[task.workload] == trace_hash(rules.default_schedule(task.mod, machine).trace)


class TestDeviceFailure:
    @pytest.mark.slow
    @pytest.mark.usefixtures("kept_workers")
    def test_it_dies_and_tuning_goes_on(self, unit, folder):
        with find_device("emulated", ARM64) as device:
            first = device._emulator._process.pid
            killed, store = [], RecordStore(folder, ARM64.tvm())

            def kill_once(progress):
                if not killed:
                    killed.append(progress.done)
                    os.kill(first, signal.SIGKILL)  # the emulator; qemu ends with it

            result = tune_network(
                fuse(unit.module, ARM64), device, store, strategy="template", trials=40, seed=0, on_progress=kill_once
            )
            assert device._emulator._process.pid != first and answers(device)
        assert (result.measured, result.failed) == (40, 0) and result.repeated > 0
        assert not any("cause" in line for line in journal(folder))

    def test_it_never_answers(self, unit, folder, new_workers):
        silent = find_device(f"rpc://127.0.0.1:{free_port()}", ARM64)
        with pytest.raises(NothingMeasured, match=r"nothing was measured.*no session from rpc://127.0.0.1"):
            tune(unit, silent, folder, 8)
        assert not new_workers()

    def test_a_device_that_cannot_be_reached_is_exit_4(self, model, folder, capsys):
        address = f"rpc://127.0.0.1:{free_port()}"
        assert cli.main(tune_command(model, folder, "--device", address)[1:]) == 4
        error = capsys.readouterr().err
        assert f"no session from {address}" in error and "Traceback" not in error and error.count("\n") == 1
        assert not folder.exists()

    def test_a_device_lost_before_the_first_trial_is_exit_6(self, unit, model, folder, capsys, monkeypatch):
        server = subprocess.Popen(
            [server_binary(host_machine()), "--port", "0", "--allow-root"], stdout=subprocess.PIPE, text=True
        )
        address = server.stdout.readline().split()[1]

        def lose_it(*_):
            server.kill()
            server.wait()
            return unit

        monkeypatch.setattr("tvm_shufflenet.workflow.imported.import_model", lose_it)
        words = ["tune", "--model", model, "--input-shape", "1,48,8,8", "--target", "local"]
        assert cli.main([*words, "--trials", "8", "--device", f"rpc://{address}", "--records", str(folder)]) == 6
        error = capsys.readouterr().err
        assert "nothing was measured" in error and f"no session from rpc://{address}" in error
        assert "Traceback" not in error and error.count("\n") == 1


def trial_workers() -> list[psutil.Process]:
    """Worker processes of ours that are alive."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if PROGRAM in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.Error:
            pass
    return found


@pytest.fixture
def new_workers():
    """Worker processes that were not there when the test began."""
    before = trial_workers()
    return lambda: [worker for worker in trial_workers() if worker not in before]


@I.ir_module
class Good:
    @T.prim_func
    def main(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "main"})
        for i in range(64):
            B[i] = A[i] + T.float32(1)


@I.ir_module
class Endless:
    @T.prim_func
    def main(B: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "main"})
        for _ in T.serial(T.int64(1099511627776)):
            B[0] = B[0] + T.float32(1)


def job(module: tvm.IRModule, endpoint: Endpoint, session_seconds: float = 20, target=ARM64) -> Job:
    return Job(
        tvm.ir.save_json(module),
        target.tvm_config,
        tuple(trial_command(target)),
        target.machine,
        endpoint,
        number=1,
        repeat=1,
        min_repeat_ms=0,
        session_seconds=session_seconds,
    )


class TestTrial:
    """A failed trial is a result with a cause."""

    def test_a_good_one(self, device):
        outcome = run_trial(job(Good, device.endpoint()))
        assert outcome.cause is None and len(outcome.seconds) == 1 and 0 < outcome.seconds[0] < 1e-3

    def test_one_that_crashes(self, device):
        outcome = run_trial(job(Crash, device.endpoint()))
        assert (outcome.seconds, outcome.cause) == ((), Cause.RUN) and "Segmentation fault" in outcome.error
        assert answers(device)

    def test_one_whose_library_changed_on_the_way(self, device, monkeypatch):
        """By a byte that does no harm: nobody can know that of any other."""
        upload = tvm.rpc.RPCSession.upload

        def change(self, path):
            upload(self, bytearray(Path(path).read_bytes() + b"\0"), Path(path).name)

        monkeypatch.setattr(tvm.rpc.RPCSession, "upload", change)
        outcome = run_trial(job(Good, device.endpoint()))
        assert outcome.cause is Cause.DEVICE and "changed what was sent" in outcome.error

    def test_one_that_never_ends(self, device):
        started = time.monotonic()
        outcome = run_trial(job(Endless, device.endpoint(), session_seconds=2))
        assert (outcome.seconds, outcome.cause) == ((), Cause.RUN) and "2s session has expired" in outcome.error
        assert time.monotonic() - started < 10 and answers(device)

    def test_one_without_a_device(self):
        outcome = run_trial(job(Good, Endpoint("127.0.0.1", free_port())))
        assert outcome.cause is Cause.DEVICE and "no session" in outcome.error

    @pytest.mark.parametrize(
        "change", [{"link_command": ("/nowhere/ld",)}, {"link_command": ("false",)}, {"module_json": "{}"}]
    )
    def test_one_that_does_not_build(self, device, change):
        outcome = run_trial(replace(job(Good, device.endpoint()), **change))
        assert outcome.cause is Cause.BUILD and outcome.error


class TestWorkers:
    def test_a_trial_that_takes_too_long_costs_its_process_only(self, device, new_workers):
        workers = Workers(1, 2.0)
        try:
            slow = workers.submit(job(Endless, device.endpoint()))
            good = workers.submit(job(Good, device.endpoint()))
            assert slow.result().cause is Cause.TIMEOUT and "took over 2 s" in slow.result().error
            assert good.result().seconds
        finally:
            workers.close()
        assert not new_workers()

    def test_a_process_that_dies_is_replaced(self, device, new_workers):
        workers = Workers(1, 60.0)
        try:
            deadline = time.monotonic() + 10
            while not (loading := new_workers()) and time.monotonic() < deadline:
                time.sleep(0.01)
            loading[0].kill()
            good = workers.submit(job(Good, device.endpoint()))
            assert good.result().seconds
            (victim,) = new_workers()
            loaded = {Path(each.path).name for each in victim.memory_maps()}
            assert "libtvm_compiler.so" in loaded and "libtorch_cpu.so" not in loaded
            lost, good = (workers.submit(job(module, device.endpoint())) for module in (Endless, Good))
            time.sleep(0.3)
            victim.kill()
            assert lost.result().cause is Cause.BUILD and "crashed" in lost.result().error
            assert good.result().seconds
        finally:
            workers.close()

    def test_closing_ends_busy_processes_and_their_files(self, device, new_workers):
        workers = Workers(1, 60.0)
        folder = Path(workers._folder)
        busy = workers.submit(job(Endless, device.endpoint()))
        deadline = time.monotonic() + 30
        while not list(folder.glob("trial-*/trial.so")) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        workers.close()
        assert time.monotonic() - started < 3 and not new_workers() and not folder.exists()
        assert busy.result().cause is Cause.BUILD


@pytest.mark.usefixtures("kept_workers")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "cause", "error"),
    [(False, "run", "Segmentation fault"), (True, "wrong", "differs from the unscheduled operator's")],
)
def test_a_schedule_that_crashes_or_is_wrong_counts_as_failed_and_is_not_tried_again(
    unit, device, folder, wrong, cause, error
):
    module, process = one_operator(unit), device._emulator._process.pid
    tuner = Tuner(module, ARM64, device, RecordStore(folder, ARM64.tvm()), trials=6)
    tuner.measurer = Sabotaged(ARM64, device)
    tuner.measurer.wrong = wrong
    result = tuner.run()
    assert (result.measured, result.failed, result.causes) == (4, 2, {cause: 2})
    assert error in result.first_error
    assert device._emulator._process.pid == process, "the device is well and was not to be restarted"
    crashed = {line["trace"] for line in journal(folder) if "cause" in line}
    recorded = {
        trace_hash(record.trace) for record in RecordStore(folder, ARM64.tvm()).database().get_all_tuning_records()
    }
    assert len(recorded) == 4 and not crashed & recorded
    again = Tuner(module, ARM64, device, RecordStore(folder, ARM64.tvm()), trials=6)
    assert again.reused == 6 and crashed <= again.tasks[0].seen


class Cable:
    """A port that leads to a device, and is cut in the middle of the first ``cuts`` uploads."""

    def __init__(self, port: int, cuts: int):
        self.to, self.cuts = port, cuts
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, sink, source is client), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                carried += len(data)
                if upwards and carried > 2000 and self.cuts > 0:
                    self.cuts -= 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("kept_workers")
@pytest.mark.slow
def test_a_session_that_is_cut_off_costs_no_trial(unit, folder, tmp_path):
    target = find_target("local")
    with servers(target.machine, tmp_path) as start:
        device = find_device(f"rpc://127.0.0.1:{Cable(start().port, cuts=2).port}", target)
        result, _ = tune(unit, device, folder, 5, target=target)
    assert (result.measured, result.failed) == (5, 0) and 1 <= result.repeated <= 2
    assert {line["kind"] for line in journal(folder)} == {"measured"}


def wait_for_handlers(pid: int) -> None:
    """Until the process catches SIGTERM: only the command does, Python by itself does not. Its libraries come later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError("the command never began")


class TestInterrupt:
    @pytest.mark.slow
    def test_records_are_kept_and_no_process_is_left(self, unit, model, device, tmp_path):
        """At a terminal, where every process gets the signal; and SIGTERM, sent to the command alone."""
        ways = {
            "terminal": lambda process: os.killpg(process.pid, signal.SIGINT),
            "term": lambda process: process.send_signal(signal.SIGTERM),
        }
        commands = {how: Command(tune_command(model, tmp_path / how)[1:]) for how in ways}
        for how, command in commands.items():
            folder = tmp_path / how
            command.watch(until=lambda folder=folder: (folder / JOURNAL).exists() and len(journal(folder)) > 2)
            assert len(command.descendants) >= 3, "emulator, qemu, workers"
            ways[how](command.process)
            _, error = command.process.communicate(timeout=30)
            assert command.process.returncode == 130 and not command.left()
            assert error.endswith("interrupted; finished trials are recorded, the same command goes on from them\n")
            assert "Traceback" not in error
            assert RecordStore(folder, ARM64.tvm()).skipped == []
            assert all("cause" not in line for line in journal(folder)), "an interrupted trial has not failed"

        folder = tmp_path / "terminal"
        finished = len(journal(folder))
        result, _ = tune(unit, device, folder, finished + 2)
        assert (result.measured + result.failed, result.reused) == (2, finished)

    @pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0])
    def test_it_ends_while_libraries_are_loaded(self, model, folder, delay_s):
        command = Command(tune_command(model, folder)[1:])
        wait_for_handlers(command.process.pid)
        time.sleep(delay_s)
        command.note()
        os.killpg(command.process.pid, signal.SIGINT)
        _, error = command.process.communicate(timeout=30)
        assert command.process.returncode == 130 and not command.left() and "Traceback" not in error

    def test_the_local_server_ends_with_a_killed_owner(self):
        source = """
import time
from tvm_shufflenet.devices.local import LocalDevice
device = LocalDevice()
device.start()
print(device._process.pid, flush=True)
time.sleep(60)
"""
        owner = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        owner.wait()
        psutil.wait_procs([server], timeout=5)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

    def test_a_local_server_whose_start_is_interrupted_is_ended(self, monkeypatch):
        device = LocalDevice()
        started = []
        popen = subprocess.Popen

        def start(*args, **options):
            process = popen(*args, **options)
            started.append(process)
            process.stdout.readline = interrupt
            return process

        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess, "Popen", start)
        with pytest.raises(KeyboardInterrupt), device:
            pass
        assert started[-1].poll() is not None
