"""A board or phone that runs the RPC server, reached directly or through a tracker."""

from __future__ import annotations

import time

from ..errors import DeviceFailed
from .base import Device, Endpoint, first_line
from .lending import registered


class RemoteDevice(Device):
    """Somebody else's server: it can be asked again, but not restarted from here."""

    RETRIES = 3
    # One trial is built while another runs; the server or the tracker queues the sessions.
    workers = 2
    MOST_WORKERS = 8

    def __init__(self, spec: str, endpoint: Endpoint, machine: str):
        self.name, self.machine, self._endpoint = spec, machine, endpoint

    def start(self) -> None:
        self._endpoint.connect(10)
        if self._endpoint.key is not None:
            self.workers = min(1 + self.devices(), self.MOST_WORKERS)

    def devices(self) -> int:
        """How many devices may answer. Raises DeviceFailed."""
        if self._endpoint.key is None:
            return 1
        try:
            return registered(self._endpoint.host, self._endpoint.port, self._endpoint.key)
        except (OSError, RuntimeError, ValueError) as exc:
            raise DeviceFailed(f"the tracker of {self.name} does not answer", first_line(exc)) from exc

    def endpoint(self) -> Endpoint:
        return self._endpoint

    def restart(self) -> None:
        for attempt in range(self.RETRIES):
            try:
                return self.start()
            except DeviceFailed:
                if attempt == self.RETRIES - 1:
                    raise
                time.sleep(2**attempt)
