"""What is downloaded at first use is what was locked, and nothing else is taken."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import threading
import zipfile
from pathlib import Path

import pytest

from tvm_shufflenet import locks
from tvm_shufflenet.errors import ToolMissing
from tvm_shufflenet.peers import sysroot
from tvm_shufflenet.peers.catalogue import PEERS
from tvm_shufflenet.peers.environments import PINS
from tvm_shufflenet.server import build
from tvm_shufflenet.support import toolchain


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def nothing_kept(cache: Path) -> bool:
    files = (path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    return not [path for path in files if path.name != toolchain.IN_USE]


@pytest.mark.parametrize("name", [*PINS, "guest", "runtime"])
def test_every_entry_of_a_lock_has_a_version_and_hashes(name):
    text = locks.lock(name).read_text()
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+==[\w.]+( ; [^\n]*)? \\\n", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry) and "never" not in entry


def test_the_locks_have_the_pins():
    guests = {pin for peer in PEERS.values() for pin in peer.guest_pins}
    runtime = (f"apache-tvm=={toolchain.TVM_VERSION}", f"apache-tvm-ffi=={toolchain.FFI_VERSION}")
    for name, pins in (*PINS.items(), ("guest", guests), ("runtime", runtime)):
        assert locks.locked(name, tuple(pins)).count("--hash") >= len(pins)
    with pytest.raises(ToolMissing, match=r"the lock onnx has no onnx==0\.1; .*lock_downloads"):
        locks.locked("onnx", ("onnx==0.1",))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package that pip finds in a folder, and a lock that names it by another file's hash."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "ncnn-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ncnn.py", "")
        archive.writestr("ncnn-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ncnn\nVersion: 1.0\n")
        archive.writestr("ncnn-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("ncnn-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(locks, "FOLDER", tmp_path)

    def write(digest: str) -> None:
        for name in ("guest", "runtime"):
            (tmp_path / f"{name}.txt").write_text(f"ncnn==1.0 \\\n    --hash=sha256:{digest}\n")

    write("0" * 64)
    return lambda: write(hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_that_is_not_the_locked_one_is_refused(wheel, cache):
    with pytest.raises(ToolMissing, match="not the one that was locked"):
        sysroot.arm64_packages("ncnn", ("ncnn==1.0",), lambda _: None, lambda _: None)
    assert nothing_kept(cache)
    wheel()
    found = sysroot.arm64_packages("ncnn", ("ncnn==1.0",), lambda _: None, lambda _: None)
    assert (found / "ncnn.py").exists() and not (found / "requirements.txt").exists()


def test_a_runtime_that_is_not_the_locked_one_is_refused(wheel, cache, monkeypatch):
    monkeypatch.setattr(build, "_requirements", lambda: ["ncnn==1.0"])
    other = next(machine for machine in ("aarch64", "x86_64") if machine != build.HOST_ARCH)
    with pytest.raises(ToolMissing, match="not the one that was locked"):
        build.runtime_libs(other)
    assert nothing_kept(cache)


@pytest.fixture
def mirror(tmp_path):
    """Mirrors of Debian on this machine, by their folders."""
    servers = []

    def serve(name: str) -> str:
        (tmp_path / name).mkdir()
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / name)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_debian_package_that_is_not_the_locked_one_is_refused(tmp_path, mirror, monkeypatch, cache):
    monkeypatch.setattr(sysroot, "MIRRORS", (mirror("first"), mirror("archive")))
    data = b"another package"
    monkeypatch.setattr(sysroot, "PACKAGES", {"libc6.deb": "0" * 64})
    (tmp_path / "first" / "libc6.deb").write_bytes(data)
    with pytest.raises(ToolMissing, match=r"libc6\.deb is not the file that was locked"):
        sysroot.arm64_python(lambda _: None)
    assert nothing_kept(cache)
    (tmp_path / "first" / "libc6.deb").rename(tmp_path / "archive" / "libc6.deb")
    assert sysroot._verified("libc6.deb", hashlib.sha256(data).hexdigest()) == data, "from the archive"
    with pytest.raises(ToolMissing, match="could not be fetched"):
        sysroot._verified("absent.deb", "0" * 64)


def test_debian_s_packages_are_locked():
    assert all(re.fullmatch(r"pool/main/.*_arm64\.deb", path) for path in sysroot.PACKAGES)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in sysroot.PACKAGES.values())
    assert any(f"python{sysroot.PYTHON}-minimal" in path for path in sysroot.PACKAGES)
