"""A stand-in for adb's server with one phone attached, for the real adb client to talk to.

It speaks the smart socket protocol (packages/modules/adb: OVERVIEW.TXT, SERVICES.TXT, SYNC.TXT): every request is four
hexadecimal digits and so many bytes, answered by OKAY or FAIL; after ``host:transport`` the connection is the phone's.
The phone's shell is this machine's, and its files are this machine's too.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from pathlib import Path

VERSION = 41  # of the protocol between client and server, of adb 1.0.41
SERIAL = "emulated-phone"
TRANSPORT = 1  # the number of the connection to it


class AdbServer:
    """``with AdbServer() as server: ... server.port``. ``shell_v2`` is how newer phones do it, with exit codes.

    ``cuts`` are numbers of bytes of pushed files: after so many, the phone is pulled off its cable, as often as there
    are numbers; with ``gone`` it does not come back. As a phone does, it throws away the file that was being pushed.
    """

    def __init__(self, shell_v2: bool = True, cuts: tuple[int, ...] = (), state: str = "device"):
        self.shell_v2, self.cuts, self.state = shell_v2, list(cuts), state
        self.gone = False
        self.pushed_bytes = 0
        self.requests: list[str] = []
        self.forwards: dict[int, subprocess.Popen] = {}
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError, EOFError):
                    _Connection(server, self.request).serve()

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._tcp.daemon_threads = True
        self.port = self._tcp.server_address[1]

    def __enter__(self) -> AdbServer:
        threading.Thread(target=self._tcp.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exc) -> None:
        for port in list(self.forwards):
            self.remove_forward(port)
        self._tcp.shutdown()
        self._tcp.server_close()

    def forward(self, port: int) -> int:
        """Lead a new port of this machine to ``port`` of the phone, which is this machine's too.

        In a process of its own: TVM's client waits for an answer without letting another thread run.
        """
        process = subprocess.Popen([sys.executable, __file__, str(port)], stdout=subprocess.PIPE, text=True)
        found = int(process.stdout.readline())
        self.forwards[found] = process
        return found

    def remove_forward(self, port: int) -> bool:
        process = self.forwards.pop(port, None)
        if process is not None:
            process.kill()
            process.wait()
            process.stdout.close()
        return process is not None


class _Connection:
    def __init__(self, server: AdbServer, connection: socket.socket):
        self.server, self.socket = server, connection

    def serve(self) -> None:
        while True:
            request = self.read(int(self.read(4), 16)).decode()
            self.server.requests.append(request)
            if not self.answer(request):
                return

    def read(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts

    def okay(self, text: str | None = None) -> None:
        self.socket.sendall(b"OKAY" + (b"" if text is None else f"{len(text):04x}{text}".encode()))

    def fail(self, text: str) -> None:
        self.socket.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())

    def answer(self, request: str) -> bool:
        """Whether the connection goes on."""
        if request.startswith("host-serial:") and not request.startswith(f"host-serial:{SERIAL}:"):
            self.fail(f"device '{request.split(':')[1]}' not found")
            return False
        service = request.rpartition(f"{SERIAL}:")[2] if request.startswith("host-serial:") else request
        service = service.partition(":")[2] if service.startswith("host") else service
        known = {
            "version": f"{VERSION:04x}",
            "features": "shell_v2,cmd" if self.server.shell_v2 else "",
            "host-features": "shell_v2,cmd",
            "get-serialno": SERIAL,
        }
        if request.startswith("host") and service in known:
            self.okay(known[service])
            return False
        if service.startswith(("forward:", "killforward:")):
            self.forward(service)
            return False
        if service.startswith(("transport", "tport")):
            return self.attach(service)
        if request.startswith("shell"):
            self.shell(*request.split(":", 1))
        elif request == "sync:":
            self.okay()
            self.sync()
        else:
            self.fail(f"unknown service {request}")
        return False

    def forward(self, service: str) -> None:
        """Answered twice: the server has understood, the phone has done it."""
        if self.server.gone or self.server.state != "device":
            self.fail("no devices/emulators found" if self.server.gone else f"device {self.server.state}.")
            return
        verb, _, rest = service.partition(":")
        if verb == "forward":
            port = self.server.forward(int(rest.rpartition(":")[2]))
            self.okay()
            self.okay(str(port))
        elif self.server.remove_forward(int(rest.rpartition(":")[2])):
            self.okay()
            self.okay()
        else:
            self.okay()
            self.fail(f"listener '{rest}' not found")

    def attach(self, service: str) -> bool:
        wanted = service.split(":")[-1] if "any" not in service else SERIAL
        if wanted != SERIAL or self.server.gone:
            self.fail(f"device '{wanted}' not found" if "any" not in service else "no devices/emulators found")
            return False
        if self.server.state != "device":
            self.fail(f"device {self.server.state}.")
            return False
        self.okay()
        if service.startswith("tport"):
            self.socket.sendall(struct.pack("<Q", TRANSPORT))
        return True

    def shell(self, kind: str, command: str) -> None:
        """Old phones write everything to one terminal; newer ones send packets of a kind each."""
        self.okay()
        old = "v2" not in kind
        errors = subprocess.STDOUT if old else subprocess.PIPE
        done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        if old:
            self.socket.sendall(done.stdout.replace(b"\n", b"\r\n"))
            return
        for number, content in ((1, done.stdout), (2, done.stderr), (3, bytes([done.returncode & 255]))):
            if content:
                self.socket.sendall(struct.pack("<BI", number, len(content)) + content)

    def sync(self) -> None:
        while True:
            verb, length = struct.unpack("<4sI", self.read(8))
            if verb == b"QUIT":
                return
            path = self.read(length).decode()
            if verb in (b"STAT", b"LSTA"):
                found = Path(path.rpartition("/")[0]).is_dir() and Path(path)
                stat = found.stat() if found and found.exists() else None
                facts = (stat.st_mode, stat.st_size, int(stat.st_mtime)) if stat else (0, 0, 0)
                self.socket.sendall(b"STAT" + struct.pack("<III", *facts))
            elif verb == b"SEND":
                self.receive(Path(path.rpartition(",")[0]))
            else:
                raise EOFError(verb)

    def receive(self, path: Path) -> None:
        error = None
        try:
            with open(path, "wb") as file:
                while True:
                    verb, length = struct.unpack("<4sI", self.read(8))
                    if verb == b"DONE":
                        break
                    content = self.read(length)
                    self.server.pushed_bytes += length
                    if self.server.cuts and self.server.pushed_bytes >= self.server.cuts[0]:
                        self.server.cuts.pop(0)
                        raise EOFError
                    try:
                        if error is None:
                            file.write(content)
                            file.flush()
                    except OSError as exc:
                        error = exc.strerror
        except EOFError:
            path.unlink(missing_ok=True)
            raise
        except OSError as exc:
            error = f"couldn't create file: {exc.strerror}"
        if error is None:
            self.socket.sendall(b"OKAY" + struct.pack("<I", 0))
        else:
            path.unlink(missing_ok=True)
            self.socket.sendall(b"FAIL" + struct.pack("<I", len(error)) + error.encode())


def relay(port: int) -> None:
    """Forward what comes to a free port, which is printed, to ``port``."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as phone:
                threading.Thread(target=copy, args=(phone, self.request), daemon=True).start()
                copy(self.request, phone)

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                sink.sendall(content)
            sink.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    relay(int(sys.argv[1]))
