"""Builds the device server and TVM's runtime for Android's C library, with Android's NDK.

TVM's wheels hold a runtime for glibc alone, and not all of the headers to build another: that takes TVM's source tree,
of the very version that is installed here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import LinkFailed, ToolMissing
from ..licences.texts import FOLDER as LICENCES
from ..licences.texts import texts_for_server, write_texts
from ..support import toolchain
from ..support.cached_build import cached_build
from ..text import last_lines
from .build import HEADERS, LIBS, NATIVE, SERVER, SOURCES, compile_server, ffi_headers, package_folder

NDK, SOURCE = "ANDROID_NDK_HOME", "TVM_HOME"
API = 28  # of Android 9, the first with getrandom
TRIPLE, ABI = "aarch64-linux-android", "arm64-v8a"
# More than one library of C++: the NDK wants them to share one.
LIBCXX = "libc++_shared.so"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "ANDROID_ABI": ABI,
    "ANDROID_PLATFORM": f"android-{API}",
    "ANDROID_STL": "c++_shared",
    "USE_LLVM": "OFF",
    "TVM_FFI_USE_LIBBACKTRACE": "OFF",  # its configure script knows nothing of Android
}
FFI_SOURCE = "3rdparty/tvm-ffi"
INSTEAD = "without them, tvm-shufflenet deploy --to adb measures on a phone with nothing built: docs/android.md"


def server_bundle(folder: Path) -> Path:
    """Writes the server and the libraries it loads to ``folder`` and returns the program's path there.

    For arm64 and Android 9 or newer. Raises ToolMissing where ANDROID_NDK_HOME or TVM_HOME name nothing that serves,
    LinkFailed with the log's path where the build fails.
    """
    ndk, source = _folder(NDK, "Android's NDK"), _folder(SOURCE, "the source tree of TVM")
    cmake, compiler, libcxx = toolchain.require(toolchain.find_cmake()), *_parts(ndk)
    versions = _check_versions(source)
    log = toolchain.cache_dir() / "android-server.log"

    def build(target: Path) -> None:
        target.mkdir()
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-") as work:
            _run([cmake, "-S", str(source), "-B", work, *_definitions(ndk)], log)
            _run([cmake, "--build", work, "--target", "tvm_runtime", "--parallel"], log)
            for name in LIBS:
                shutil.copy(_built(Path(work), name, log), target)
        shutil.copy(libcxx, target)
        _run([*compile_server([str(compiler)], target), "-o", str(target / SERVER)], log)

    inputs = [(NATIVE / name).read_bytes() for name in SOURCES + HEADERS]
    settings = [*versions, str(source), (ndk / "source.properties").read_text(), *_definitions(ndk)]
    settings += compile_server([str(compiler)], Path())
    built = cached_build("device-server-android", [*inputs, *settings], build)
    shutil.copytree(built, folder, dirs_exist_ok=True)
    texts = texts_for_server(None)
    if (ndk / "NOTICE").is_file():  # of its library of C++, among all else that it holds
        texts[f"{LICENCES}/android-ndk-NOTICE.txt"] = (ndk / "NOTICE").read_bytes()
    write_texts(folder, texts)
    return folder / SERVER


def _folder(variable: str, what: str) -> Path:
    path = os.environ.get(variable)
    if not path:
        raise ToolMissing(f"{variable} is not set: where {what} is", "", f"set it; {INSTEAD}")
    if not Path(path).is_dir():
        raise ToolMissing(f"{variable} names {path}, which is no folder", "", f"correct it; {INSTEAD}")
    return Path(path).resolve()


def _toolchain_file(ndk: Path) -> Path:
    return ndk / "build/cmake/android.toolchain.cmake"


def _parts(ndk: Path) -> tuple[Path, Path]:
    """The NDK's compiler of C++ and its library. Raises ToolMissing for an NDK that lacks a part."""
    host = next(iter(sorted(ndk.glob("toolchains/llvm/prebuilt/*"))), ndk / "toolchains/llvm/prebuilt/linux-x86_64")
    compiler = host / "bin" / f"{TRIPLE}{API}-clang++"
    libcxx = host / "sysroot/usr/lib" / TRIPLE / LIBCXX
    for part in (_toolchain_file(ndk), compiler, libcxx, ndk / "source.properties"):
        if not part.is_file():
            raise ToolMissing(f"the NDK lacks {part}", f"{NDK} names another folder, or an NDK before r23", INSTEAD)
    return compiler, libcxx


def _check_versions(source: Path) -> list[str]:
    """The versions of TVM and of its FFI that the tree is of. Raises ToolMissing for others than those installed."""
    trees = ((source / "include", source / FFI_SOURCE / "include"), installed_headers())
    theirs, ours = (_versions(*tree) for tree in trees)
    for name, found, wanted in zip(("TVM", "TVM's FFI"), theirs, ours, strict=True):
        if found != wanted:
            clone = f"git clone --recursive --branch v{ours[0]} https://github.com/apache/tvm"
            what = f"{source} is of {'version ' + found if found else 'no version'} of {name}, {wanted} is needed"
            raise ToolMissing(what, f"{SOURCE} is another release, or a clone without its submodules", clone)
    return theirs


def installed_headers() -> tuple[Path, Path]:
    return package_folder("tvm") / "include", ffi_headers()


def _versions(tvm: Path, ffi: Path) -> list[str]:
    """What two folders of headers say they are, empty where they do not say."""
    found = []
    for header, pattern in (
        (tvm / "tvm/runtime/base.h", r'#define TVM_VERSION "([^"]+)"'),
        (ffi / "tvm/ffi/c_api.h", r"#define TVM_FFI_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)"),
    ):
        found.append(".".join(re.findall(pattern, header.read_text())) if header.is_file() else "")
    return found


def _definitions(ndk: Path) -> list[str]:
    options = {"CMAKE_TOOLCHAIN_FILE": str(_toolchain_file(ndk)), **OPTIONS}
    return [f"-D{name}={value}" for name, value in options.items()]


def _built(work: Path, name: str, log: Path) -> Path:
    found = next(work.rglob(name), None)
    if found is None:
        raise LinkFailed(f"the target tvm_runtime built no {name}", f"{SOURCE} is not TVM's tree", f"see {log}")
    return found


def _run(command: list[str], log: Path) -> None:
    """What it prints goes to the end of ``log``."""
    with open(log, "a") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        said = last_lines(log.read_text(errors="replace"))
        raise LinkFailed(f"{command[0]} failed:\n{said}", "the log has the first error", f"see {log}; {INSTEAD}")
