"""Devices: this machine, an emulated Cortex-A, a board at an address, any board at a tracker, a phone behind adb."""

from __future__ import annotations

from ..errors import BadInput, UnknownName
from ..hardware.boards import USUAL, find_board
from ..hardware.targets import Target
from ..server import SERVER_PORT
from .base import Device, Endpoint

FORMS = ("local", "emulated", "emulated:CORE", "rpc://HOST:PORT", "tracker://HOST:PORT/KEY", "adb[:SERIAL][/PORT]")


def find_device(spec: str | None, target: Target, threads: int = 1, match: bool = True) -> Device:
    """The device that ``--device`` names; with none, this machine for its own target, else the emulated core.

    Raises UnknownName for a word that is no device or core, and with ``match`` BadInput for a device that cannot run
    the target's code.
    """
    if spec is None:
        spec = "emulated" if target.board else "local"
    device = _parse(spec, target, threads)
    if match and device.machine != target.machine:
        raise BadInput(
            f"device '{spec}' runs {device.machine} code, target '{target.name}' is {target.machine}",
            "target and device do not match",
            "choose another --target or --device",
        )
    device.target = target
    return device


def _parse(spec: str, target: Target, threads: int) -> Device:
    scheme, _, rest = spec.partition(":")
    if spec == "local":
        from .local import LocalDevice

        return LocalDevice(threads)
    if scheme == "emulated":
        from .emulated import EmulatedDevice

        board = find_board(rest or target.board or USUAL)
        if threads > board.cores:
            what = f"the emulated {board.name} has {board.cores} cores"
            raise BadInput(what, f"--threads {threads}", f"use --threads {board.cores} or fewer")
        return EmulatedDevice(board, threads)
    if scheme in ("rpc", "tracker"):
        from .remote import RemoteDevice

        return RemoteDevice(spec, _endpoint(spec, scheme, rest, threads), target.machine)
    if spec == "adb" or spec.startswith(("adb:", "adb/")):
        from .phone import Phone

        return Phone(spec, *_phone(spec), target.machine, threads)
    raise UnknownName("device", spec, FORMS)


def _phone(spec: str) -> tuple[str | None, int]:
    serial, _, port = spec.removeprefix("adb").partition("/")
    if serial == ":" or ("/" in spec and not _is_port(port)):
        raise BadInput(f"'{spec}' is not a phone", "", f"write {FORMS[5]}")
    return serial.removeprefix(":") or None, int(port or SERVER_PORT)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _endpoint(spec: str, scheme: str, rest: str, threads: int) -> Endpoint:
    address, _, key = rest.removeprefix("//").partition("/")
    host, _, port = address.rpartition(":")
    form = FORMS[3] if scheme == "rpc" else FORMS[4]
    if not rest.startswith("//") or not host or not _is_port(port) or bool(key) != (scheme == "tracker"):
        raise BadInput(f"'{spec}' is not a device address", "", f"write {form}")
    from .secret import secret_file

    return Endpoint(host, int(port), key or None, threads, secret_file=secret_file())


__all__ = ["Device", "Endpoint", "find_device"]
