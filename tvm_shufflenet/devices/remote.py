"""A board, phone or served emulated core that runs the RPC server, reached directly or through a tracker."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ..clock.cost_model import CostModel
from ..clock.counts import Counts, read_counts
from ..clock.cycles import Cost
from ..emulator.process import LAST_COST, LAST_COUNTS
from ..errors import DeviceFailed, first_line
from ..hardware.boards import find_board
from ..latency import MODELLED
from ..support.files import Malformed, parse_json
from .base import Device, Endpoint
from .handshake import facts_of
from .lending import registered

START_SECONDS = 10


class RemoteDevice(Device):
    """Somebody else's server: it can be asked again, but not restarted from here.

    One whose clock is modelled takes the name of its core, which is what its times may be compared with.
    """

    # One trial is built while another runs; the server or the tracker queues the sessions.
    workers = 2
    MOST_WORKERS = 8

    def __init__(self, spec: str, endpoint: Endpoint, machine: str):
        self._spec = self.name = spec
        self.machine, self._endpoint = machine, endpoint

    @property
    def spec(self) -> str:
        return self._spec

    def start(self) -> None:
        facts = facts_of(self.name, self._endpoint.connect(START_SECONDS))
        if self._endpoint.key is not None:
            self.workers = min(1 + self.devices(), self.MOST_WORKERS)
        if facts is not None and facts.get("timer") == MODELLED:
            self._take_clock(facts)

    def _take_clock(self, facts: dict) -> None:
        """The server was started with so many cores, and its sessions are not to be told: it would show in times."""
        name, cores, threads = facts.get("core"), facts.get("cores"), self._endpoint.threads
        if type(name) is not str or type(cores) is not int:
            raise DeviceFailed(f"{self.spec} does not say which core it models", "it is of another version")
        board = find_board(name)
        if threads not in (None, cores):
            raise DeviceFailed(
                f"{self.spec} models {cores} cores, not {threads}", "", "start it with as many, or --threads"
            )
        self._endpoint = replace(self._endpoint, threads=None)
        self.name, self.cost_model, self.emulated = f"emulated:{board.name}", CostModel(board), True

    def describe(self) -> str:
        return super().describe() + ("" if self.name == self.spec else f" at {self.spec}")

    def devices(self) -> int:
        """How many devices may answer. Raises DeviceFailed."""
        if self._endpoint.key is None:
            return 1
        try:
            return registered(self._endpoint.host, self._endpoint.port, self._endpoint.key)
        except (OSError, RuntimeError, ValueError) as exc:
            raise DeviceFailed(f"the tracker of {self.spec} does not answer", first_line(exc)) from exc

    def cost_of(self, session) -> Cost:
        try:
            return parse_json(self._told(session, LAST_COST), Cost)
        except Malformed as exc:
            raise DeviceFailed(f"{self.spec} does not say what its time is made of: {exc}") from exc

    def counts_of(self, session) -> Counts:
        with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
            path = Path(folder) / LAST_COUNTS
            path.write_bytes(self._told(session, LAST_COUNTS))
            return read_counts(path)

    def _told(self, session, name: str) -> bytes:
        """A file that a served core leaves in the session's folder."""
        try:
            return bytes(session.download(name))
        except RuntimeError as exc:
            raise DeviceFailed(
                f"{self.spec} does not say what its time is made of: {first_line(exc)}",
                "it is served by an earlier version, or has timed nothing in this session",
                f"tvm-shufflenet serve --core {self.name.partition(':')[2]} again there, with this version",
            ) from exc

    def endpoint(self) -> Endpoint:
        return self._endpoint

    def restart(self) -> None:
        """Nothing can be done from here but to wait."""
