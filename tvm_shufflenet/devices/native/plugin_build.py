"""The two helpers of the emulated device that are built at first use: the counting plugin, and the guest's heap."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ... import toolchain
from ...errors import LinkFailed
from .cached_build import cached_build

HERE = Path(__file__).parent
FLAGS = ("-O3", "-shared", "-fPIC", "-Wall")


def plugin_library() -> Path:
    """The plugin as a shared library of this machine, for qemu's ``-plugin``.

    Built with the host's C compiler, or with zig where there is none. Raises ToolMissing, LinkFailed.
    """
    host_cc, zig = toolchain.find_host_cc(), toolchain.find_zig()
    command = [zig.path, "cc"] if host_cc.path is None and zig.path else [toolchain.require(host_cc)]
    # Symbols of the plugin interface stay open: they are in qemu's own executable.
    return _shared_library("plugin", [*command, "-fvisibility=hidden"], host_cc.install)


def guest_heap_library() -> Path:
    """The heap that is preloaded into the device server, as an arm64 shared library. Raises ToolMissing, LinkFailed."""
    zig = toolchain.find_zig()
    command = [toolchain.require(zig), "cc", "-target", "aarch64-linux-gnu.2.28", "-fno-builtin"]
    return _shared_library("guest_heap", command, zig.install)


def _shared_library(name: str, command: list[str], install: str) -> Path:
    source = HERE / f"{name}.c"
    command = [*command, *FLAGS]

    def build(library: Path) -> None:
        done = subprocess.run([*command, "-o", str(library), str(source)], capture_output=True, text=True)
        if done.returncode != 0:
            last_lines = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise LinkFailed(f"{source.name} did not build:\n{last_lines}", "the C compiler is incomplete", install)

    return cached_build(f"{name}.so", [source.read_bytes(), *command], build)
