"""Devices: this machine, an emulated Cortex-A, a board at an address, any board at a tracker."""

from __future__ import annotations

from ..errors import BadInput, UnknownName
from ..targets import Target, find_core
from .base import Device, Endpoint

FORMS = ("local", "emulated", "emulated:CORE", "rpc://HOST:PORT", "tracker://HOST:PORT/KEY")


def find_device(spec: str | None, target: Target, threads: int = 1, match: bool = True) -> Device:
    """The device that ``--device`` names; with none, this machine for its own target, else the emulated core.

    Raises UnknownName for a word that is no device or core, and with ``match`` BadInput for a device that cannot run
    the target's code.
    """
    if spec is None:
        spec = "emulated" if target.core else "local"
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
        from .emulated_device import EmulatedDevice

        core = find_core(rest or target.core or "cortex-a72")
        if threads > core.cores:
            what = f"the emulated {core.name} has {core.cores} cores"
            raise BadInput(what, f"--threads {threads}", f"use --threads {core.cores} or fewer")
        return EmulatedDevice(core, threads)
    if scheme in ("rpc", "tracker"):
        from .remote import RemoteDevice

        return RemoteDevice(spec, _endpoint(spec, scheme, rest, threads), target.machine)
    raise UnknownName("device", spec, FORMS)


def _endpoint(spec: str, scheme: str, rest: str, threads: int) -> Endpoint:
    address, _, key = rest.removeprefix("//").partition("/")
    host, _, port = address.rpartition(":")
    form = FORMS[3] if scheme == "rpc" else FORMS[4]
    valid = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not rest.startswith("//") or not host or not valid or bool(key) != (scheme == "tracker"):
        raise BadInput(f"'{spec}' is not a device address", "", f"write {form}")
    from .secret import secret_file

    return Endpoint(host, int(port), key or None, threads, secret_file=secret_file())


__all__ = ["Device", "Endpoint", "find_device"]
