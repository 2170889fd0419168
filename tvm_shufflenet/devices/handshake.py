"""Whether a device and this host fit each other: versions, and the CPU's features, before anything is uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DeviceFailed, first_line
from ..hardware.targets import Target, features_of
from ..server.build import SERVER_VERSION
from ..support.files import parse_json
from ..support.toolchain import FFI_VERSION, TVM_VERSION
from ..text import clean
from .operands import server_function

if TYPE_CHECKING:
    from .base import Device

GREETING_SECONDS = 10
FACTS_CHARACTERS, FACTS_DEPTH = 64 << 10, 4  # a server's own description takes 1 KB


def check_device(device: Device, target: Target) -> None:
    """Ask a started device what it is. Raises DeviceFailed where it cannot run code for ``target`` as it is meant.

    A server that is not ours, such as TVM's own, does not say.
    """
    facts = facts_of(device, device.endpoint().connect(GREETING_SECONDS))
    if facts is not None:
        _check_versions(device, facts)
        _check_features(device, target, facts)


def facts_of(device: Device, session) -> dict | None:
    """What the server says it is; None where it is not ours. Raises DeviceFailed."""
    try:
        info = server_function(session, "server_info")
        return None if info is None else _understood(info())
    except Exception as exc:
        raise DeviceFailed(f"{device.name} does not say what it is: {first_line(exc)}") from exc


def _understood(said: object) -> dict:
    """Raises ValueError for what is no description of a server."""
    if not isinstance(said, str) or len(said) > FACTS_CHARACTERS:
        raise ValueError("it is no text, or a long one")
    return _cleaned(parse_json(said.encode(errors="replace"), dict[str, Any], FACTS_DEPTH))


def _cleaned(value: object) -> object:
    if isinstance(value, dict):
        return {clean(name): _cleaned(each) for name, each in value.items()}
    return clean(value) if isinstance(value, str) else value


def _check_versions(device: Device, facts: dict) -> None:
    for name, key, ours in (
        ("TVM", "tvm", TVM_VERSION),
        ("TVM's FFI", "tvm_ffi", FFI_VERSION),
        ("the device server", "server", SERVER_VERSION),
    ):
        theirs = facts.get(key, 1)
        if theirs != ours:
            raise DeviceFailed(
                f"{device.name} has version {theirs} of {name}, this host {ours}",
                "the device's bundle is of another version of tvm-shufflenet",
                "tvm-shufflenet serve --bundle DIR here, and copy it to the device",
            )


def _check_features(device: Device, target: Target, facts: dict) -> None:
    machine = facts.get("arch", device.machine)
    if machine != target.machine:
        raise DeviceFailed(
            f"{device.name} is {machine}, {target.name} is {target.machine}", "", "choose another --target or --device"
        )
    features = facts.get("features")
    known = features if isinstance(features, dict) else {}
    missing = sorted(name for name in features_of(target) if known.get(name) is False)
    if missing:
        raise DeviceFailed(
            f"{device.name} cannot execute {', '.join(missing)}, which code for {target.name} uses",
            "the target is of a newer CPU than the device",
            "choose a --target of this CPU, see tvm-shufflenet targets",
        )
