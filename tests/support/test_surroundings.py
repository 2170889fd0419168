"""What the machine refuses: folders, disks, encodings. One sentence with the variable to set, and nothing left."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tvm_shufflenet.cli.last_words import last_words
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.errors import BadInput, LinkFailed, lines_of
from tvm_shufflenet.support import run_folder, surroundings, toolchain
from tvm_shufflenet.support.cached_build import cached_build
from tvm_shufflenet.support.surroundings import Unusable, explain
from tvm_shufflenet.workflow import doctor
from tvm_shufflenet.workflow.cleaning import remnants, remove

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
NET = "from torch import nn\n\n\ndef netz():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
_libc = ctypes.CDLL(None)


def _without_rights() -> None:
    """In the new process: root, too, heeds permissions after the next exec."""
    for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        _libc.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


def command(*words: object, **environment: str | None) -> subprocess.CompletedProcess:
    """Run the program as users do; a variable of None is unset."""
    given = os.environ | {name: value for name, value in environment.items() if value is not None}
    for name in (name for name, value in environment.items() if value is None):
        given.pop(name, None)
    program = [sys.executable, "-m", "tvm_shufflenet.cli", *map(str, words)]
    return subprocess.run(program, env=given, capture_output=True, timeout=300, preexec_fn=_without_rights)


def said(done: subprocess.CompletedProcess) -> str:
    """The message that it ended with, behind signs of life."""
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("... ")]
    assert len(lines) == 1 and lines[0].startswith("tvm-shufflenet: "), done.stderr
    return lines[0]


@pytest.fixture
def locked(tmp_path):
    """A folder that nobody may look into, and one in it."""
    folder = tmp_path / "locked"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0)
    yield folder / "inner"
    folder.chmod(stat.S_IRWXU)


@pytest.fixture
def disk(tmp_path):
    """A file system of its own with so many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode != 0:
            pytest.skip("this user may not mount")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "mö.py").write_text(NET)
    return f"{tmp_path}/mö.py:netz"


class TestFolders:
    def test_a_home_that_cannot_be_written(self, locked):
        done = command("models", "shufflenet_v2_x0_5", HOME=str(locked), TVM_SHUFFLENET_CACHE=None, XDG_CACHE_HOME=None)
        assert done.returncode == 2
        assert "Permission denied; likely cause: HOME names no folder" in said(done)
        assert said(done).endswith("next: set TVM_SHUFFLENET_CACHE to a folder that you can write")

    def test_a_home_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        done = command(
            "models", "shufflenet_v2_x0_5", HOME=f"{tmp_path}/file", TVM_SHUFFLENET_CACHE=None, XDG_CACHE_HOME=None
        )
        assert done.returncode == 2 and "set TVM_SHUFFLENET_CACHE to a folder" in said(done)

    def test_a_variable_that_names_no_folder(self, locked):
        done = command("models", "shufflenet_v2_x0_5", TVM_SHUFFLENET_CACHE=f"{locked}/cache")
        assert done.returncode == 2 and "HOME" not in said(done) and "set TVM_SHUFFLENET_CACHE" in said(done)

    def test_path_may_name_folders_that_cannot_be_read(self, locked):
        path = os.pathsep.join([str(locked), str(locked.parent), "/nowhere", os.environ["PATH"]])
        done = command("doctor", "--target", "local", PATH=path, TVM_SHUFFLENET_SYSROOT=str(locked))
        assert done.returncode == 0 and b"works now: " in done.stdout and b"Traceback" not in done.stderr

    def test_the_doctor_names_the_variable(self, locked):
        done = command("doctor", "--target", "local", XDG_CACHE_HOME=str(locked), TVM_SHUFFLENET_CACHE=None)
        assert done.returncode == 2 and "set TVM_SHUFFLENET_CACHE" in said(done)
        assert b"failed   cache: the cache, " in done.stdout

    def test_a_file_that_may_not_be_read(self, locked):
        done = command("inspect", locked / "package")
        assert done.returncode == 2 and str(locked) in said(done)

    def test_an_output_that_cannot_be_printed(self):
        with open("/dev/full", "w") as full:
            program = [sys.executable, "-m", "tvm_shufflenet.cli", "targets"]
            done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, timeout=100)
        assert done.returncode == 2 and "cannot write what it prints: No space left" in said(done)


class TestFullDisk:
    @pytest.mark.parametrize("variable", ["TMPDIR", "TVM_SHUFFLENET_CACHE", "output"])
    def test_compile_says_which_and_leaves_nothing(self, disk, model, tmp_path, variable):
        full = disk(16384)
        output = full / "package" if variable == "output" else tmp_path / "package"
        environment = {} if variable == "output" else {variable: str(full)}
        done = command(
            "compile", "--model", model, "--input-shape", "1,3,8,8", "--target", "local", "-o", output, **environment
        )
        message = next(line for line in done.stderr.decode().splitlines() if line.startswith("tvm-shufflenet: "))
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        if variable == "output":
            assert str(full) in message and "No space left" in message
        else:
            assert f"{full}, is full; next: free space there, or set {variable} to another folder" in message
        assert not output.exists() and not [path for path in full.iterdir() if path.suffix != ".lock" and path.is_dir()]

    def test_what_a_compiler_says_in_words_of_its_own(self, disk, monkeypatch):
        full = disk(16384)
        (full / "filler").write_bytes(bytes(8192))
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(full))
        failed = LinkFailed("linking failed: error: unable to write: NoSpaceLeft")
        assert "set TVM_SHUFFLENET_CACHE" in str(explain(failed))
        assert explain(BadInput("another --input-shape")) is None


class TestExplanations:
    def test_a_file_of_the_user_s_is_named_itself(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path / "cache"))
        denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x.npy"))
        assert str(explain(denied)).startswith(f"cannot use {tmp_path}/x.npy: Permission denied; next: ")
        in_cache = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "cache" / "x"))
        assert "set TVM_SHUFFLENET_CACHE" in str(explain(in_cache))

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
    def test_no_space_in_a_cause_counts_for_our_own_errors_too(self, code, tmp_path, monkeypatch):
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
        ours = LinkFailed("something else")
        ours.__cause__ = OSError(code, os.strerror(code), str(tmp_path / "x"))
        assert isinstance(explain(ours), Unusable) and "set TVM_SHUFFLENET_CACHE" in str(explain(ours))

    def test_other_errors_are_told_without_a_traceback(self):
        try:
            surroundings.require_space(None, 0)  # a fault of the program
        except TypeError as exc:
            text, code = last_words(exc)
        assert code == 1 and "unforeseen TypeError at surroundings.py:" in text and text.count("\n") == 0
        assert "run it again with --debug" in text

    def test_a_text_in_no_known_encoding(self):
        with pytest.raises(UnicodeEncodeError) as caught:
            "m\udcff.so".encode()
        assert "m\\udcff.so" in str(explain(caught.value)) and "LC_ALL" in str(explain(caught.value))

    def test_messages_have_neither_colours_nor_other_controls(self):
        error = ValueError("\x1b[31mred\x1b[0m and \x1b[1A\x1b[2Kcleared\x07")
        assert lines_of(error) == ["red and cleared?"]
        assert last_words(error)[0].isprintable() and "a bell ?" in last_words(BadInput("a bell \x07"))[0]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": None}


class TestEncodings:
    def test_a_name_beyond_ascii_in_a_locale_of_ascii(self, model, tmp_path):
        package = tmp_path / "päckchen"
        done = command(
            "compile", "--model", model, "--input-shape", "1,3,8,8", "--target", "local", "-o", package, **ASCII
        )
        assert done.returncode == 0, done.stderr
        assert (package / "mö_netz.so").exists() and b"m\\xf6_netz" in done.stdout
        for words in (["inspect", package], ["run", package], ["bench", package, "--repeat", "1"]):
            done = command(*words, **ASCII)
            assert done.returncode == 0, (words, done.stderr)
        done = command("inspect", package, PYTHONIOENCODING="ascii")
        assert done.returncode == 0 and b"m\\xf6_netz" in done.stdout

    def test_a_name_that_is_not_utf8(self, tmp_path):
        name = os.fsdecode(b"m\xff.onnx")
        done = command("compile", "--model", name, "--target", "local", "-o", tmp_path / "p")
        assert done.returncode == 2 and "there is no file" in said(done)


HOLDING = """
import sys, time
from tvm_shufflenet.support.run_folder import run_folder
import tempfile
with run_folder():
    print(tempfile.mkdtemp(), flush=True)
    time.sleep(100)
"""


class TestClean:
    def test_what_a_killed_run_left_is_found_again(self, tmp_path, monkeypatch):
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        running = subprocess.Popen([sys.executable, "-c", HOLDING], env=environment, stdout=subprocess.PIPE, text=True)
        inner = Path(running.stdout.readline().strip())
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert inner.parent.parent == tmp_path and run_folder.abandoned() == []
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert run_folder.abandoned() == [inner.parent]
        with run_folder.run_folder():
            assert not inner.exists() and Path(os.environ["TMPDIR"]).parent == tmp_path
        assert list(tmp_path.iterdir()) == []

    def test_folders_of_programs_without_a_lock_are_left_alone_until_they_are_old(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path / "cache"))
        for name in ("tvm-shufflenet-old", "tvm-shufflenet-new", "tvm-shufflenet-busy", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_bytes(bytes(5000))
        for name in ("tvm-shufflenet-old", "tvm-shufflenet-busy", "other"):
            os.utime(tmp_path / name, (time.time() - 7200,) * 2)
        with open(tmp_path / "tvm-shufflenet-busy" / "file"):
            (found,) = remnants()
        assert found.paths == (tmp_path / "tvm-shufflenet-old",) and found.bytes >= 5000
        assert remove(found).paths == () and not found.paths[0].exists()

    def test_the_command(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        cache = tmp_path / "cache"
        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(cache))
        (cache / "zig" / "o").mkdir(parents=True)
        (cache / "zig" / "o" / "libc.a").write_bytes(bytes(1_500_000))
        (cache / "references.sqlite").write_bytes(bytes(500_000))
        (cache / "elsewhere").symlink_to(tmp_path)
        assert main(["clean", "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "C libraries that zig built" in out and "2.0 MB can be removed" in out and (cache / "zig").exists()
        code = "from tvm_shufflenet.support import toolchain; toolchain.cache_dir(); print(flush=True); input()"
        using = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        using.stdout.readline()
        assert main(["clean"]) == 0
        assert "2.0 MB kept: another run uses the cache" in capsys.readouterr().out and (cache / "zig").exists()
        using.communicate(b"\n")
        assert main(["clean"]) == 0
        assert "2.0 MB removed" in capsys.readouterr().out and tmp_path.exists()
        assert [path.name for path in cache.iterdir()] in ([], [toolchain.IN_USE])


BUSY = """
import ctypes, os, sys, time
from tvm_shufflenet.support import activity
from tvm_shufflenet.report.heartbeat import Heartbeat
with Heartbeat("working"):
    print("begun", flush=True)
    with activity.doing_once("building"):
        ctypes.PyDLL(None).sleep(4)  # holds Python's lock
    os.write(2, b"[12:34:56] /project/a.h:7: Warning: Fast mode segfaults\\nkept\\n[12:34:56] a.h:7: Warning: x")
    print("ended", file=sys.stderr)
    if len(sys.argv) > 1:
        time.sleep(100)
"""


class TestSignsOfLife:
    def test_nothing_is_silent_for_three_seconds_even_where_python_is_locked(self):
        begun = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.readline()
        lines, times = [], [time.monotonic()]
        for line in process.stderr:
            lines.append(line.decode().rstrip("\n"))
            times.append(time.monotonic())
        assert process.wait() == 0 and time.monotonic() - begun < 60
        assert lines[0] == "building (once)" and lines[1] == "... building, 3 s"
        assert set(lines[2:]) - {"... building, 5 s"} == {"kept", "ended"}
        assert max(b - a for a, b in itertools.pairwise(times)) < 4  # three, and a second for a busy machine

    def test_a_terminal_has_one_line_that_ticks(self):
        control, terminal = os.openpty()
        process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        text = b""
        while True:
            try:
                text += os.read(control, 4096)
            except OSError:  # the terminal's last user has closed it
                break
        assert process.wait() == 0
        os.close(control)
        assert b"\x1b[2m... building, 2 s\x1b[0m\r\n\x1b[1A\r\x1b[2K\x1b[2m... building, 3 s" in text
        assert b"Fast mode" not in text and b"kept" in text

    def test_the_other_process_ends_with_a_killed_one(self):
        process = subprocess.Popen([sys.executable, "-c", BUSY, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.stderr.readline() not in (b"ended\n", b""):
            pass
        process.kill()
        process.wait()
        begun = time.monotonic()
        process.stderr.read()  # until nobody has its other end any more
        assert time.monotonic() - begun < 5

    def test_a_build_says_so(self, tmp_path, monkeypatch):
        told = []

        class Watcher:
            announce = told.append

            def doing(self, text):
                told.append(text)

        monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
        monkeypatch.setattr("tvm_shufflenet.support.activity.watcher", Watcher())
        for _ in range(2):
            cached_build("thing.so", ["key"], lambda path: path.write_text("built"))
        assert told.count("making thing for the cache (once)") == 1


class TestDoctor:
    def test_a_target_of_this_machine_needs_no_emulator(self, monkeypatch, capsys):
        for name in ("QEMU", "LLVM_MCA", "LLVM_MC", "SYSROOT"):
            monkeypatch.setenv(f"TVM_SHUFFLENET_{name}", "/nowhere")
        assert main(["doctor", "--target", "local"]) == 0
        out = capsys.readouterr().out
        assert "works now: compile for every target; tune, run and measure on this machine" in out
        assert "does not: tune, run and measure on emulated Cortex-A cores, for want of qemu-aarch64" in out
        assert main(["doctor", "--target", "cortex-a53"]) == 3
        commands = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to install what is")]
        assert len(commands) == 1 and "qemu-user" in commands[0] and "libc6-arm64-cross" in commands[0]

    @pytest.mark.parametrize(
        ("known", "expected"),
        [("19 21", "llvm-21"), ("14 16", "apt.llvm.org"), ("", "llvm-22")],
        ids=["newest", "too old", "no lists"],
    )
    def test_packages_are_those_that_there_are(self, tmp_path, monkeypatch, known, expected):
        candidates = "".join(
            f"llvm-{release}:\n  Installed: (none)\n  Candidate: 1:{release}.1\n" for release in known.split()
        )
        candidates += "llvm-25:\n  Installed: (none)\n  Candidate: (none)\n"
        candidates += "gcc:\n  Installed: 12\n  Candidate: 12\n" if known else ""
        (tmp_path / "apt-cache").write_text(f"#!/bin/sh\ncat <<'END'\n{candidates}END\n")
        (tmp_path / "apt-get").write_text("#!/bin/sh\n")
        for name in ("apt-cache", "apt-get"):
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("TVM_SHUFFLENET_LLVM_MCA", "/nowhere")
        toolchain._newest_llvm_package.cache_clear()
        try:
            assert expected in toolchain.find_llvm_mca().install
        finally:
            toolchain._newest_llvm_package.cache_clear()

    def test_everything_missing_is_one_command(self):
        missing = [
            doctor.Requirement(name, "", None, BadInput("missing"), True, packages)
            for name, packages in {
                "qemu-aarch64": ("qemu-user",),
                "llvm-mc": ("llvm-22",),
                "llvm-mca": ("llvm-22",),
            }.items()
        ]
        (install,) = doctor.install_commands(missing)
        assert install.endswith("qemu-user llvm-22") or shutil.which("apt-get") is None


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip().endswith(f"(TVM {toolchain.TVM_VERSION})")
