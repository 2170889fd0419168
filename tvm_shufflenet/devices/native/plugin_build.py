"""Helpers of the emulated device that are built at first use: the counting plugin, the guest's heap, its rehearsal,
what lets llvm-mca be forked.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from ... import toolchain
from ...errors import LinkFailed, ToolMissing
from .cached_build import cached_build

HERE = Path(__file__).parent
FLAGS = ("-O3", "-s", "-shared", "-fPIC", "-Wall")
HEADERS = ("landlock.h", "system_calls.h")


# From which QEMU on which version of the plugin interface is spoken (its include/qemu/qemu-plugin.h says what changed).
PLUGIN_API = {(6, 0): 1, (9, 0): 2, (9, 1): 3}
NEWEST_QEMU = (10, 99)


def plugin_library() -> Path:
    """The plugin as a shared library of this machine, for the plugin interface of the QEMU that will load it.

    Raises ToolMissing, LinkFailed.
    """
    api = _plugin_api(toolchain.qemu_version())
    # Symbols of the plugin interface stay open: they are in qemu's own executable.
    return _host_library("plugin", "-fvisibility=hidden", f"-DPLUGIN_API={api}")


def _plugin_api(version: tuple[int, int]) -> int:
    known = [api for since, api in PLUGIN_API.items() if since <= version <= NEWEST_QEMU]
    if not known:
        raise ToolMissing(
            f"{toolchain.require(toolchain.find_qemu())} is QEMU {'.'.join(map(str, version))}",
            f"its plugin interface is not known here: QEMU {min(PLUGIN_API)[0]} to {NEWEST_QEMU[0]} are",
            f"install one of these, or name one in TVM_SHUFFLENET_QEMU; Debian's: {toolchain.apt('qemu-user')}",
        )
    return known[-1]


def fork_server_library() -> Path:
    """What is preloaded into a program of this machine to fork it (devices/mca.py). Raises ToolMissing, LinkFailed."""
    return _host_library("fork_server")


def guest_heap_library() -> Path:
    """The heap that is preloaded into the device server, as an arm64 shared library. Raises ToolMissing, LinkFailed."""
    return _guest_library("guest_heap")


def rehearsal_library() -> Path:
    """What a rehearsal runs (devices/rehearsal.py), as an arm64 shared library. Raises ToolMissing, LinkFailed."""
    return _guest_library("rehearsal")


def _host_library(name: str, *options: str) -> Path:
    """Built with the host's C compiler, or with zig where there is none."""
    host_cc, zig = toolchain.find_host_cc(), toolchain.find_zig()
    zig_instead = host_cc.path is None and zig.path is not None
    command = [toolchain.zig_program(), "cc"] if zig_instead else [toolchain.require(host_cc)]
    return _shared_library(name, [*command, *options], host_cc.install)


def _guest_library(name: str) -> Path:
    command = [toolchain.zig_program(), "cc", "-target", "aarch64-linux-gnu.2.28", "-fno-builtin"]
    return _shared_library(name, command, toolchain.find_zig().install)


def _shared_library(name: str, command: list[str], install: str) -> Path:
    source = HERE / f"{name}.c"
    command = [*command, *FLAGS]

    def build(library: Path) -> None:
        done = subprocess.run([*command, "-o", str(library), str(source)], capture_output=True, text=True)
        if done.returncode != 0:
            last_lines = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise LinkFailed(f"{source.name} did not build:\n{last_lines}", "the C compiler is incomplete", install)

    headers = [(HERE / header).read_bytes() for header in HEADERS]
    return cached_build(f"{name}.so", [source.read_bytes(), *headers, *command], build)
