"""Checks that a device and this host are compatible, before anything is uploaded: versions and CPU features."""

from __future__ import annotations

from typing import Any

from ..errors import DeviceFailed, first_line
from ..hardware.targets import Target, features_of
from ..server.build import SERVER_VERSION
from ..support.files import parse_json
from ..support.toolchain import FFI_VERSION, TVM_VERSION
from ..text import clean
from .operands import server_function

FACTS_CHARACTERS, FACTS_DEPTH = 64 << 10, 4  # a server's own description takes 1 KB


def check_server(name: str, machine: str, session, target: Target) -> None:
    """Ask the server of the device ``name`` what it is. Raises DeviceFailed where it cannot run code for ``target`` as
    it is meant; ``machine`` is what the device is taken for where the server does not say.

    A server that is not ours, such as TVM's own, does not say.
    """
    facts = facts_of(name, session)
    if facts is not None:
        _check_versions(name, facts)
        _check_features(name, machine, target, facts)


def facts_of(name: str, session) -> dict | None:
    """What the server says it is; None where it is not ours. Raises DeviceFailed."""
    try:
        info = server_function(session, "server_info")
        return None if info is None else _understood(info())
    except Exception as exc:
        raise DeviceFailed(f"{name} does not say what it is: {first_line(exc)}") from exc


def _understood(said: object) -> dict:
    """Raises ValueError for what is no description of a server."""
    if not isinstance(said, str) or len(said) > FACTS_CHARACTERS:
        raise ValueError("it is no text, or a long one")
    return _cleaned(parse_json(said.encode(errors="replace"), dict[str, Any], FACTS_DEPTH))


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return {clean(name): _cleaned(each) for name, each in value.items()}
    return clean(value) if isinstance(value, str) else value


def _check_versions(name: str, facts: dict) -> None:
    for what, key, ours in (
        ("TVM", "tvm", TVM_VERSION),
        ("TVM's FFI", "tvm_ffi", FFI_VERSION),
        ("the device server", "server", SERVER_VERSION),
    ):
        theirs = facts.get(key, 1)
        if theirs != ours:
            raise DeviceFailed(
                f"{name} has version {theirs} of {what}, this host {ours}",
                "the device's bundle is of another version of tvm-shufflenet",
                "tvm-shufflenet serve --bundle DIR here, and copy it to the device",
            )


def _check_features(name: str, machine: str, target: Target, facts: dict) -> None:
    machine = facts.get("arch", machine)
    if machine != target.machine:
        raise DeviceFailed(
            f"{name} is {machine}, {target.name} is {target.machine}", "", "choose another --target or --device"
        )
    features = facts.get("features")
    known = features if isinstance(features, dict) else {}
    missing = sorted(each for each in features_of(target) if known.get(each) is False)
    if missing:
        raise DeviceFailed(
            f"{name} cannot execute {', '.join(missing)}, which code for {target.name} uses",
            "the target is of a newer CPU than the device",
            "choose a --target of this CPU, see tvm-shufflenet targets",
        )
