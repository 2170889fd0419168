"""A phone whose device server is reached through adb, which forwards a port of this computer to it."""

from __future__ import annotations

from dataclasses import replace

from ..errors import DeviceFailed
from ..transport.adb_client import AdbClient
from ..transport.remote import number
from .base import Endpoint
from .remote import RemoteDevice
from .secret import VARIABLE, secret_file

HOST = "127.0.0.1"


class Phone(RemoteDevice):
    """``port`` is the server's on the phone. Raises BadInput for what is no serial number or no secret, ToolMissing.

    The forwarded port is open to every user of this computer, so that a server's secret is asked for here too.
    """

    def __init__(self, spec: str, serial: str | None, port: int, machine: str, threads: int):
        super().__init__(spec, Endpoint(HOST, 0, None, threads, secret_file=secret_file(), forwarded=True), machine)
        self._adb, self._port = AdbClient(serial), port
        self._forwarded: str | None = None

    def start(self) -> None:
        self._forward()
        try:
            super().start()
        except DeviceFailed as exc:
            self.close()
            raise DeviceFailed(
                f"no device server answers on port {self._port} of {self._adb.name}: {exc.what}",
                f"it was not started there, or on another port, or with another secret than {VARIABLE} names",
                "docs/android.md says how to start it; without one, tvm-shufflenet deploy --to adb needs nothing there",
            ) from exc

    def restart(self) -> None:
        self._forward()

    def _forward(self) -> None:
        """A cable that comes loose takes the forwarding with it."""
        self.close()
        done = self._adb.run("forward", "tcp:0", f"tcp:{self._port}")
        port = number(done.output)
        if done.exit_code != 0 or port is None:
            cause = "adb is older than 1.0.33" if done.exit_code == 0 else "the cable came loose"
            raise self._adb.unreachable(done) or DeviceFailed(
                f"adb forwards no port: {done.words}", cause, "adb devices"
            )
        self._forwarded = f"tcp:{port}"
        self._endpoint = replace(self._endpoint, port=port)

    def close(self) -> None:
        if self._forwarded is not None:
            self._adb.run("forward", "--remove", self._forwarded)
            self._forwarded = None
