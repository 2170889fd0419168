"""The emulated Cortex-A as a process: ``python -m tvm_shufflenet.emulator.process --core cortex-a72``.

It runs the arm64 device server under qemu-aarch64 with the counting plugin, and answers the server's questions for
the modelled time of what was counted. With --secret the first line of its stdin is what the server asks its clients
for, as hexadecimal digits. One JSON line on stdout says where the RPC server listens. It ends, and leaves neither
process nor file behind, when its stdin closes (its owner ended or closed it), on SIGTERM and SIGINT, and when qemu
ends.

It imports neither tvm nor torch nor numpy, so it is up in a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..clock.counts import read_counts
from ..clock.cycles import Cost, CycleModel
from ..errors import DeployError
from ..hardware.boards import BOARDS, USUAL, Board, find_board
from ..hardware.cores import Cache, Core
from ..server.build import server_binary
from ..support import toolchain
from ..support.memory import release_freed
from ..support.processes import end_with_parent
from ..support.surroundings import explain
from . import SESSION_SECONDS
from .build import guest_heap_library, plugin_library

FOLDER_PREFIX = "tvm-shufflenet-"
# Beside the folder of counts, for who wants to know more of the latest modelled time than its nanoseconds.
LAST_COST, LAST_COUNTS = "last-cost.json", "last-counts"
# What QEMU may read beside its own folder and the system's libraries, one path a line.
READABLE = "readable"
# Of the private folder's path, wherever temporary files lie: its length in the guest's memory shows in modelled times.
FOLDER_CHARACTERS = 90  # of the 107 of a socket's path
RANDOM_CHARACTERS = 8  # that mkdtemp adds
CREDENTIALS = struct.Struct("3i")  # of a socket's peer: its process, user and group
MOST_REQUEST = 256
# What a program reads to resolve names, of a tracker say.
NETWORK_FILES = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tvm_shufflenet.emulator.process", description=__doc__)
    parser.add_argument("--core", default=USUAL, help=f"one of {', '.join(BOARDS)}")
    parser.add_argument("--cores", type=int, default=1, help="how many of them share a parallel region")
    parser.add_argument("--traces", type=Path, help="keep counts here, each with the trace of what was counted")
    parser.add_argument("--secret", action="store_true", help="serve only who knows the secret that stdin begins with")
    parser.add_argument("--tells", action="store_true", help="leave what a time is made of in its session's folder")
    parser.add_argument("server", nargs="*", help="after --, more options for the device server")
    options = parser.parse_args(arguments)
    board, secret = find_board(options.core), _first_line() if options.secret else b""
    try:
        with Emulator(board, options.cores, options.traces, options.server, secret, options.tells) as emulator:
            return emulator.run()
    except (DeployError, OSError) as exc:
        known = explain(exc) or exc
        print(known, file=sys.stderr)
        return getattr(known, "exit_code", 4)


def _first_line() -> bytes:
    """What hexadecimal digits in the first line of stdin say, and no byte of what follows."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return bytes.fromhex(line.decode())


class Emulator:
    """qemu with the device server, and the cost service, in one private folder.

    The guest sees only paths in this folder and an environment of its own: arguments and environment lie on its stack,
    and their length would shift the stack and with it the simulated cache conflicts.
    """

    def __init__(
        self,
        board: Board,
        cores: int = 1,
        traces: Path | None = None,
        server_options: Sequence[str] = (),
        secret: bytes = b"",
        tells: bool = False,
    ):
        self.board, self.cores, self.server_options = board, cores, server_options
        self._secret, self._tells = secret, tells
        self.traces = traces and traces.resolve()
        self._events: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._qemu: subprocess.Popen | None = None
        self._owner = os.getppid()

    def __enter__(self) -> Emulator:
        self.folder = private_folder()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._events.put(("signal", number)))
        return self

    def __exit__(self, *exception) -> None:
        if self._qemu is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._qemu.pid, signal.SIGKILL)
            self._qemu.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> int:
        """Until something ends it. The result is the process's exit code."""
        os.chdir(self.folder)
        self._start_qemu()
        keep, sessions = self.traces is not None, Path("work").resolve() if self._tells else None
        CostService(CycleModel(self.board), Path("cost.sock"), Path("counts"), keep, sessions).start()
        for task in (self._watch_stdout, self._watch_stdin):
            threading.Thread(target=task, daemon=True).start()
        while True:
            try:
                event, value = self._events.get(timeout=1)
            except queue.Empty:
                if os.getppid() != self._owner:  # some other process still holds the other end of our stdin
                    return 0
                continue
            if event == "listening":
                host, _, port = value.rpartition(":")
                ready = {"host": host, "port": int(port), "core": self.board.name, "pid": os.getpid()}
                print(json.dumps(ready | {"folder": str(self.folder)}), flush=True)
            elif event == "qemu ended":
                print(f"qemu-aarch64 ended with status {value}", file=sys.stderr)
                return 4
            else:
                return 0

    def _start_qemu(self) -> None:
        os.mkdir("work")
        if self.traces:
            os.symlink(self.traces, "counts")
        else:
            os.mkdir("counts")
        server = server_binary("aarch64")
        os.symlink(server.parent, "server")  # the program and the libraries it loads
        os.symlink(plugin_library(), "plugin.so")
        os.symlink(guest_heap_library(), "heap.so")
        # As many words and characters with a secret as without, or it would show in times: the server listens on
        # loopback anyway, and four zeros are standard input.
        secret = ["--secret-fd", "0000"] if self._secret else ["--host", "127.0.0.1"]
        sysroot = toolchain.require(toolchain.find_sysroot())
        readable = [sysroot, server.parent, plugin_library(), guest_heap_library(), "/proc", *NETWORK_FILES]
        Path(READABLE).write_text("".join(f"{os.path.realpath(path)}\n" for path in readable))
        command = [
            toolchain.require(toolchain.find_qemu()),
            "-cpu", self.board.core.qemu_cpu,
            "-L", sysroot,
            "-U", "TMPDIR",
            "-E", "LD_LIBRARY_PATH=./server",
            "-E", "LD_PRELOAD=./heap.so",
            "-E", "TVM_NUM_THREADS=1",
            "-plugin", plugin_argument(self.board.core, self.cores, self.traces is not None)
            + f",read={READABLE},tells={int(self._tells)}",
            f"./server/{server.name}", *secret, "--port", "0", "--work-dir", "work",
            "--cost-socket", str(self.folder / "cost.sock"), "--session-timeout", str(SESSION_SECONDS),
            "--modelled-cores", str(self.cores), "--allow-root", *self.server_options,
        ]  # fmt: skip
        self._qemu = subprocess.Popen(
            command, env={"TMPDIR": "."}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        with contextlib.suppress(BrokenPipeError), self._qemu.stdin as pipe:
            pipe.write(self._secret)

    def _watch_stdout(self) -> None:
        for line in io.TextIOWrapper(self._qemu.stdout, errors="replace"):
            if line.startswith("listening "):
                self._events.put(("listening", line.split()[1]))
        self._events.put(("qemu ended", self._qemu.wait()))

    def _watch_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self._events.put(("stdin closed", None))


def private_folder() -> Path:
    """A new folder whose path is ``FOLDER_CHARACTERS`` long, where that of temporary files leaves room."""
    given = len(f"{tempfile.gettempdir()}/{FOLDER_PREFIX}") + RANDOM_CHARACTERS
    return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, suffix="_" * max(0, FOLDER_CHARACTERS - given)))


def plugin_argument(core: Core, cores: int = 1, trace: bool = False) -> str:
    """The counting plugin with the core's caches, for qemu started in a folder with ``plugin.so`` and ``counts``."""
    caches = f"l1d={_geometry(core.l1d)},l2={_geometry(core.l2)}"
    return f"./plugin.so,out=counts,{caches},window={core.in_flight},cores={cores}" + (",trace=1" if trace else "")


def _geometry(cache: Cache) -> str:
    return f"{cache.bytes}:{cache.ways}:{cache.line_bytes}"


def _die_with_parent() -> None:
    """Runs in the new process before qemu: should this process be killed outright, the kernel kills qemu; and should
    memory run out, qemu before others.
    """
    end_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


class CostService:
    """Answers ``price PID K`` with ``ok NANOSECONDS`` or ``error TEXT``, and ``core`` with the core's name, one thread
    per connection. A session is told of nobody's counts but its own.

    With ``sessions``, where the server keeps their folders, what a price is made of is left for the session to read.
    """

    def __init__(self, model: CycleModel, path: Path, counts: Path, keep: bool = False, sessions: Path | None = None):
        self._model, self._counts, self._keeps_counts, self._sessions = model, counts, keep, sessions
        self._folders: dict[int, Path] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        pid, _, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        with connection, connection.makefile("rw", errors="replace") as lines, contextlib.suppress(OSError):
            while request := lines.readline(MOST_REQUEST):
                lines.write(self.answer(request, pid) + "\n")
                lines.flush()
                release_freed()  # a whole network's counts take tens of megabytes
        self._folders.pop(pid, None)

    def answer(self, request: str, asker: int | None = None) -> str:
        """To a process ``asker``, if it is known."""
        if request.split() == ["core"]:
            return f"ok {self._model.board.name}"
        try:
            verb, pid, mark = request.split()
            if verb != "price" or (asker is not None and int(pid) != asker):
                raise ValueError
            dump = self._counts / f"{int(pid)}.{int(mark)}"
        except ValueError:
            return f"error the cost service does not know the request {request.strip()!r}"
        try:
            cost = self._model.price(read_counts(dump))
            self._tell(cost, dump, int(pid))
            self._keep(cost, dump)
            return f"ok {cost.nanoseconds}"
        except Exception as exc:  # whatever it is, the session must hear of it instead of waiting
            text = str(exc) if isinstance(exc, DeployError) else f"{type(exc).__name__}: {exc}"
            return "error " + " ".join(text.split())
        finally:
            if not self._keeps_counts:
                dump.unlink(missing_ok=True)

    def _keep(self, cost: Cost, dump: Path) -> None:
        folder = self._counts.parent
        _write_cost(cost, folder)
        if not self._keeps_counts:
            dump.replace(folder / LAST_COUNTS)  # a new name costs a trial nothing

    def _tell(self, cost: Cost, dump: Path, pid: int) -> None:
        """A session that has ended is told nothing, and no other process is."""
        if self._sessions is None:
            return
        with contextlib.suppress(OSError):
            folder = self._folder_of(pid)
            if folder.parent == self._sessions:
                _write_cost(cost, folder)
                (folder / LAST_COUNTS).unlink(missing_ok=True)
                os.link(dump, folder / LAST_COUNTS)

    def _folder_of(self, pid: int) -> Path:
        """As the plugin says, which is inside: a session's process is closed to others of its user."""
        if pid not in self._folders:
            note = self._counts / f"{pid}.folder"
            self._folders[pid] = Path(note.read_text(errors="replace")[:4096])
            note.unlink()
        return self._folders[pid]


def _write_cost(cost: Cost, folder: Path) -> None:
    temporary = folder / f"{LAST_COST}.{threading.get_ident()}"
    temporary.write_bytes(msgspec.json.encode(cost))
    temporary.replace(folder / LAST_COST)


if __name__ == "__main__":
    sys.exit(main())
