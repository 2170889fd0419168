"""Deploying: over a real ssh to a real sshd, and over the real adb client, with the connection cut halfway."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from helpers.adb_server import SERIAL, AdbServer
from helpers.cut_proxy import CutProxy
from helpers.servers import answers, servers
from helpers.tensors import OUTPUT, only
from helpers.tiny_packages import manifest
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.deploy import deployment
from tvm_shufflenet.deploy.answer import checksum
from tvm_shufflenet.deploy.deployment import Settings, deploy
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.secret import VARIABLE
from tvm_shufflenet.errors import BadInput, DeviceFailed, PackageInvalid, ToolMissing, WrongResult
from tvm_shufflenet.graph.pipeline import stock
from tvm_shufflenet.hardware.targets import find_target, host_machine
from tvm_shufflenet.library.scheduling import schedule_untuned
from tvm_shufflenet.licences.sbom import SBOM
from tvm_shufflenet.models import Model
from tvm_shufflenet.packages.manifest import MANIFEST
from tvm_shufflenet.packages.package import Package, write_package
from tvm_shufflenet.standalone.build import build_standalone
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.transport import adb, find_remote
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model

CHECK = Path(__file__).parents[1] / "standalone" / "standalone_check.c"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(not SSHD or not shutil.which("ssh"), reason="missing: openssh-server")
needs_adb = pytest.mark.skipif(not shutil.which("adb"), reason="missing: adb")
pytestmark = pytest.mark.skipif(toolchain.find_zig().path is None, reason="missing: zig")
SIZE = 9_000_000  # of the library, which is what takes time to copy
ELF_CODES = {"x86_64": 62, "aarch64": 183}


class Tiny(nn.Module):
    def forward(self, data):
        return data.relu() + 1


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """Whether the output is right -> the benchmark of a small network that says so."""
    host, folder = find_target("local"), tmp_path_factory.mktemp("benches")
    tiny = import_model(Model("tiny", (1, 2, 4, 4), module=Tiny().eval()))
    scheduled = schedule_untuned(stock(tiny.module, host)).module
    right = tiny.answers.each[:1]
    wrong = [replace(right[0], expected={OUTPUT: only(tiny.reference) + 1})]
    built = {}
    for ok, each in ((True, right), (False, wrong)):
        answers = replace(tiny.answers, each=each)
        built[ok] = build_standalone(scheduled, host, "tiny", tiny.signature, answers, folder / str(ok)).bench
    return built | {"answers": right}


@pytest.fixture
def make_package(benches, tmp_path):
    """Beside the benchmark, a package holds a library of ``size`` bytes, which is not loaded here."""

    def make(name: str = "tiny", machine: str = host_machine(), size: int = SIZE, ok: bool = True) -> Package:
        library = tmp_path / "library"
        header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, ELF_CODES[machine])
        library.write_bytes(header + np.random.default_rng(0).bytes(size))
        more = {"tiny_bench": benches[ok], "examples/run.c": CHECK}
        right = benches["answers"]
        facts = manifest((1, 2, 4, 4), only(right[0].expected).shape, machine=machine)
        return write_package(tmp_path / name, library, right, facts, more)

    return make


@pytest.fixture
def package(make_package):
    return make_package()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(deployment, "PAUSE_S", 0.2)


def check_there(folder: Path, package: Package) -> None:
    """The folder is the package, without what was measured, and without leftovers."""
    there = Package(folder)
    assert there.manifest.hashes == package.manifest.hashes and there.manifest.timings == ()
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == sorted([*package.manifest.hashes, MANIFEST])
    assert os.access(folder / "tiny_bench", os.X_OK)


def check_timing(package: Package, device: str, threads: int = 1) -> None:
    (timing,) = Package(package.path).manifest.timings
    assert timing.device["name"] == device and timing.device["kind"] == "measured" and timing.threads == threads
    assert os.uname().release in timing.device["kernel"] and len(timing.device["cores"]) == os.cpu_count()
    assert 0 < timing.latency_us["median"] <= timing.latency_us["p90"] and timing.latency_us["kind"] == "measured"
    assert timing.cold_us > 0 and timing.peak_memory_bytes > 10_000
    assert timing.operators and all(operator.median_us > 0 for operator in timing.operators)


# ssh


class Sshd:
    """sshd as this user, on a free port of this machine, with keys of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("host", "other-host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\nUsePAM no\n"
            "SetEnv SHLVL=1\n"  # else bash takes the time to read the user's .bashrc for every command
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd of root locks itself in; its package makes it
        command = [SSHD, "-D", "-e", "-f", folder / "config"]
        self._process = subprocess.Popen(command, stderr=open(folder / "log", "w"), start_new_session=True)  # noqa: SIM115
        self._wait()

    def _wait(self) -> None:
        for _ in range(100):
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
        pytest.fail((self.folder / "log").read_text())

    def know(self, *ports: int, key: str = "host") -> None:
        public = " ".join((self.folder / f"{key}.pub").read_text().split()[:2])
        (self.folder / "known").write_text("".join(f"[127.0.0.1]:{port} {public}\n" for port in ports))

    def options(self, key: str = "user") -> list[str]:
        return [f"IdentityFile={self.folder}/{key}", f"UserKnownHostsFile={self.folder}/known", "IdentitiesOnly=yes",
                "GlobalKnownHostsFile=/dev/null"]  # fmt: skip

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def to(sshd, tmp_path):
    """A folder on the device that the server and what leads to it make of this machine."""

    def make(folder: Path = tmp_path / "device dir", port: int = sshd.port, key: str = "user", known: bool = True):
        if known:
            sshd.know(sshd.port, port)
        return find_remote(f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}", "tiny", sshd.options(key))

    return make


@pytest.fixture
def mounted(tmp_path):
    """A small file system of its own, mounted with ``options``."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if done.returncode != 0:
            pytest.skip("this user may not mount")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


@needs_sshd
class TestSsh:
    def test_only_what_changed_is_copied(self, package, make_package, to, tmp_path, sshd):
        done = deploy(package, to(), Settings(threads=2))
        assert set(done.copied) == {*package.manifest.hashes, MANIFEST} and not done.unchanged
        assert done.copied[-1] == MANIFEST and done.sent_bytes > SIZE
        check_there(tmp_path / "device dir", package)
        check_timing(package, f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}", 2)
        again = deploy(package, to(), Settings(threads=2))
        assert not again.copied and not again.sent_bytes and len(Package(package.path).manifest.timings) == 1
        (tmp_path / "device dir" / "examples" / "run.c").write_text("edited there")
        assert deploy(package, to(), Settings(threads=2)).copied == ("examples/run.c",)
        newer = make_package("newer", size=10_000)
        assert set(deploy(newer, to(), Settings()).copied) == {"tiny.so", SBOM, MANIFEST}
        check_there(tmp_path / "device dir", newer)

    def test_an_archive_in_the_home_folder(self, make_package, to):
        package = make_package("tiny.tar.zst", size=1000)
        folder = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".tvm-shufflenet-test"
        try:
            deploy(package, to(Path("/~") / folder.name), Settings())
            check_there(folder, package)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        assert len(Package(package.path).manifest.timings) == 1

    def test_a_cut_connection_goes_on_where_it_ended(self, package, to, sshd, tmp_path):
        lines = []
        with CutProxy(sshd.port, cuts=(SIZE // 2, SIZE // 4)) as proxy:
            done = deploy(package, to(port=proxy.port), Settings(), lines.append)
            assert not proxy.cuts, "it was never cut"
        check_there(tmp_path / "device dir", package)
        assert sum("connection lost, tiny.so goes on, from" in line for line in lines) == 2
        # What ssh had sent and the other side had not read is sent again; the rest is not.
        assert SIZE <= done.sent_bytes < 1.01 * SIZE + 200_000 and proxy.sent_bytes < 1.6 * SIZE
        check_timing(package, f"ssh://{getpass.getuser()}@127.0.0.1:{proxy.port}")

    def test_another_command_goes_on_where_a_cut_one_ended(self, package, to, sshd, tmp_path):
        with CutProxy(sshd.port, cuts=(2 * SIZE // 3,), for_good=True) as proxy:
            again = r"no connection to .*MB of tiny\.so.*there.*next: run the same command again"
            with pytest.raises(DeviceFailed) as error:
                deploy(package, to(port=proxy.port), Settings())
        assert re.search(again, str(error.value))
        assert not (tmp_path / "device dir" / "tiny.so").exists() and not Package(package.path).manifest.timings
        done = deploy(package, to(), Settings())
        assert 0 < done.sent_bytes < 0.7 * SIZE
        check_there(tmp_path / "device dir", package)

    def test_what_arrived_damaged_is_sent_again(self, package, to, tmp_path):
        remote = to()
        deploy(package, remote, Settings())
        part = tmp_path / "device dir" / f".{package.manifest.hashes['tiny.so'][:16]}.part"
        for damaged in (b"x" * 1000, b"x" * (SIZE + 1000)):
            (tmp_path / "device dir" / "tiny.so").unlink()
            part.write_bytes(damaged)
            deploy(package, remote, Settings())
            check_there(tmp_path / "device dir", package)

    def test_a_host_key_is_never_accepted_silently(self, package, to, sshd, tmp_path):
        (sshd.folder / "known").write_text("")
        with pytest.raises(DeviceFailed, match=r"is not known here; nothing was sent.*fingerprint: ssh -p"):
            deploy(package, to(known=False), Settings())
        assert (sshd.folder / "known").read_text() == ""
        sshd.know(sshd.port, key="other-host")
        with pytest.raises(DeviceFailed, match=r"another than the one known for it; nothing was sent.*ssh-keygen -R"):
            deploy(package, to(known=False), Settings())
        loose = find_remote(f"ssh://127.0.0.1:{sshd.port}/tmp", "tiny", [*sshd.options(), "StrictHostKeyChecking=no"])
        with pytest.raises(DeviceFailed, match="nothing was sent"):
            deploy(package, loose, Settings())
        assert not (tmp_path / "device dir").exists()

    def test_a_key_that_is_not_authorised(self, package, to):
        with pytest.raises(DeviceFailed, match=r"does not let you in.*ssh-copy-id -p"):
            deploy(package, to(key="stranger"), Settings())

    def test_nobody_there(self, package, to):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(DeviceFailed, match=r"no connection to .*refused"):
            deploy(package, to(port=port), Settings())

    def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(self, package, to, mounted):
        folder = mounted("size=4m")
        with pytest.raises(DeviceFailed, match=r"is full: 9\.\d MB are needed, 4\.2 MB are there"):
            deploy(package, to(folder / "tiny"), Settings())
        assert not [path for path in folder.rglob("*") if path.is_file()]

    def test_a_disk_that_fills_up_meanwhile(self, package, to, mounted, monkeypatch):
        """As on a device whose ``df`` is wrong, or beside another program that writes."""
        folder = mounted("size=4m")
        monkeypatch.setattr(deployment.Upload, "_check_room", lambda *_: None)
        with pytest.raises(DeviceFailed, match=r"the disk of .* is full"):
            deploy(package, to(folder / "tiny"), Settings())
        assert not [path for path in folder.rglob("*") if path.suffix == ".part"]
        assert not Package(package.path).manifest.timings

    def test_a_folder_from_which_nothing_may_be_executed(self, make_package, to, mounted):
        folder, package = mounted("size=20m,noexec"), make_package(size=1000)
        with pytest.raises(DeviceFailed, match=r"may not execute .*tiny_bench.*noexec"):
            deploy(package, to(folder / "tiny"), Settings())
        assert not Package(package.path).manifest.timings

    def test_a_folder_that_cannot_be_written(self, make_package, to):
        with pytest.raises(DeviceFailed, match="cannot write to /proc/nowhere"):
            deploy(make_package(size=1000), to(Path("/proc/nowhere")), Settings())

    def test_another_machine_s_package_is_refused_before_anything_is_copied(self, make_package, to, tmp_path):
        other = make_package(machine=next(machine for machine in ELF_CODES if machine != host_machine()), size=1000)
        with pytest.raises(PackageInvalid, match=f"ssh://.* is {host_machine()}"):
            deploy(other, to(), Settings())
        assert not (tmp_path / "device dir").exists()

    def test_a_wrong_output_is_no_latency(self, make_package, to):
        package = make_package(size=1000, ok=False)
        with pytest.raises(WrongResult, match=r"checksum [\d.e+-]+, expected [\d.e+-]+"):
            deploy(package, to(), Settings())
        assert not Package(package.path).manifest.timings

    def test_settings_that_the_benchmark_refuses(self, make_package, to):
        with pytest.raises(BadInput, match=r"refuses these settings: .*--affinity is a list"):
            deploy(make_package(size=1000), to(), Settings(affinity="big"))

    def test_as_a_command(self, make_package, sshd, tmp_path, capsys):
        sshd.know(sshd.port)
        package = make_package("tiny.tar.zst", size=1000)
        options = [word for option in sshd.options() for word in ("--ssh-option", option)]
        where = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd.port}{tmp_path}/there"
        command = ["deploy", str(package.path), "--to", where, *options, "--repeat", "7", "--affinity", "0"]
        assert main([*command, "--json", "-"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["schema"], facts["latency_us"]["samples"], facts["affinity"]) == (1, 7, "0")
        kernel = facts["device"]["kernel"]
        assert os.uname().release in kernel and facts["output"]["ok"] and MANIFEST in facts["copied"]
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "0 files copied" in shown and "median" in shown and kernel in shown
        assert main([*command[:4], "--to", where, "--ssh-option", "UserKnownHostsFile=/dev/null"]) == 4
        assert "is not known here" in capsys.readouterr().err


# adb


@pytest.fixture
def phone(monkeypatch, tmp_path):
    monkeypatch.setattr(adb, "HOME", str(tmp_path / "phone"))
    monkeypatch.setattr(adb, "CHUNK_BYTES", 1 << 20)

    def attached(server: AdbServer, serial: str | None = SERIAL):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.port))
        return find_remote(f"adb:{serial}" if serial else "adb", "tiny")

    return attached


@needs_adb
class TestAdb:
    @pytest.mark.parametrize("shell_v2", [True, False], ids=["newer phone", "older phone"])
    def test_only_what_changed_is_copied(self, package, phone, tmp_path, shell_v2):
        with AdbServer(shell_v2) as server:
            done = deploy(package, phone(server, None), Settings())
            assert set(done.copied) == {*package.manifest.hashes, MANIFEST}
            check_there(tmp_path / "phone" / "tiny", package)
            check_timing(package, f"adb:{SERIAL}")
            pushed = server.pushed_bytes
            again = deploy(package, phone(server), Settings())
            assert not again.copied and server.pushed_bytes == pushed
            assert len(Package(package.path).manifest.timings) == 1

    def test_a_cut_connection_goes_on_where_it_ended(self, package, phone, tmp_path):
        with AdbServer(cuts=(SIZE // 2, 3 * SIZE // 4)) as server:
            done = deploy(package, phone(server), Settings())
            assert not server.cuts, "it was never cut"
            # Two pieces, at most, went twice.
            assert (
                server.pushed_bytes < SIZE + 2 * adb.CHUNK_BYTES + 500_000 and done.sent_bytes < 1.01 * SIZE + 500_000
            )
        check_there(tmp_path / "phone" / "tiny", package)

    def test_another_command_goes_on_where_a_cut_one_ended(self, package, phone, tmp_path):
        with AdbServer(cuts=(SIZE // 2,)) as server:

            def stay_away(line: str) -> None:
                server.gone |= "connection lost" in line

            with pytest.raises(DeviceFailed, match="not attached"):
                deploy(package, phone(server), Settings(), stay_away)
            server.gone = False
            assert not (tmp_path / "phone" / "tiny" / "tiny.so").exists()
            assert deploy(package, phone(server), Settings()).sent_bytes < 0.7 * SIZE
        check_there(tmp_path / "phone" / "tiny", package)

    @pytest.mark.parametrize("shell_v2", [True, False], ids=["newer phone", "older phone"])
    def test_failures_are_told(self, make_package, phone, mounted, monkeypatch, shell_v2):
        monkeypatch.setattr(adb, "HOME", str(mounted("size=1m,noexec")))
        monkeypatch.setattr(deployment.Upload, "_check_room", lambda *_: None)
        with AdbServer(shell_v2) as server:
            with pytest.raises(DeviceFailed, match=r"the disk of adb:.* is full"):
                deploy(make_package(), phone(server), Settings())
            monkeypatch.setattr(adb, "HOME", "/proc/nowhere")
            with pytest.raises(DeviceFailed, match="cannot write to /proc/nowhere"):
                deploy(make_package(size=1000), phone(server), Settings())

    def test_a_wrong_output_is_no_latency(self, make_package, phone):
        with AdbServer(shell_v2=False) as server, pytest.raises(WrongResult):
            deploy(make_package(size=1000, ok=False), phone(server), Settings())

    @pytest.mark.parametrize("state", ["unauthorized", "offline"])
    def test_a_phone_that_does_not_answer(self, make_package, phone, state):
        with AdbServer(state=state) as server, pytest.raises(DeviceFailed, match=f"device {state}.*unlock it"):
            deploy(make_package(size=1000), phone(server), Settings())

    def test_another_phone(self, make_package, phone):
        with AdbServer() as server, pytest.raises(DeviceFailed, match=r"no way to elsewhere: .*not found"):
            deploy(make_package(size=1000), phone(server, "elsewhere"), Settings())


# Words


BAD = ["ssh://", "ssh://host", "ssh://host/", "ssh://host/~/", "ssh://-oProxyCommand=x/dir", "ssh://a b/dir", "ftp://h/d",
       "ssh://host:port/dir", "ssh://-x@host/dir", "ssh:host/dir", "ssh://a@b@host/dir",
       "ssh://[::1/d", "adb:", "adb:-x", "adb: y", "board", ""]  # fmt: skip


@pytest.mark.parametrize("spec", BAD)
def test_words_that_are_no_place(spec):
    with pytest.raises(BadInput):
        find_remote(spec, "tiny")


@needs_sshd
@pytest.mark.parametrize(
    ("spec", "name", "folder"),
    [
        ("ssh://pi@Board.local/home/pi/m", "ssh://pi@Board.local", "/home/pi/m"),
        ("ssh://Alias:2222/~/my%20models", "ssh://Alias:2222", "./my models"),
        ("ssh://root@[fe80::1%eth0]:22/d", "ssh://root@[fe80::1%eth0]:22", "/d"),
    ],
)
def test_addresses(spec, name, folder):
    remote = find_remote(spec, "tiny")
    assert (remote.name, remote.folder) == (name, folder)


@needs_adb
def test_an_emulator_s_times_are_not_noted(make_package, phone, benches, tmp_path, monkeypatch):
    monkeypatch.setitem(benches, True, tmp_path / "emulated")
    report = {"schema": 1, "model": "tiny", "device": {}, "threads": 1, "emulated": True}
    reference = only(benches["answers"][0].expected)
    expected = checksum(reference)
    report["output"] = {"checksum": expected, "expected": expected, "ok": True}
    (tmp_path / "output").write_bytes(reference.tobytes())
    script = f"#!/bin/sh\ncp {tmp_path}/output {deployment.VALUES}\necho '{json.dumps(report)}'\n"
    (tmp_path / "emulated").write_text(script)
    (tmp_path / "emulated").chmod(0o755)
    package = make_package(size=1000)
    with AdbServer() as server, pytest.raises(DeviceFailed, match=r"in an emulator.*its times mean nothing"):
        deploy(package, phone(server), Settings())
    assert not Package(package.path).manifest.timings


@pytest.mark.parametrize("report", ["", "hello", "{}", '{"schema":1,"latency_us":{"median":0,"samples":1}}'])
@needs_adb
def test_a_benchmark_that_reports_nothing(make_package, phone, benches, tmp_path, monkeypatch, report):
    monkeypatch.setitem(benches, True, tmp_path / "silent")
    whole = {
        "schema": 1,
        "model": "tiny",
        "device": {},
        "threads": 1,
        "output": {"checksum": 1, "expected": 1, "ok": True},
    }
    report = json.dumps(whole | json.loads(report)) if "latency" in report else report
    (tmp_path / "silent").write_text(f"#!/bin/sh\necho '{report}'\n")
    (tmp_path / "silent").chmod(0o755)
    package = make_package(size=1000)
    with AdbServer() as server, pytest.raises(DeviceFailed, match=r"answered on adb:.* with no report"):
        deploy(package, phone(server), Settings())
    assert not Package(package.path).manifest.timings


def test_a_package_without_a_benchmark(tmp_path, make_package):
    package = make_package(size=100)
    shutil.copytree(package.folder, tmp_path / "bare")
    facts = json.loads((tmp_path / "bare" / MANIFEST).read_bytes())
    del facts["hashes"]["tiny_bench"]
    (tmp_path / "bare" / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(BadInput, match="holds no benchmark tiny_bench"):
        deploy(Package(tmp_path / "bare"), None, Settings())


@pytest.mark.parametrize(("spec", "package"), [("adb", "adb"), ("ssh://host/dir", "openssh-client")])
def test_a_missing_program_is_named(spec, package, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissing, match=f"apt-get install .* {package}"):
        find_remote(spec, "tiny")


# A device server on a phone


@needs_adb
class TestPhone:
    @pytest.fixture
    def server_port(self, tmp_path, monkeypatch):
        """Of a server with a secret, which is proven through the forwarded port."""
        with find_device("local", find_target("local")) as device:
            path = tmp_path / "secret"
            path.write_bytes(device.endpoint().secret)
            monkeypatch.setenv(VARIABLE, str(path))
            yield device.endpoint().port

    @pytest.fixture
    def command(self, tmp_path):
        """A package is timed on a device."""
        store = RecordStore(tmp_path / "records", find_target("local").tvm())
        tiny = import_model(Model("tiny", (1, 2, 4, 4), module=Tiny().eval()))
        package = compile_package(tiny, find_target("local"), store, tmp_path / "package")
        return lambda device: main(["bench", str(package.path), "--repeat", "1", "--warmup", "0", "--device", device])

    def test_a_server_is_reached_through_adb(self, phone, server_port, command, capsys):
        with AdbServer() as server:
            phone(server)
            for device in (f"adb/{server_port}", f"adb:{SERIAL}/{server_port}"):
                assert command(device) == 0
                assert f"{device} (measured)" in capsys.readouterr().out
            assert not server.forwards, "a port was left forwarded"

    def test_a_cable_that_came_loose_is_forwarded_anew(self, phone, server_port):
        with AdbServer() as server:
            phone(server)
            with find_device(f"adb/{server_port}", find_target("local")) as device:
                server.remove_forward(device.endpoint().port)
                assert not answers(device)
                device.restart()
                assert answers(device) and len(server.forwards) == 1

    def test_a_server_with_a_secret(self, phone, command, tmp_path, monkeypatch, capsys):
        secret = tmp_path / "secret"
        secret.write_text("correct horse battery staple\n")
        secret.chmod(0o600)
        with AdbServer() as server, servers(host_machine(), tmp_path) as start:
            phone(server)
            guarded = start("--secret-file", secret)
            assert command(f"adb/{guarded.port}") == 4 and VARIABLE in capsys.readouterr().err
            monkeypatch.setenv(VARIABLE, str(secret))
            assert command(f"adb/{guarded.port}") == 0
            assert not server.forwards

    def test_no_server_there(self, phone, command, capsys):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with AdbServer() as server:
            phone(server)
            assert command(f"adb/{port}") == 4
            assert not server.forwards
        error = capsys.readouterr().err
        assert f"no device server answers on port {port} of adb:{SERIAL}" in error and "deploy --to adb" in error

    @pytest.mark.parametrize("state", ["unauthorized", "offline"])
    def test_a_phone_that_does_not_answer(self, phone, command, capsys, state):
        with AdbServer(state=state) as server:
            phone(server)
            assert command("adb") == 4
        assert f"device {state}" in capsys.readouterr().err

    @pytest.mark.parametrize("spec", ["adb:", "adb/", "adb/0", "adb:x/y", "adb:-x", "adb: y", "adb:/1"])
    def test_words_that_are_no_phone(self, spec):
        with pytest.raises(BadInput):
            find_device(spec, find_target("local"))
