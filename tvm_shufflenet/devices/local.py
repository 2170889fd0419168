"""This machine as a device. It runs the same server as a board, so a crashing kernel ends the server alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from functools import partial

from ..errors import DeviceFailed
from ..hardware.targets import host_machine
from ..server.build import runtime_libs, server_binary
from ..support.processes import end_with_parent
from .base import Device, Endpoint
from .secret import new_secret

# Of the environment: where files go, and which cores threads are bound to. Nothing else is the server's business.
PASSED_ON = ("TMPDIR", "TVM_BIND_THREADS")


class LocalDevice(Device):
    """The RPC server on a free loopback port, using ``threads`` threads of this machine's CPU.

    Only this process, and those that it gives its endpoint to, know the secret that the server asks for.
    """

    # Nothing else may run while a kernel is timed on the cores that it is timed on.
    workers = 1
    shares_host = True

    def __init__(self, threads: int = 1):
        self.threads = threads
        self.name, self.machine = "local", host_machine()
        self._process: subprocess.Popen | None = None
        self._endpoint: Endpoint | None = None

    def launcher(self) -> list[str]:
        """What runs a program of this device's machine, before the program's own words. Raises ToolMissing."""
        return []

    @property
    def other_threads(self) -> int:
        """A number of threads that results are to be the same with: odd, so that work is cut into uneven parts."""
        return 1 if self.threads > 1 else 3

    def with_threads(self, threads: int) -> LocalDevice:
        """Another such device, not started."""
        return LocalDevice(threads)

    def start(self) -> None:
        command = [*self.launcher(), str(server_binary(self.machine)), "--host", "127.0.0.1", "--port", "0"]
        command += ["--allow-root", "--secret-fd", "0"]
        environment = {"TVM_NUM_THREADS": str(self.threads), "LD_LIBRARY_PATH": str(runtime_libs(self.machine))}
        environment |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (read when the server does not start)
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            start_new_session=True, text=True, preexec_fn=partial(end_with_parent, signal.SIGTERM),
        )  # fmt: skip
        secret = new_secret()
        try:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:  # it has ended: the log says why
                pipe.write(secret.decode())
            line = self._process.stdout.readline()
            if not line.startswith("listening "):
                self.close()
                what = f"the device server for {self.machine} did not start"
                raise DeviceFailed(what, self._last_words(), "tvm-shufflenet doctor")
        except BaseException:  # Ctrl-C too: without having started, a device is not closed
            self.close()
            raise
        host, _, port = line.split()[1].rpartition(":")
        self._endpoint = Endpoint(host, int(port), secret=secret)

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-300:] or "it ended without a word"

    def endpoint(self) -> Endpoint:
        if self._endpoint is None:
            raise DeviceFailed("the local device is not started")
        return self._endpoint

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process, self._endpoint = None, None
