"""A board or phone that runs the RPC server, reached directly or through a tracker."""

from __future__ import annotations

import time

from ..errors import DeviceFailed
from .base import Device, Endpoint


class RemoteDevice(Device):
    """Somebody else's server: it can be asked again, but not restarted from here."""

    RETRIES = 3
    # One trial is built while another runs; the server or the tracker queues the sessions.
    workers = 2

    def __init__(self, spec: str, endpoint: Endpoint, machine: str):
        self.name, self.machine, self._endpoint = spec, machine, endpoint

    def start(self) -> None:
        self._endpoint.connect(10)

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
