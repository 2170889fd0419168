"""The emulated Cortex-A as a device like any other; only its clock is modelled."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..clock.cost_model import CostModel
from ..clock.counts import Counts
from ..clock.cycles import Cost
from ..emulator.core import EmulatedCore
from ..errors import DeviceFailed
from ..hardware.boards import Board
from .base import Device, Endpoint
from .rehearsal import rehearse
from .secret import new_secret


class EmulatedDevice(Device):
    """``threads`` cores of one kind, modelled.

    Sessions are processes of their own, so trials side by side do not disturb its clock. Only who is given the endpoint
    knows the secret that the server asks for: a random one, or ``secret``, of which an empty one lets everybody in. A
    device that is ``served`` tells its clients what times are made of.
    """

    emulated = True
    machine = "aarch64"

    def __init__(
        self,
        board: Board,
        threads: int = 1,
        traces: Path | None = None,
        server_options: Sequence[str] = (),
        secret: bytes | None = None,
        served: bool = False,
    ):
        self.name = f"emulated:{board.name}"
        self.cost_model = CostModel(board)
        self.workers = os.cpu_count() or 1
        secret = new_secret() if secret is None else secret
        self._emulator = EmulatedCore(board.name, threads, traces, server_options, secret, tells=served)

    def start(self) -> None:
        self._emulator.start()
        rehearse(self.endpoint())
        self._emulator.forget()

    def endpoint(self) -> Endpoint:
        return Endpoint(self._emulator.host, self._emulator.port, secret=self._emulator.secret or None)

    @property
    def address(self) -> str:
        return f"{self._emulator.host}:{self._emulator.port}"

    def wait(self) -> None:
        """Until it ends. Raises DeviceFailed then."""
        while self._emulator.alive():
            time.sleep(0.5)
        raise DeviceFailed(f"the {self.name} has ended", self._emulator.last_error(), "tvm-shufflenet doctor")

    def last_cost(self) -> Cost:
        """What the latest modelled time is made of."""
        return self._emulator.last_cost()

    def last_counts(self) -> Counts:
        """What was executed in the latest modelled time."""
        return self._emulator.last_counts()

    def cost_of(self, session) -> Cost:
        return self.last_cost()

    def counts_of(self, session) -> Counts:
        return self.last_counts()

    def close(self) -> None:
        self._emulator.stop()
