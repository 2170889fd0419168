"""Device servers in processes of their own, and what tests ask of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tvm
from tvm import rpc

from helpers.cross import zig_cc
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.errors import DeviceFailed
from tvm_shufflenet.server import build
from tvm_shufflenet.support import toolchain

OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}
TRIPLES = {arch: f"{arch}-linux-gnu" for arch in OTHER}


def target_for(arch: str):
    cpu = {"x86_64": "x86-64", "aarch64": "generic"}[arch]
    return tvm.target.Target({"kind": "llvm", "mtriple": TRIPLES[arch], "mcpu": cpu})


def linker(arch: str):
    """What ``export_library`` calls to link: TVM's objects with zig."""

    def link(output, objects, options=None, **_):
        command = zig_cc(f"{TRIPLES[arch]}.2.28", "-shared", "-o", output, *objects, *(options or []))
        subprocess.run(command, check=True)

    link.output_format = "so"
    return link


class RunningServer:
    """A device server for ``arch`` in a process of its own, and what it wrote."""

    def __init__(self, arch: str, log: Path, *options: object):
        self.arch, self.log = arch, log
        command = [str(build.server_binary(arch)), "--allow-root"]
        if arch != build.HOST_ARCH:
            sysroot = toolchain.require(toolchain.find_sysroot())
            command = [toolchain.require(toolchain.find_qemu()), "-L", sysroot, *command]
        with open(log, "w") as stderr:
            command += map(str, options)
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        line = self.process.stdout.readline()
        matched = re.fullmatch(r"listening 127\.0\.0\.1:(\d+)\n", line)
        assert matched, f"{line!r}; {log.read_text()}"
        self.port = int(matched[1])

    def connect(self, key: str = "", session_timeout: float = 0) -> rpc.RPCSession:
        return rpc.connect("127.0.0.1", self.port, key, session_timeout=session_timeout)

    def sessions(self) -> list[int]:
        """Process ids of its children, dead ones that nobody waited for included."""
        listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listing.stdout.split()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        assert self.process.stdout.read() == "", "the server wrote more than one line to stdout"
        return status


@contextmanager
def servers(arch: str, folder: Path, *always: object) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers for ``arch``, with the options ``always`` and its own, and stops those that are left."""
    started = []

    def start(*options: object) -> RunningServer:
        log = folder / f"server-{len(started)}.log"
        started.append(RunningServer(arch, log, *always, *options))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
            server.process.stdout.close()


def eventually(condition, what: str, timeout_s: float = 10):
    """The first true value of ``condition``; fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)
    return value


def answers(device: Device) -> bool:
    try:
        device.endpoint().connect(10)
    except DeviceFailed:
        return False
    return True


def session_info(session: rpc.RPCSession) -> dict:
    return json.loads(session.get_function("tvm_shufflenet.server_info")())


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
