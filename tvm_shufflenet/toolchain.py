"""The outside programs this project runs: where they are, and the command that installs each one that is missing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import ToolMissing
from .surroundings import CACHE, cache_path, make_folder

TVM_VERSION = "0.27.0.post1"
FFI_VERSION = "0.1.14.post1"
ZIG_CACHE = "ZIG_GLOBAL_CACHE_DIR"


@dataclass(frozen=True)
class Tool:
    """One requirement: ``path`` is None where it is missing; ``install`` is the command that brings it."""

    name: str
    purpose: str
    path: str | None
    install: str


def apt(*packages: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def cache_dir() -> Path:
    """Where built helpers (device server, plugin, downloaded runtimes) live between runs. Raises Unusable."""
    return make_folder(cache_path(), "the cache", CACHE)


def _program(name: str, purpose: str, variable: str, find: Callable[[], str | None], install: str) -> Tool:
    """The program that the environment's ``variable`` names, missing if that is none; without it, what is found."""
    override = os.environ.get(variable)
    if not override:
        return Tool(name, purpose, find(), install)
    return Tool(name, purpose, shutil.which(override), f"correct or unset {variable}; without it: {install}")


def find_qemu() -> Tool:
    return _program(
        "qemu-aarch64",
        "runs arm64 code on the emulated device",
        "TVM_SHUFFLENET_QEMU",
        lambda: shutil.which("qemu-aarch64"),
        apt("qemu-user"),
    )


def _version_line(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    return done.stdout.partition("\n")[0]


def qemu_version() -> tuple[int, int]:
    """Major and minor version of the QEMU that is found. Raises ToolMissing where there is none, or it does not say."""
    qemu = find_qemu()
    program = require(qemu)
    line = _version_line(program)
    found = re.search(r"version (\d+)\.(\d+)", line)
    if found is None:
        what = f"{program} does not say which version of QEMU it is: {line or 'no output'}"
        raise ToolMissing(what, "it is another program", qemu.install)
    return int(found[1]), int(found[2])


def find_llvm_mca() -> Tool:
    """The newest llvm-mca at or above 19, the first that can skip instructions it has no model of."""
    return _program(
        "llvm-mca",
        "cycles of a block on a named core",
        "TVM_SHUFFLENET_LLVM_MCA",
        lambda: newest("llvm-mca"),
        apt("llvm-22"),
    )


def find_llvm_mc() -> Tool:
    return _program(
        "llvm-mc",
        "disassembles executed blocks",
        "TVM_SHUFFLENET_LLVM_MC",
        lambda: newest("llvm-mc"),
        apt("llvm-22"),
    )


def find_llvm_objcopy() -> Tool:
    return _program(
        "llvm-objcopy",
        "makes a static library's own symbols local",
        "TVM_SHUFFLENET_LLVM_OBJCOPY",
        lambda: newest("llvm-objcopy"),
        apt("llvm-22"),
    )


def newest(program: str, minimum: int = 19) -> str | None:
    """``program-N`` of the highest N on PATH, from ``minimum`` on."""
    found = {}
    for folder in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        with contextlib.suppress(OSError):  # no folder, or one that only others may read
            for name in os.listdir(folder):
                version, path = re.fullmatch(rf"{re.escape(program)}-(\d+)", name), os.path.join(folder, name)
                if version and int(version[1]) >= minimum and os.access(path, os.X_OK):
                    found.setdefault(int(version[1]), path)
    return found[max(found)] if found else None


def find_sysroot() -> Tool:
    """A folder with the arm64 C and C++ runtime libraries under ``lib``; qemu takes it as ``-L``."""
    path = os.environ.get("TVM_SHUFFLENET_SYSROOT", "/usr/aarch64-linux-gnu")
    complete = all(
        os.path.exists(f"{path}/lib/{name}") for name in ("libc.so.6", "libstdc++.so.6", "ld-linux-aarch64.so.1")
    )
    install = apt("libc6-arm64-cross", "libstdc++6-arm64-cross")
    return Tool("arm64 sysroot", "C and C++ libraries for the emulated device", path if complete else None, install)


def find_zig() -> Tool:
    """The zig that the ziglang package carries: compiler and linker for every target."""
    return _program(
        "zig",
        "cross compiler and linker",
        "TVM_SHUFFLENET_ZIG",
        _packaged_zig,
        f"{sys.executable} -m pip install ziglang",
    )


def zig_program() -> str:
    """The path of zig, which keeps what it builds (C libraries of targets) in our cache: its own choice is below HOME.

    Raises ToolMissing, Unusable.
    """
    program = require(find_zig())
    if not os.environ.get(ZIG_CACHE):
        os.environ[ZIG_CACHE] = str(cache_dir() / "zig")
    return program


def _packaged_zig() -> str | None:
    import importlib.util

    spec = importlib.util.find_spec("ziglang")
    path = Path(spec.origin).parent / "zig" if spec and spec.origin else None
    return str(path) if path and path.exists() else None


def find_host_cc() -> Tool:
    path = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    return Tool("C compiler", "builds the counting plugin", path, apt("gcc", "libc6-dev"))


def find_ssh() -> Tool:
    return Tool("ssh", "reaches a board to deploy to", shutil.which("ssh"), apt("openssh-client"))


def find_adb() -> Tool:
    return Tool("adb", "reaches a phone to deploy to", shutil.which("adb"), apt("adb"))


def find_cmake() -> Tool:
    purpose = "configures TVM's runtime for Android"
    return Tool("cmake", purpose, shutil.which("cmake"), f"{sys.executable} -m pip install cmake")


def require(tool: Tool) -> str:
    """The tool's path. Raises ToolMissing, with the install command, where there is none."""
    if tool.path is None:
        raise ToolMissing(
            f"{tool.name} is missing ({tool.purpose})", "it is not installed or not on PATH", tool.install
        )
    return tool.path


def all_tools() -> list[Tool]:
    return [find_zig(), find_qemu(), find_sysroot(), find_llvm_mca(), find_llvm_mc(), find_host_cc()]
