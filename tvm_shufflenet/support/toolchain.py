"""The external programs that this project runs: where they are, and how to install a missing one."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolMissing
from .activity import announce
from .surroundings import CACHE, cache_path, make_folder

TVM_VERSION = "0.27.0.post1"
FFI_VERSION = "0.1.14.post1"
IN_USE = "in-use"  # in the cache: a lock that every process holds that has looked into it
ZIG_CACHE = "ZIG_GLOBAL_CACHE_DIR"


LLVM = "llvm-22"  # the package of the newest LLVM, where the system has it
LLVM_RELEASES = range(19, 31)


@dataclass(frozen=True)
class Tool:
    """One requirement: ``path`` is None where it is missing; ``install`` is the command that brings it, of Debian's
    ``packages`` where it is one of apt's.
    """

    name: str
    purpose: str
    path: str | None
    install: str
    packages: tuple[str, ...] = ()


def apt(*packages: str) -> str:
    """The command that installs them, or, where there is no apt, what to install."""
    if _of_the_system("apt-get") is None:
        return f"install what Debian calls {', '.join(packages)} by this system's package manager"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def _of_the_system(program: str) -> str | None:
    """A program that is there even where PATH leaves its folder out."""
    return shutil.which(program) or shutil.which(program, path="/usr/bin:/bin")


def _missing(name: str, purpose: str, packages: tuple[str, ...], prefix: str = "") -> Tool:
    """A tool that is missing, with packages that there are: releases have other versions of LLVM."""
    if LLVM in packages:
        newest = _newest_llvm_package()
        if newest is None:
            install = "LLVM 19 or newer is not among this system's packages: https://apt.llvm.org has it"
            return Tool(name, purpose, None, prefix + install)
        packages = tuple(newest if package == LLVM else package for package in packages)
    return Tool(name, purpose, None, prefix + apt(*packages), packages)


@functools.cache
def _newest_llvm_package() -> str | None:
    """The newest that apt knows of; where it cannot be asked, or has no lists of packages, our own choice."""
    names = [f"llvm-{release}" for release in LLVM_RELEASES]
    try:
        done = subprocess.run(
            [_of_the_system("apt-cache") or "apt-cache", "policy", "gcc", *names],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=30, env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return LLVM
    known = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", done.stdout, re.MULTILINE)
    if "gcc" not in known:
        return LLVM
    return next((name for name in reversed(names) if name in known), None)


def cache_dir() -> Path:
    """Where built helpers (device server, plugin, downloaded runtimes) live between runs. Raises Unusable."""
    path = make_folder(cache_path(), "the cache", CACHE)
    _hold(path / IN_USE)
    return path


@functools.cache
def _hold(lock: Path) -> object:
    """As long as this process lives, ``clean`` leaves the cache alone."""
    with contextlib.suppress(OSError):  # a full disk, a file system without locks
        held = open(lock, "a")  # noqa: SIM115
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return held


def _program(name: str, purpose: str, variable: str, find: Callable[[], str | None], *packages: str) -> Tool:
    """The program that the environment's ``variable`` names, missing if that is none; without it, what is found."""
    override = os.environ.get(variable)
    path = shutil.which(override) if override else find()
    if path is not None:
        return Tool(name, purpose, path, apt(*packages), packages)
    return _missing(name, purpose, packages, f"correct or unset {variable}; without it: " if override else "")


def find_qemu() -> Tool:
    return _program(
        "qemu-aarch64",
        "runs arm64 code on the emulated device",
        "TVM_SHUFFLENET_QEMU",
        lambda: shutil.which("qemu-aarch64"),
        "qemu-user",
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
        LLVM,
    )


def find_llvm_mc() -> Tool:
    return _program(
        "llvm-mc",
        "disassembles executed blocks",
        "TVM_SHUFFLENET_LLVM_MC",
        lambda: newest("llvm-mc"),
        LLVM,
    )


def find_llvm_objcopy() -> Tool:
    return _program(
        "llvm-objcopy",
        "makes a static library's own symbols local",
        "TVM_SHUFFLENET_LLVM_OBJCOPY",
        lambda: newest("llvm-objcopy"),
        LLVM,
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
    packages = ("libc6-arm64-cross", "libstdc++6-arm64-cross")
    purpose = "C and C++ libraries for the emulated device"
    return Tool("arm64 sysroot", purpose, path if complete else None, apt(*packages), packages)


def find_zig() -> Tool:
    """The zig that the ziglang package carries: compiler and linker for every target."""
    variable, install = "TVM_SHUFFLENET_ZIG", f"{sys.executable} -m pip install ziglang"
    override = os.environ.get(variable)
    path = shutil.which(override) if override else _packaged_zig()
    install = f"correct or unset {variable}; without it: {install}" if override else install
    return Tool("zig", "cross compiler and linker", path, install, ("ziglang",))


def zig_program() -> str:
    """The path of zig, which keeps what it builds (C libraries of targets) in our cache: its own choice is below HOME.

    Raises ToolMissing, Unusable.
    """
    program = require(find_zig())
    if not os.environ.get(ZIG_CACHE):
        folder = cache_dir() / "zig"
        if not folder.exists():
            announce("zig builds the C library of a target when it first links for it (once)")
        os.environ[ZIG_CACHE] = str(folder)
    return program


def _packaged_zig() -> str | None:
    import importlib.util

    spec = importlib.util.find_spec("ziglang")
    path = Path(spec.origin).parent / "zig" if spec and spec.origin else None
    return str(path) if path and path.exists() else None


def find_host_cc() -> Tool:
    path = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    packages = ("gcc", "libc6-dev")
    return Tool("C compiler", "builds the counting plugin, as zig does too", path, apt(*packages), packages)


def find_ssh() -> Tool:
    return Tool("ssh", "reaches a board to deploy to", shutil.which("ssh"), apt("openssh-client"), ("openssh-client",))


def find_adb() -> Tool:
    return Tool("adb", "reaches a phone to deploy to", shutil.which("adb"), apt("adb"), ("adb",))


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
    return [find_zig(), *emulation_tools()]


def emulation_tools() -> list[Tool]:
    """What emulated cores need beside zig."""
    return [find_qemu(), find_sysroot(), find_llvm_mca(), find_llvm_mc(), find_host_cc()]
