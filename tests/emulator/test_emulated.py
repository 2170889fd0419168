"""The emulated Cortex-A as a device: it comes up, models the same time every time, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helpers.cross import zig_cc
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.clock.counts import read_counts
from tvm_shufflenet.clock.cycles import Cost
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Endpoint
from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.emulator.build import plugin_library
from tvm_shufflenet.emulator.core import EmulatedCore
from tvm_shufflenet.emulator.process import LAST_COUNTS, CostService
from tvm_shufflenet.errors import DeviceFailed, LinkFailed, ToolMissing, UnknownName
from tvm_shufflenet.hardware.boards import BOARDS, find_board
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.support import toolchain

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


STARTS_A_THREAD = """
#include <pthread.h>
static void *spin(void *unused) { for (volatile int i = 0; i < 1000; i++); return unused; }
int __tvm_ffi_main(void *self, const void *arguments, int count, void *result) {
    pthread_t thread;
    pthread_create(&thread, 0, spin, 0);
    return pthread_join(thread, 0);
}
"""


STOPS_SESSIONS = """
import contextlib, psutil, signal, sys, time
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended:
    for session in psutil.Process(int(sys.argv[1])).children():
        with contextlib.suppress(psutil.Error):
            session.suspend()
            time.sleep(0.003)
            session.resume()
    time.sleep(0.003)
"""


def processes_using(folder: str) -> list[int]:
    """Processes that name this folder on their command line: qemu, and the sessions forked from it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (entry / "cmdline").read_bytes():  # empty once a process has ended
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def wait_until(condition, limit_s: float = 10) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def device():
    with EmulatedCore("cortex-a72") as device:
        yield device


@pytest.fixture(scope="module")
def matmul(tmp_path_factory):
    """rows -> a library with the product of a (rows, 64) and a (64, 64) matrix, for the Cortex-A72.

    With ``parallel``, its rows are shared among the cores.
    """
    import tvm
    from tvm import te
    from tvm.s_tir import Schedule

    from tvm_shufflenet.hardware.targets import find_target

    def link(output, objects, options=None, **_):
        command = zig_cc("aarch64-linux-gnu.2.28", "-shared", "-o", output)
        subprocess.run([*command, *objects], check=True)

    link.output_format = "so"
    folder = tmp_path_factory.mktemp("matmul")

    def build(rows: int, parallel: bool = False) -> Path:
        path = folder / f"matmul{rows}{'-parallel' if parallel else ''}.so"
        if not path.exists():
            a, b = te.placeholder((rows, 64), name="A"), te.placeholder((64, 64), name="B")
            k = te.reduce_axis((0, 64), name="k")
            c = te.compute((rows, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
            schedule = Schedule(te.create_prim_func([a, b, c]).with_attr("global_symbol", "main"))
            if parallel:
                schedule.parallel(schedule.get_loops(schedule.get_sblock("C"))[0])
            tvm.compile(schedule.mod, find_target("cortex-a72").tvm()).export_library(str(path), fcompile=link)
        return path

    return build


def modelled_time(device: EmulatedCore | Endpoint, library: Path, rows: int) -> float:
    """Seconds of one call, in a session of its own."""
    import tvm

    endpoint = device if isinstance(device, Endpoint) else Endpoint(device.host, device.port)
    session = endpoint.connect(60)
    session.upload(str(library))
    module = session.load_module(library.name)
    arguments = [tvm.runtime.empty(shape, "float32", session.cpu()) for shape in ((rows, 64), (64, 64), (rows, 64))]
    return module.time_evaluator("main", session.cpu(), number=1, repeat=1)(*arguments).results[0]


class TestTime:
    def test_two_sessions_and_two_emulators_agree_to_the_last_digit(self, device, matmul):
        times = [modelled_time(device, matmul(64), 64) for _ in range(3)]
        with EmulatedCore("cortex-a72") as other:
            assert (other.port, other.host) != (device.port, device.host)
            times.append(modelled_time(other, matmul(64), 64))
        assert len(set(times)) == 1 and times[0] > 0

    def test_what_ran_before_and_runs_beside_makes_no_difference(self, device, matmul):
        alone = modelled_time(device, matmul(64), 64)
        modelled_time(device, matmul(96), 96)
        times = []
        threads = [
            threading.Thread(target=lambda: times.append(modelled_time(device, matmul(64), 64))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert times == [alone] * 4

    def test_a_session_that_is_stopped_and_goes_on_shows_the_same_time(self, device, matmul):
        alone = modelled_time(device, matmul(64), 64)
        children = psutil.Process(device._process.pid).children()
        (qemu,) = (child for child in children if "plugin" in " ".join(child.cmdline()))
        stopper = subprocess.Popen([sys.executable, "-c", STOPS_SESSIONS, str(qemu.pid)])
        try:
            assert [modelled_time(device, matmul(64), 64) for _ in range(4)] == [alone] * 4
        finally:
            stopper.terminate()
            assert stopper.wait() == 0

    def test_eight_times_the_work_takes_about_eight_times_as_long(self, device, matmul):
        small, large = modelled_time(device, matmul(16), 16), modelled_time(device, matmul(128), 128)
        assert 6 < large / small < 10

    def test_cores_share_a_parallel_region(self, device, matmul):
        alone = modelled_time(device, matmul(256), 256)
        alone_cycles = device.last_cost().core_cycles
        times, cycles = {}, {}
        for cores in (1, 2, 4):
            with EmulatedCore("cortex-a72", cores=cores) as several:
                times[cores] = [modelled_time(several, matmul(256, parallel=True), 256) for _ in range(2)]
                cycles[cores] = several.last_cost().core_cycles
                assert modelled_time(several, matmul(256), 256) == pytest.approx(alone, rel=0.02)
        assert all(len(set(repeated)) == 1 for repeated in times.values())
        # Not the times: whether two matrices start at the same set of the cache differs from library to library.
        assert cycles[1] == pytest.approx(alone_cycles, rel=0.01)
        assert 1.7 < times[1][0] / times[2][0] < 2.15 and 3.0 < times[1][0] / times[4][0] < 4.3

    def test_cores_compute_what_one_computes(self, matmul):
        import numpy as np
        import tvm

        a, b = (np.random.default_rng(0).random(shape, dtype="float32") for shape in ((64, 64), (64, 64)))
        with EmulatedCore("cortex-a72", cores=3) as several:
            session = tvm.rpc.connect(several.host, several.port, session_timeout=60)
            session.upload(str(matmul(64, parallel=True)))
            module = session.load_module(matmul(64, parallel=True).name)
            arguments = [tvm.runtime.tensor(data, session.cpu()) for data in (a, b, np.zeros((64, 64), "float32"))]
            module["main"](*arguments)
            np.testing.assert_allclose(arguments[2].numpy(), a @ b, rtol=1e-5)

    def test_a_library_that_starts_threads_of_its_own_has_no_time(self, device, tmp_path):
        import tvm

        (tmp_path / "threads.c").write_text(STARTS_A_THREAD)
        command = zig_cc("aarch64-linux-gnu.2.28", "-shared", "-fPIC")
        subprocess.run([*command, "-o", tmp_path / "threads.so", tmp_path / "threads.c"], check=True)
        session = tvm.rpc.connect(device.host, device.port, session_timeout=60)
        session.upload(str(tmp_path / "threads.so"))
        module = session.load_module("threads.so")
        with pytest.raises(Exception, match="ran on 2 threads; likely cause: it starts threads of its own"):
            module.time_evaluator("main", session.cpu(), number=1, repeat=1)()

    def test_a_session_that_crashes_leaves_the_device_usable(self, device, matmul):
        import tvm

        session = tvm.rpc.connect(device.host, device.port)
        pid = json.loads(session.get_function("tvm_shufflenet.server_info")())["pid"]
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(Exception):  # noqa: B017 (TVM raises several kinds)
            session.upload(str(matmul(16)))
            session.load_module(matmul(16).name)
        assert device.alive()
        assert modelled_time(device, matmul(16), 16) > 0
        assert "SIGSEGV" in device.last_error() or "Segmentation" in device.last_error()


class TestRehearsal:
    def test_it_makes_no_difference_what_comes_first(self, matmul):
        times = []
        for order in ((16, 64), (64, 16)):
            with EmulatedDevice(find_board("cortex-a72")) as device:
                found = {rows: modelled_time(device.endpoint(), matmul(rows), rows) for rows in order}
            times.append((found[16], found[64]))
        assert times[0] == times[1]

    def test_it_runs_where_sessions_fork_from_and_they_find_it_done(self):
        with EmulatedCore() as device:
            endpoint = Endpoint(device.host, device.port)
            before = {"rehearsal": 1, "session": 2}
            for kind, processes in before.items():
                session = replace(endpoint, rehearsal=kind == "rehearsal").connect(60)
                assert wait_until(lambda: len(processes_using(device._folder)) == processes)  # noqa: B023
                del session

    def test_one_that_says_nothing_holds_nobody_up_for_long(self, matmul):
        with EmulatedCore() as device:
            idle = Endpoint(device.host, device.port, rehearsal=True).connect(60)
            assert modelled_time(device, matmul(16), 16) > 0
            del idle


class TestCostService:
    @pytest.fixture
    def service(self, tmp_path):
        class Model:
            def price(self, counts):
                raise DeviceFailed("the model\nbroke")

        return CostService(Model(), tmp_path / "socket", tmp_path)

    @pytest.mark.parametrize("text", ["", "price", "price 1", "price x y", "price 1 ../2", "cost 1 2", "price 1 2 3"])
    def test_a_request_it_does_not_know_is_an_error(self, service, text):
        assert service.answer(text + "\n").startswith("error the cost service does not know the request")

    def test_it_says_what_core_it_is(self, service):
        service._model.board = find_board("cortex-a53")
        assert service.answer("core\n") == "ok cortex-a53"

    def test_a_missing_dump_is_an_error(self, service):
        assert service.answer("price 1 2\n").startswith("error the emulated core's counts in 1.2 cannot be read")

    def test_a_failing_model_is_an_error_on_one_line(self, service, tmp_path):
        (tmp_path / "1.2").write_text("threads 1\nend 0\n")
        assert service.answer("price 1 2\n") == "error the model broke"
        assert not (tmp_path / "1.2").exists()

    def test_only_the_latest_counts_are_kept(self, tmp_path):
        class Model:
            def price(self, counts):
                return Cost(1.0, 0.0, 1.0, 1, counts.threads, 0, 0, 0)

        (tmp_path / "counts").mkdir()
        service = CostService(Model(), tmp_path / "socket", tmp_path / "counts")
        for number in (1, 2):
            (tmp_path / "counts" / f"7.{number}").write_text(f"threads {number}\nend 0\n")
            assert service.answer(f"price 7 {number}\n") == "ok 1"
        assert not list((tmp_path / "counts").iterdir())
        assert read_counts(tmp_path / LAST_COUNTS).threads == 2


class TestServed:
    """Seen from another process, an emulated core is what it is."""

    def test_its_times_are_modelled_and_of_its_core(self):
        target = find_target("cortex-a53")
        open_to_all = EmulatedDevice(find_board("cortex-a53"), secret=b"", served=True)
        with open_to_all as served, find_device(f"rpc://{served.address}", target) as seen:
            assert (seen.kind, seen.clock, seen.name) == ("modelled", served.clock, served.name)
            assert f"modelled clock, about {served.facts.model_error_percent:.0f} % off) at rpc://" in seen.describe()
            with pytest.raises(DeviceFailed, match="models 1 cores, not 2"):
                find_device(f"rpc://{served.address}", target, threads=2).start()

    def test_serving_one(self, tmp_path, capsys):
        assert cli.main(["serve", "--core", "cortex-a53", "--user", "nobody"]) == 2
        assert "an emulated core" in capsys.readouterr().err
        assert cli.main(["serve", "--core", "cortex-a53", "--secret-file", "x"]) == 2
        assert "cannot read the secret in x" in capsys.readouterr().err
        words = [sys.executable, "-m", "tvm_shufflenet.cli", "serve", "--core", "cortex-a53", "--port", "0"]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        assert re.fullmatch(r"listening 127\.0\.0\.1:\d+\n", server.stdout.readline())
        server.terminate()
        assert server.wait(20) == 130 and not list(tmp_path.iterdir())
        server.stdout.close()


class TestLife:
    def test_stop_leaves_no_process_and_no_file(self):
        device = EmulatedCore("cortex-a53").start()
        folder = device._folder
        assert processes_using(folder) and Path(folder).exists() and device.alive()
        device.stop()
        assert not processes_using(folder) and not Path(folder).exists() and not device.alive()
        device.stop()
        assert device.port is None

    def test_restart_comes_back_after_the_emulator_died(self):
        import tvm

        with EmulatedCore() as device:
            folder = device._folder
            session = tvm.rpc.connect(device.host, device.port)
            assert len(processes_using(folder)) == 2 and session
            os.kill(device._process.pid, signal.SIGKILL)
            assert wait_until(lambda: not device.alive())
            assert wait_until(lambda: not processes_using(folder)), "qemu outlived a killed emulator"
            device.restart()
            assert device.alive() and not Path(folder).exists()

    def test_a_dead_qemu_ends_the_emulator(self):
        with EmulatedCore() as device:
            for pid in processes_using(device._folder):
                os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: not device.alive())
            assert "qemu-aarch64 ended with status -9" in device.last_error()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_everything(self, number):
        with EmulatedCore() as device:
            folder = device._folder
            os.kill(device._process.pid, number)
            assert device._process.wait(10) == 0
            assert not processes_using(folder) and not Path(folder).exists()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_it_ends_with_its_owner_even_in_a_session(self, number):
        owner = _python(
            """
            import json, time, tvm
            from tvm_shufflenet.emulator.core import EmulatedCore
            device = EmulatedCore().start()
            session = tvm.rpc.connect(device.host, device.port)
            print(device._folder, flush=True)
            time.sleep(60)
            """
        )
        folder = owner.stdout.readline().strip()
        assert len(processes_using(folder)) == 2
        owner.send_signal(number)
        owner.wait()
        assert wait_until(lambda: not processes_using(folder) and not Path(folder).exists())

    def test_the_emulator_imports_nothing_heavy(self):
        done = _python(
            """
            import sys
            import tvm_shufflenet.emulator.process
            print([name for name in ("tvm", "torch", "numpy", "rich") if name in sys.modules])
            """
        )
        assert done.communicate()[0].strip() == "[]"

    def test_as_a_command(self):
        command = [sys.executable, "-m", "tvm_shufflenet.emulator.process", "--core", "cortex-a76"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready = json.loads(process.stdout.readline())
        assert (ready["host"], ready["core"], ready["pid"]) == ("127.0.0.1", "cortex-a76", process.pid)
        process.stdin.close()
        assert process.wait(10) == 0


def _python(source: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


class TestFailure:
    def test_unknown_core(self):
        with pytest.raises(UnknownName, match="cortex-a72"):
            EmulatedCore("cortex-a27")

    def test_missing_tools_are_named_with_the_command_that_brings_them(self, monkeypatch):
        monkeypatch.setenv("TVM_SHUFFLENET_SYSROOT", "/nowhere")
        with pytest.raises(ToolMissing, match="libc6-arm64-cross"):
            EmulatedCore().start()

    def test_a_qemu_that_ends_at_once(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TVM_SHUFFLENET_QEMU", _qemu(tmp_path, "echo no such core >&2; exit 3"))
        device = EmulatedCore()
        with pytest.raises(DeviceFailed, match="no such core\nqemu-aarch64 ended with status 3"):
            device.start()
        assert not device.alive()

    def test_a_qemu_with_another_plugin_interface(self, monkeypatch, tmp_path):
        refusal = "plugin requires API version 1, but this QEMU supports only a minimum version of 2"
        monkeypatch.setenv("TVM_SHUFFLENET_QEMU", _qemu(tmp_path, f"echo '{refusal}' >&2; exit 1"))
        with pytest.raises(ToolMissing, match=r"another interface .*TVM_SHUFFLENET_QEMU"):
            EmulatedCore().start()

    @pytest.mark.parametrize("version", ["5.2.0", "11.0.50", ""])
    def test_a_qemu_whose_plugin_interface_is_not_known(self, version, monkeypatch, tmp_path):
        monkeypatch.setenv("TVM_SHUFFLENET_QEMU", _qemu(tmp_path, "exit 1", version))
        expected = r"not known here: QEMU 6 to 10" if version else "does not say which version"
        with pytest.raises(ToolMissing, match=expected):
            EmulatedCore().start()

    def test_a_qemu_that_never_answers(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TVM_SHUFFLENET_QEMU", _qemu(tmp_path, "exec sleep 60"))
        monkeypatch.setattr("tvm_shufflenet.emulator.core.START_LIMIT_S", 1.0)
        with pytest.raises(DeviceFailed, match="did not come up within 1 s"):
            EmulatedCore().start()

    @pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"text"])
    def test_a_plugin_that_does_not_load(self, damage, monkeypatch, tmp_path):
        plugin = plugin_library()
        for path in toolchain.cache_dir().iterdir():
            (tmp_path / path.name).symlink_to(path)
        (tmp_path / plugin.name).unlink()
        (tmp_path / plugin.name).write_bytes(damage(plugin.read_bytes()))
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
        with pytest.raises(ToolMissing, match=rf"(?s)plugin .*cannot be loaded.* damaged.*remove {tmp_path}"):
            EmulatedCore().start()

    def test_a_core_that_llvm_mca_lacks(self, monkeypatch):
        board = BOARDS["cortex-a76"]
        lacking = replace(board, core=replace(board.core, mca_cpu="cortex-a76"))
        monkeypatch.setitem(BOARDS, "cortex-a76", lacking)
        with pytest.raises(ToolMissing, match="no model of cortex-a76"):
            EmulatedCore("cortex-a76").start()

    def test_a_plugin_that_does_not_build(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
        monkeypatch.setenv("CC", _script(tmp_path, "echo plugin.c: the compiler is unwell >&2; exit 1"))
        with pytest.raises(LinkFailed, match="the compiler is unwell"):
            EmulatedCore().start()
        assert not [path for path in tmp_path.iterdir() if path.suffix == ".so"]


def _qemu(folder: Path, commands: str, version: str = "7.2.0") -> str:
    """A program that says it is such a QEMU, and does this when it is to emulate anything."""
    says = f"qemu-aarch64 version {version}" if version else "hello"
    return _script(folder, f'if [ "$1" = --version ]; then echo "{says}"; exit; fi; {commands}')


def _script(folder: Path, commands: str) -> str:
    path = folder / "script"
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return str(path)
