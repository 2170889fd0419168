"""Starts and ends the emulator process, and gives the address of its RPC server."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..clock.counts import Counts, read_counts
from ..clock.cycles import Cost
from ..clock.mca import Mca, fork_server
from ..errors import DeviceFailed, ToolMissing
from ..hardware.boards import USUAL, find_board
from ..hardware.cores import Core
from ..server.build import server_binary
from ..support import toolchain
from ..support.files import read_json
from ..text import last_lines
from .build import guest_heap_library, plugin_library, rehearsal_library
from .process import LAST_COST, LAST_COUNTS

PACKAGE_PARENT = str(Path(__file__).parents[2])  # the new process finds this package wherever it is started
START_LIMIT_S = 60.0  # it takes half a second; a machine under load may need longer
STOP_LIMIT_S = 10.0


class EmulatedCore:
    """``with EmulatedCore("cortex-a72") as device: tvm.rpc.connect(device.host, device.port)``.

    Several may run at once, each with a port and a folder of its own. The server asks for the ``secret``, and without
    one serves every local user. ``server_options`` go to it too. With ``tells`` it leaves in the folder of each session
    what its latest time is made of, for a client that is not this process. The emulator ends with this process, however
    this process ends. It keeps what it counts in the folder ``traces``, if there is one, with the trace of each.
    """

    def __init__(
        self,
        core: str = USUAL,
        cores: int = 1,
        traces: Path | None = None,
        server_options: Sequence[str] = (),
        secret: bytes = b"",
        tells: bool = False,
    ):
        self.board, self.cores, self.traces = find_board(core), cores, traces
        self.server_options, self.secret, self.tells = server_options, secret, tells
        self.host: str | None = None
        self.port: int | None = None
        self._folder: str | None = None
        self._process: subprocess.Popen | None = None
        self._stderr = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        where = f"{self.host}:{self.port}" if self.alive() else "not running"
        return f"EmulatedCore({self.board.name}, {where})"

    def __enter__(self) -> EmulatedCore:
        return self.start()

    def __exit__(self, *exception) -> None:
        self.stop()

    def start(self) -> EmulatedCore:
        """Builds what is missing, then starts. Raises ToolMissing, LinkFailed and DeviceFailed."""
        if self.alive():
            return self
        self.stop()
        prepare(self.board.core)
        command = [sys.executable, "-m", "tvm_shufflenet.emulator.process", "--core", self.board.name]
        command += ["--cores", str(self.cores)]
        command += ["--traces", str(self.traces)] if self.traces else []
        command += ["--secret"] if self.secret else []
        command += ["--tells"] if self.tells else []
        command += ["--", *self.server_options]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (it is read after the emulator has ended)
        # A session of its own: Ctrl-C reaches this process only, which decides what it still needs the device for.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (PACKAGE_PARENT, os.getenv("PYTHONPATH"))))},
        )  # fmt: skip
        atexit.register(self.stop)
        if self.secret:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
                self._process.stdin.write(self.secret.hex().encode() + b"\n")
                self._process.stdin.flush()
        line = self._first_line()
        if not line:
            raise self._start_failed()
        ready = json.loads(line)
        self.host, self.port, self._folder = ready["host"], ready["port"], ready["folder"]
        return self

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def restart(self) -> EmulatedCore:
        self.stop()
        return self.start()

    def stop(self) -> None:
        """Ends the emulator and removes its folder. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is None or os.getpid() != self._owner:  # a forked child must not end its parent's device
            return
        atexit.unregister(self.stop)
        process.stdin.close()
        process.terminate()  # a forked child of ours may still hold the other end of its stdin
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()  # qemu dies with it
            process.wait()
        process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # still there only if the emulator was killed outright
        self.host = self.port = self._folder = None

    def forget(self) -> None:
        """As if it had timed nothing yet."""
        if self._folder is not None:
            for name in (LAST_COST, LAST_COUNTS):
                (Path(self._folder) / name).unlink(missing_ok=True)

    def last_cost(self) -> Cost:
        """What the latest modelled time is made of. Raises DeviceFailed where there was none."""
        try:
            return read_json(Path(self._folder or "") / LAST_COST, Cost)
        except (OSError, ValueError) as exc:
            raise DeviceFailed(f"the emulated {self.board.name} has timed nothing yet") from exc

    def last_counts(self) -> Counts:
        """What was counted for the latest modelled time. Raises DeviceFailed where there was none."""
        if self._folder is None or not (path := Path(self._folder) / LAST_COUNTS).exists():
            raise DeviceFailed(f"the emulated {self.board.name} has timed nothing yet")
        return read_counts(path)

    def last_error(self) -> str:
        """The last lines that the emulator, qemu and sessions wrote to stderr, as plain text."""
        if self._stderr is None:
            return ""
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(
            self._stderr.fileno(), 4096, max(0, size - 4096)
        )  # not seek(), which would move its writers too
        text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in tail.decode(errors="replace"))
        return last_lines(text)

    def _first_line(self) -> bytes:
        """The line that says where the server listens; empty if the emulator ends or takes too long before it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if selector.select(START_LIMIT_S):
                return self._process.stdout.readline()
        return b""

    def _start_failed(self) -> DeviceFailed | ToolMissing:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # it closes its stdout before it has written all of its last words
        running = self.alive()
        self.stop()
        lines = self.last_error()
        if "API version" in lines or "unknown option 'plugin'" in lines:
            return ToolMissing(
                f"{toolchain.find_qemu().path} refuses the counting plugin: {lines}",
                "it was built without plugins, or for another interface than its version has",
                f"{toolchain.apt('qemu-user')}, or name a QEMU with plugins in TVM_SHUFFLENET_QEMU",
            )
        if "Could not load plugin" in lines or f"ended with status {-signal.SIGBUS}" in lines:  # SIGBUS: cut short
            return ToolMissing(
                f"the counting plugin or the device server cannot be loaded: {lines}",
                "their files are damaged, were built on another machine, or lie where nothing may be executed",
                f"remove {toolchain.cache_dir()}, which is built again, or name another one in TVM_SHUFFLENET_CACHE",
            )
        what = f"did not come up within {START_LIMIT_S:.0f} s" if running else "ended while starting"
        return DeviceFailed(f"the emulated {self.board.name} {what}" + (f":\n{lines}" if lines else ""))


def prepare(core: Core) -> None:
    """Checks and builds what an emulated core needs, so that starting one is quick. Raises ToolMissing, LinkFailed."""
    for tool in (toolchain.find_qemu(), toolchain.find_sysroot(), toolchain.find_llvm_mca(), toolchain.find_llvm_mc()):
        toolchain.require(tool)
    Mca(core).check_core()
    plugin_library()
    fork_server()
    guest_heap_library()
    rehearsal_library()
    server_binary("aarch64")
