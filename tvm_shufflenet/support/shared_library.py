"""Builds shared libraries of one C file at first use, for this machine or for an arm64 guest under QEMU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import toolchain
from .cached_build import cached_build
from .processes import run_compiler

FLAGS = ("-O3", "-s", "-shared", "-fPIC", "-Wall")


def host_library(source: Path, *options: str, headers: Sequence[Path] = ()) -> Path:
    """Built with the host's C compiler, or with zig where there is none. Raises ToolMissing, LinkFailed."""
    host_cc, zig = toolchain.find_host_cc(), toolchain.find_zig()
    zig_instead = host_cc.path is None and zig.path is not None
    command = [toolchain.zig_program(), "cc"] if zig_instead else [toolchain.require(host_cc)]
    return _shared_library(source, [*command, *options], headers, host_cc.install)


def guest_library(source: Path) -> Path:
    """Built with zig for arm64. Raises ToolMissing, LinkFailed."""
    command = [toolchain.zig_program(), "cc", "-target", "aarch64-linux-gnu.2.28", "-fno-builtin"]
    return _shared_library(source, command, (), toolchain.find_zig().install)


def _shared_library(source: Path, command: list[str], headers: Sequence[Path], install: str) -> Path:
    folders = dict.fromkeys(str(header.parent) for header in headers)
    command = [*command, *FLAGS, *(word for folder in folders for word in ("-iquote", folder))]

    def build(library: Path) -> None:
        full = [*command, "-o", str(library), str(source)]
        run_compiler(full, f"{source.name} did not build:\n", "the C compiler is incomplete", install)

    texts = [path.read_bytes() for path in (source, *headers)]
    return cached_build(f"{source.stem}.so", [*texts, *command], build)
