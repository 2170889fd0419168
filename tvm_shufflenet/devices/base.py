"""The base class of devices: a source of TVM RPC sessions with a known kind of clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import emulator
from ..clock.cost_model import CostModel
from ..clock.counts import Counts
from ..clock.cycles import Cost
from ..errors import DeviceFailed, first_line
from ..hardware.targets import Target
from ..latency import MEASURED, MODELLED, Kind, clock_name
from .facts import DeviceFacts
from .lending import borrow

if TYPE_CHECKING:
    from typing_extensions import Self

BIG_CORES = 1  # TVM's own code for its preference among cores of several kinds

# What a session with a whole network may take on silicon.
SESSION_SECONDS = 600
GREETING_SECONDS = 10


@dataclass(frozen=True)
class Endpoint:
    """Where to ask for a session; small and picklable, so that worker processes can ask too.

    With a ``key`` the address is a tracker's and any free device of that key answers; without, a server's. ``threads``
    are set in each session, None where the server was started with the right number. With ``rehearsal`` an emulated
    core serves the session in its main process, so that those which follow begin with its code translated. With a
    ``secret``, or a ``secret_file``, the server must ask for it, or for what is in it; ``forwarded`` says that the
    address is a forwarder's, so that the server cannot tell that nobody else relays the proof. Of a tracker's devices,
    those in ``avoid`` are left out.
    """

    host: str
    port: int
    key: str | None = None
    threads: int | None = None
    rehearsal: bool = False
    secret_file: str | None = None
    avoid: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)
    forwarded: bool = False

    def connect(self, session_seconds: float):
        """A new RPCSession that the server ends after ``session_seconds``; its ``address`` is the device's.

        Raises DeviceFailed.
        """
        try:
            session = self._session(session_seconds)
            if self.threads is not None:
                session.get_function("runtime.config_threadpool")(BIG_CORES, self.threads)
            return session
        except (RuntimeError, OSError, ValueError) as exc:
            raise DeviceFailed(
                f"no session from {self}", first_line(exc), f"tvm-shufflenet doctor --device {self}"
            ) from exc

    def _session(self, seconds: float):
        if self.key is not None:
            return borrow(self.host, self.port, self.key, int(seconds), self.avoid, self._open)
        key = " -rehearsal" if self.rehearsal else ""  # an option to our server, as TVM's own -timeout is
        return self._open(self.host, self.port, key, int(seconds))

    def _open(self, host: str, port: int, key: str, seconds: int):
        """A session from the server at the address, which is this endpoint's or one that the tracker lends."""
        if self.secret or self.secret_file:
            from .proof import proven_session

            session = proven_session(host, port, key, seconds, self._secret(), self._is_forwarded(host, port))
        else:
            from tvm import rpc

            session = rpc.connect(host, port, key, session_timeout=seconds)
        session.address = f"{host}:{port}"
        return session

    def _secret(self) -> bytes:
        from .secret import read_secret

        return self.secret or read_secret(self.secret_file or "")

    def _is_forwarded(self, host: str, port: int) -> bool | None:
        """None where it is not known. A server that was started for one run is on this machine."""
        from .secret import is_forwarded

        if self.forwarded or self.secret is not None:
            return self.forwarded
        return is_forwarded(host, port) or None

    def __str__(self) -> str:
        return f"tracker://{self.host}:{self.port}/{self.key}" if self.key else f"rpc://{self.host}:{self.port}"


class Device(ABC):
    """A device that can run libraries of one ``machine`` (ELF machine name), as a context manager.

    ``cost_model`` is what its times are made by, None on silicon, which has a clock of its own. Where code is
    ``emulated`` it takes tens of times as long as it would on the device, whether anything is timed or not. ``workers``
    is how many trials may be prepared and run side by side.
    """

    name: str
    target: Target | None = None  # what it is to run; it is asked at the start whether it can
    cost_model: CostModel | None = None
    emulated: bool = False
    machine: str
    workers: int = 1
    # Whether work of ours beside a trial would disturb what the trial measures.
    shares_host: bool = False

    @property
    def spec(self) -> str:
        """What names it for ``--device``."""
        return self.name

    @property
    def kind(self) -> Kind:
        """What times on it are called."""
        return MEASURED if self.cost_model is None else MODELLED

    @property
    def facts(self) -> DeviceFacts:
        return DeviceFacts(self.name, self.kind, self.cost_model.error_percent if self.cost_model else None)

    @property
    def clock(self) -> str:
        """Times of devices with the same clock may be compared."""
        return clock_name(self.kind, self.name)

    @abstractmethod
    def start(self) -> None:
        """Make the device ready. Raises DeviceFailed or ToolMissing."""

    @abstractmethod
    def endpoint(self) -> Endpoint:
        """The address that grants sessions now."""

    def session(self):
        """A new RPCSession, long enough for a whole network. Raises DeviceFailed."""
        return self.endpoint().connect(emulator.SESSION_SECONDS if self.emulated else SESSION_SECONDS)

    def devices(self) -> int:
        """How many devices there are behind the endpoint. Raises DeviceFailed."""
        return 1

    def cost_of(self, session) -> Cost:
        """What the latest modelled time of the session is made of. Raises DeviceFailed."""
        raise DeviceFailed(f"the times of {self.name} are not modelled")

    def counts_of(self, session) -> Counts:
        """What was executed in the latest modelled time of the session. Raises DeviceFailed."""
        raise DeviceFailed(f"nothing is counted on {self.name}")

    def check(self, target: Target) -> None:
        """Ask a started device what it is. Raises DeviceFailed where it cannot run code for ``target``."""
        from .handshake import check_server

        check_server(self.name, self.machine, self.endpoint().connect(GREETING_SECONDS), target)

    def restart(self) -> None:
        """Bring a device that died or hangs back, as far as that is in our hands. Raises DeviceFailed."""
        self.close()
        self.start()

    def close(self) -> None:  # noqa: B027  (a remote device has nothing of ours to leave behind)
        """Leave nothing behind."""

    def __enter__(self) -> Self:
        self.start()
        if self.target is not None:
            try:
                self.check(self.target)
            except BaseException:  # without having been entered, a device is not closed
                self.close()
                raise
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def describe(self) -> str:
        """One phrase for the first line of every command that uses the device."""
        if self.cost_model is None:
            return f"{self.name} (measured)"
        percent = self.cost_model.error_percent
        error = "not calibrated" if percent is None else f"about {percent:.0f} % off"
        return f"{self.name} (modelled clock, {error})"
