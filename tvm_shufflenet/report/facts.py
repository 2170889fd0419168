"""The conditions that figures depend on beside the network, for pages and for summaries."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence

from ..devices.facts import DeviceFacts
from ..support.host import host_facts

PACKAGES = ("tvm-shufflenet", "apache-tvm", "torch")


def setting_facts(device: DeviceFacts, target: str, threads: int) -> tuple[tuple[str, str], ...]:
    """Words for each fact about where and with what a figure was made."""
    error, clock = device.model_error_percent, str(device.kind)
    if device.is_modelled:
        clock += ", not calibrated" if error is None else f", {error:.1f} % off on average"
    facts = [("target", target), ("device", device.name), ("clock", clock), ("threads", str(threads))]
    if device.name == "local":
        host = host_facts()
        facts.append(("this machine", f"{host['cpu']}, {host['cpus']} CPUs, {host['system']}"))
    own = [(name, importlib.metadata.version(name)) for name in PACKAGES]
    return (*facts, ("made with", _versions(own)), ("date", _now()))


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(sep=" ", timespec="minutes")


def _versions(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in (*pairs, ("Python", platform.python_version())))
