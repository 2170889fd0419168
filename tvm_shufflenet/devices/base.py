"""What every device is: something that grants TVM RPC sessions, and knows what kind of clock it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from ..errors import DeviceFailed
from ..latency import Kind, clock_name
from ..targets import Target

BIG_CORES = 1  # TVM's own code for its preference among cores of several kinds


@dataclass(frozen=True)
class Endpoint:
    """Where to ask for a session; small and picklable, so that worker processes can ask too.

    With a ``key`` the address is a tracker's and any free device of that key answers; without, a server's. ``threads``
    are set in each session, None where the server was started with the right number. With ``rehearsal`` an emulated
    core serves the session in its main process, so that those which follow begin with its code translated. With a
    ``secret_file`` the server must ask for what is in it.
    """

    host: str
    port: int
    key: str | None = None
    threads: int | None = None
    rehearsal: bool = False
    secret_file: str | None = None

    def connect(self, session_seconds: float):
        """A new RPCSession that the server ends after ``session_seconds``. Raises DeviceFailed."""
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
        from tvm import rpc
        from tvm.rpc import base

        if self.key is None:
            key = " -rehearsal" if self.rehearsal else ""  # an option to our server, as TVM's own -timeout is
            return rpc.connect(
                self.host, self.port, key + self._proof(self.host, self.port), session_timeout=int(seconds)
            )
        tracker = rpc.connect_tracker(self.host, self.port)
        if not any(server["key"] == f"server:{self.key}" for server in tracker.summary()["server_info"]):
            raise ValueError(f"no device has registered as '{self.key}' at the tracker")
        if self.secret_file is None:
            return tracker.request(self.key, priority=1, session_timeout=int(seconds), max_retry=2)
        # As TVM's request() does it, which cannot add anything to the key that the tracker gives.
        base.sendjson(tracker._sock, [base.TrackerCode.REQUEST, self.key, "", 1])
        status, answer = base.recvjson(tracker._sock)
        if status != base.TrackerCode.SUCCESS:
            raise RuntimeError(f"the tracker refused: {answer}")
        host, port, key = answer
        return rpc.connect(host, port, key + self._proof(host, port), session_timeout=int(seconds))

    def _proof(self, host: str, port: int) -> str:
        from .secret import proof_option

        return proof_option(host, port, self.secret_file) if self.secret_file else ""

    def __str__(self) -> str:
        return f"tracker://{self.host}:{self.port}/{self.key}" if self.key else f"rpc://{self.host}:{self.port}"


class Device(ABC):
    """A device that can run libraries of one ``machine`` (ELF machine name), as a context manager.

    ``kind`` says whether its times are measured or modelled, ``model_error_percent`` how far a modelled clock is off,
    None where that is not known. ``workers`` is how many trials may be prepared and run side by side.
    """

    name: str
    target: Target | None = None  # what it is to run; it is asked at the start whether it can
    kind: Kind = "measured"
    model_error_percent: float | None = None
    machine: str
    workers: int = 1
    # Whether work of ours beside a trial would disturb what the trial measures.
    shares_host: bool = False

    @property
    def clock(self) -> str:
        """Times of devices with the same clock may be compared."""
        return clock_name(self.kind, self.name)

    @abstractmethod
    def start(self) -> None:
        """Make the device ready. Raises DeviceFailed or ToolMissing."""

    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Where sessions are to be had now."""

    def alive(self) -> bool:
        """Whether the device answers at all."""
        try:
            replace(self.endpoint(), threads=None).connect(10)  # to be asked is enough, nothing needs to be set
        except DeviceFailed:
            return False
        return True

    def restart(self) -> None:
        """Bring a device that died back, as far as that is in our hands. Raises DeviceFailed."""
        self.close()
        self.start()

    def close(self) -> None:  # noqa: B027  (a remote device has nothing of ours to leave behind)
        """Leave nothing behind."""

    def __enter__(self) -> Device:
        self.start()
        if self.target is not None:
            from .handshake import check_device

            try:
                check_device(self, self.target)
            except BaseException:  # without having been entered, a device is not closed
                self.close()
                raise
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def describe(self) -> str:
        """One phrase for the first line of every command that uses the device."""
        if self.kind == "measured":
            return f"{self.name} (measured)"
        error = "not calibrated" if self.model_error_percent is None else f"about {self.model_error_percent:.0f} % off"
        return f"{self.name} (modelled clock, {error})"

    def to_json(self) -> dict:
        return {"name": self.name, "kind": self.kind, "model_error_percent": self.model_error_percent}


def first_line(error: BaseException) -> str:
    """The one line of a TVM error that says what happened: its tracebacks run to pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("Error caught from RPC call:")]
    telling = [line for line in lines if "Error:" in line or "Check failed" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]
