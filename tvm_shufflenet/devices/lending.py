"""Sessions on any device that a tracker assigns for a key.

TVM's client does the same, but tells nobody which device it got, can neither add to the key nor leave a device out,
and waits without end for a tracker that hangs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Collection, Iterator

from ..errors import DeviceFailed

ATTEMPTS = 8
ANSWER_S = 10.0
PATIENCE_S = 90.0  # another's session, at most thirty seconds in tuning, comes first


def registered(host: str, port: int, key: str) -> int:
    """How many devices of the key the tracker knows. Raises OSError, RuntimeError, ValueError."""
    with _tracker(host, port) as tracker:
        return _registered(tracker, key)


def _registered(tracker: socket.socket, key: str) -> int:
    from tvm.rpc.base import TrackerCode

    summary = _ask(tracker, TrackerCode.SUMMARY)
    return sum(server["key"] == f"server:{key}" for server in summary["server_info"])


@contextlib.contextmanager
def _tracker(host: str, port: int) -> Iterator[socket.socket]:
    """A connection to the tracker."""
    from tvm.rpc import base

    with socket.create_connection((host, port), ANSWER_S) as tracker:
        greeting = struct.pack("<i", base.RPC_TRACKER_MAGIC)
        tracker.sendall(greeting)
        if base.recvall(tracker, len(greeting)) != greeting:
            raise RuntimeError("it is not a TVM RPC tracker")
        yield tracker


def _ask(tracker: socket.socket, *request):
    """The tracker's answer."""
    from tvm.rpc import base

    base.sendjson(tracker, request)
    status, answer = base.recvjson(tracker)
    if status != base.TrackerCode.SUCCESS:
        raise RuntimeError(f"the tracker refused: {answer}")
    return answer


def borrow(host: str, port: int, key: str, seconds: int, avoid: Collection[str], connect: Callable):
    """A session on a free device whose address is not to be avoided, by ``connect(host, port, key, seconds)``. Raises
    OSError, RuntimeError, ValueError, DeviceFailed.

    A device that is avoided has been given to us all the same; by our not coming it stays out of the way for a while,
    then it offers itself to the tracker again.
    """
    from tvm.rpc.base import TrackerCode

    with _tracker(host, port) as tracker:
        if not _registered(tracker, key):
            raise ValueError(f"no device has registered as '{key}' at the tracker")
        tracker.settimeout(PATIENCE_S)
        failure: Exception = ValueError(f"all devices of '{key}' have failed repeatedly and are left out for now")
        for _ in range(ATTEMPTS):
            lent_host, lent_port, lent_key = _ask(tracker, TrackerCode.REQUEST, key, "", 1)
            address = f"{lent_host}:{lent_port}"
            if address in avoid:
                continue
            try:
                return connect(lent_host, lent_port, lent_key, seconds)
            except (OSError, RuntimeError, DeviceFailed) as exc:  # it died on offer: the next may be well
                failure = exc
        raise failure
