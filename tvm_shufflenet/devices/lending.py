"""Sessions on whichever device of a key a tracker lends.

TVM's client does the same, but tells nobody which device it got, and can neither add to the key nor leave a device out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

ATTEMPTS = 8
PATIENCE_S = 90.0  # another's session, at most thirty seconds in tuning, comes first


def registered(host: str, port: int, key: str) -> int:
    """How many devices of the key the tracker knows. Raises OSError, RuntimeError, ValueError."""
    from tvm import rpc

    return _registered(rpc.connect_tracker(host, port), key)


def _registered(tracker, key: str) -> int:
    return sum(server["key"] == f"server:{key}" for server in tracker.summary()["server_info"])


def borrow(host: str, port: int, key: str, seconds: int, avoid: Collection[str], proof: Callable[[str, int], str]):
    """A session on a free device whose address is not to be avoided. Raises OSError, RuntimeError, ValueError.

    A device that is avoided has been given to us all the same; by our not coming it stays out of the way for a while,
    then it offers itself to the tracker again.
    """
    from tvm import rpc
    from tvm.rpc import base

    tracker = rpc.connect_tracker(host, port)
    if not _registered(tracker, key):
        raise ValueError(f"no device has registered as '{key}' at the tracker")
    tracker._sock.settimeout(PATIENCE_S)
    failure: Exception = ValueError(f"all devices of '{key}' have failed repeatedly and are left out for now")
    for _ in range(ATTEMPTS):
        base.sendjson(tracker._sock, [base.TrackerCode.REQUEST, key, "", 1])
        status, answer = base.recvjson(tracker._sock)
        if status != base.TrackerCode.SUCCESS:
            raise RuntimeError(f"the tracker refused: {answer}")
        lent_host, lent_port, lent_key = answer
        address = f"{lent_host}:{lent_port}"
        if address in avoid:
            continue
        try:
            session = rpc.connect(
                lent_host, lent_port, lent_key + proof(lent_host, lent_port), session_timeout=int(seconds)
            )
        except (OSError, RuntimeError) as exc:  # it died on offer: the next may be well
            failure = exc
            continue
        session.address = address
        return session
    raise failure
