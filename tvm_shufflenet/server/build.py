"""Builds the device server and TVM's runtime, for this machine and for arm64.

``server_binary`` builds the server at first use, ``runtime_libs`` finds or downloads the runtime, ``server_bundle``
writes both into one folder to copy to a board that has no Python. Nothing here imports TVM, which takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import BadInput, ToolMissing
from ..hardware.targets import host_machine
from ..licences.texts import texts_for_server, write_texts
from ..locks import lock, locked
from ..support import toolchain
from ..support.cached_build import cached_build
from ..support.elf import HEADER_BYTES, machine_of
from ..support.processes import run_compiler, run_installer

NATIVE = Path(__file__).parent / "native"
SERVER_SOURCE = "server.cc"
SOURCES = (
    SERVER_SOURCE,
    "options.cc",
    "tracker.cc",
    "session.cc",
    "modelled_timer.cc",
    "modelled_cores.cc",
    "random_fill.cc",
    "fill_digest.cc",
    "features.cc",
    "gate.cc",
    "folders.cc",
    "keeper.cc",
    "sandbox.cc",
    "seccomp.cc",
    "sha256.cc",
)
HEADERS = (
    "net.h",
    "options.h",
    "tracker.h",
    "session.h",
    "modelled_timer.h",
    "modelled_cores.h",
    "random_fill.h",
    "fill_digest.h",
    "features.h",
    "gate.h",
    "folders.h",
    "keeper.h",
    "landlock.h",
    "sandbox.h",
    "seccomp.h",
    "system_calls.h",
    "sha256.h",
)
SERVER = "tvm_shufflenet_server"
# Raised whenever this project comes to expect something of the server that an older one does not do.
SERVER_VERSION = 3
LIBS = ("libtvm_runtime.so", "libtvm_ffi.so")

# 2.28 is the oldest glibc that TVM's own wheels run on, so the server adds no demand of its own.
GLIBC = "2.28"
FLAGS = ("-std=c++17", "-O2", "-s", "-Wall", "-Wextra", "-Wl,-rpath,$ORIGIN")
# The program defines tvm::ffi::Error for its own C++ library, as the FFI's headers ask it to. Exported, that definition
# would replace the one inside TVM's libraries, which belongs to another C++ library, and every error would crash.
FLAGS += ("-fvisibility=hidden", "-DTVM_FFI_DLL=", "-DTVM_FFI_DLL_EXPORT=")
ARCHES = ("aarch64", "x86_64")
HOST_ARCH = host_machine()


def server_binary(arch: str) -> Path:
    """The server for ``arch`` ("aarch64" or "x86_64"), with the libraries it loads beside it, built if necessary.

    Raises LinkFailed with the compiler's last lines, ToolMissing where zig or the runtime cannot be had.
    """
    zig = toolchain.zig_program()
    libs = runtime_libs(arch)
    command = compile_server([zig, "c++", "-target", f"{arch}-linux-gnu.{GLIBC}"], libs)

    def build(folder: Path) -> None:
        folder.mkdir()
        for name in LIBS:
            shutil.copy(libs / name, folder)
        _run_compiler([*command, "-o", str(folder / SERVER)], arch)

    inputs = [(NATIVE / name).read_bytes() for name in SOURCES + HEADERS] + [
        (libs / name).read_bytes() for name in LIBS
    ]
    anywhere = [argument.replace(str(libs), "") for argument in command]  # a cache may lie elsewhere
    return cached_build(f"device-server-{arch}", [*inputs, *anywhere], build) / SERVER


def compile_server(compiler: list[str], libs: Path) -> list[str]:
    """The command that compiles the server by ``compiler`` and links it with ``libs``, but for its output."""
    return [
        *compiler,
        *FLAGS,
        *source_flags(),
        *one_unit(NATIVE / SERVER_SOURCE),
        *runtime_flags(libs),
    ]


def one_unit(program: Path) -> list[str]:
    """``program`` and all sources but the server's own main(), as one translation unit: most of a compiler's time goes
    into the headers of C++ and of the FFI.
    """
    return [*(f"-include{NATIVE / name}" for name in SOURCES if name != SERVER_SOURCE), str(program)]


def source_flags() -> list[str]:
    """What every compiler of these sources has to be told. Raises ToolMissing."""
    return [
        f"-DSERVER_VERSION={SERVER_VERSION}",
        f'-DTVM_VERSION="{toolchain.TVM_VERSION}"',
        f'-DFFI_VERSION="{toolchain.FFI_VERSION}"',
        *("-isystem", str(ffi_headers())),
    ]


def runtime_flags(libs: Path) -> list[str]:
    """What links the runtime in ``libs``, which the server reaches by name only."""
    return ["-Wl,--no-as-needed", *(str(libs / name) for name in LIBS)]


def server_bundle(arch: str, folder: Path) -> Path:
    """Writes the server and the libraries it loads to ``folder`` and returns the program's path there.

    The folder can be copied to any machine of that ``arch`` with glibc 2.28 or newer and libstdc++; the program finds
    its libraries beside itself.
    """
    built = server_binary(arch).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SERVER, *LIBS):
        shutil.copy(built / name, folder)
    write_texts(folder, texts_for_server(toolchain.find_zig().path))
    return folder / SERVER


def runtime_libs(arch: str) -> Path:
    """A folder with libtvm_runtime.so and libtvm_ffi.so for ``arch``, of exactly the versions this project pins.

    For this machine's own arch they come from the installed packages, for another one from that arch's wheels, or from
    the folder that TVM_SHUFFLENET_RUNTIME_AARCH64 (or ..._X86_64) names. Raises ToolMissing where they cannot be had.
    """
    if arch not in ARCHES:
        raise BadInput(f"there is no device server for '{arch}'", "", f"use one of {', '.join(ARCHES)}")
    variable = f"TVM_SHUFFLENET_RUNTIME_{arch.upper()}"
    if os.environ.get(variable):
        folder = Path(os.environ[variable])
        _check_machines(folder, arch, f"correct or unset {variable}")
        return folder
    versions = [toolchain.TVM_VERSION, toolchain.FFI_VERSION]
    collect = _copy_installed if arch == HOST_ARCH else _download
    libs = cached_build(f"tvm-runtime-{arch}", versions, lambda folder: collect(arch, folder))
    _check_machines(libs, arch, f"remove {libs} and run this again")
    return libs


def _pins() -> dict[str, str]:
    return {"apache-tvm": toolchain.TVM_VERSION, "apache-tvm-ffi": toolchain.FFI_VERSION}


def _requirements() -> list[str]:
    return [f"{name}=={version}" for name, version in _pins().items()]


def package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ToolMissing(f"the Python package '{name}' is missing", "", _install_command())
    return Path(spec.origin).parent


def ffi_headers() -> Path:
    """The C++ headers of TVM's FFI. Raises ToolMissing."""
    return package_folder("tvm_ffi") / "include"


def _install_command() -> str:
    return " ".join([sys.executable, "-m", "pip", "install", *_requirements()])


def _copy_installed(arch: str, folder: Path) -> None:
    for name, wanted in _pins().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            what = f"{name} {wanted} is needed, found: {found}"
            raise ToolMissing(what, "another version was installed", _install_command())
    folder.mkdir()
    for package, name in (("tvm", LIBS[0]), ("tvm_ffi", LIBS[1])):
        shutil.copy(package_folder(package) / "lib" / name, folder)


def _download(arch: str, folder: Path) -> None:
    """Only the two libraries are kept: 5 MB of almost 100."""
    folder.mkdir()
    download = f"pip download --no-deps --only-binary=:all: --platform manylinux_2_28_{arch} --require-hashes"
    with tempfile.TemporaryDirectory() as wheels:
        pins = Path(wheels, "requirements.txt")
        pins.write_text(locked("runtime", tuple(_requirements())))
        options = ["--requirement", str(pins), "--disable-pip-version-check", "--dest", wheels]
        command = [sys.executable, "-m", *download.split(), *options]
        run_installer(
            command,
            f"TVM's runtime for {arch} could not be downloaded",
            f"{download} -r {lock('runtime')} on a machine with a network, unpack {' and '.join(LIBS)} into one "
            f"folder and set TVM_SHUFFLENET_RUNTIME_{arch.upper()} to it",
        )
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if Path(member).name in LIBS:
                        (folder / Path(member).name).write_bytes(archive.read(member))


def _check_machines(folder: Path, arch: str, next_step: str) -> None:
    for name in LIBS:
        try:
            with open(folder / name, "rb") as lib:
                header = lib.read(HEADER_BYTES)
        except OSError as exc:
            raise ToolMissing(f"TVM's runtime for {arch} is incomplete: {exc}", "", next_step) from exc
        if machine_of(header) != arch:
            what = f"{folder / name} is not a library for {arch}"
            raise ToolMissing(what, "it is damaged or of another machine", next_step)


def _run_compiler(command: list[str], arch: str) -> None:
    run_compiler(
        command,
        f"the device server for {arch} did not build:\n",
        "the ziglang package is damaged or of an untested version",
        f"{sys.executable} -m pip install --force-reinstall ziglang",
    )
