"""Builds the native helpers of the emulated device at first use: counting plugin, guest heap, rehearsal."""

from __future__ import annotations

from pathlib import Path

from ..errors import ToolMissing
from ..server.build import NATIVE as SERVER_NATIVE
from ..support import toolchain
from ..support.shared_library import guest_library, host_library

NATIVE = Path(__file__).parent / "native"
HEADERS = tuple(SERVER_NATIVE / name for name in ("landlock.h", "system_calls.h"))


# From which QEMU on which version of the plugin interface is spoken (its include/qemu/qemu-plugin.h says what changed).
PLUGIN_API = {(6, 0): 1, (9, 0): 2, (9, 1): 3}
NEWEST_QEMU = (10, 99)


def plugin_library() -> Path:
    """The plugin as a shared library of this machine, for the plugin interface of the QEMU that will load it.

    Raises ToolMissing, LinkFailed.
    """
    api = _plugin_api(toolchain.qemu_version())
    # Symbols of the plugin interface stay open: they are in qemu's own executable.
    return host_library(NATIVE / "plugin.c", "-fvisibility=hidden", f"-DPLUGIN_API={api}", headers=HEADERS)


def _plugin_api(version: tuple[int, int]) -> int:
    known = [api for since, api in PLUGIN_API.items() if since <= version <= NEWEST_QEMU]
    if not known:
        raise ToolMissing(
            f"{toolchain.require(toolchain.find_qemu())} is QEMU {'.'.join(map(str, version))}",
            f"its plugin interface is not known here: QEMU {min(PLUGIN_API)[0]} to {NEWEST_QEMU[0]} are",
            f"install one of these, or name one in TVM_SHUFFLENET_QEMU; Debian's: {toolchain.apt('qemu-user')}",
        )
    return known[-1]


def guest_heap_library() -> Path:
    """The heap that is preloaded into the device server, as an arm64 shared library. Raises ToolMissing, LinkFailed."""
    return guest_library(NATIVE / "guest_heap.c")


def rehearsal_library() -> Path:
    """What a rehearsal runs (devices/rehearsal.py), as an arm64 shared library. Raises ToolMissing, LinkFailed."""
    return guest_library(NATIVE / "rehearsal.c")
