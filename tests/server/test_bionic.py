"""The device server for Android's C library: how it is built, with stand-ins for the NDK and for TVM's source tree.

The stand-in of the NDK is zig, for glibc, behind the names that the NDK's parts have; that of TVM's tree has its
targets, its headers with their versions, and libraries that are empty but for the names that they export.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.cross import zig_cc
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.errors import LinkFailed, ToolMissing
from tvm_shufflenet.library.link import elf_machine
from tvm_shufflenet.server import bionic, build
from tvm_shufflenet.support import toolchain

pytestmark = pytest.mark.skipif(
    any(tool.path is None for tool in (toolchain.find_zig(), toolchain.find_cmake())), reason="missing: zig or cmake"
)

TOOLCHAIN = """
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER ${CMAKE_CURRENT_LIST_DIR}/../../toolchains/llvm/prebuilt/linux-x86_64/bin/clang)
set(CMAKE_C_COMPILER_WORKS 1)
"""

TREE = """
cmake_minimum_required(VERSION 3.18)
project(tvm C)
if(NOT ANDROID_ABI STREQUAL "arm64-v8a" OR NOT ANDROID_STL STREQUAL "c++_shared" OR USE_LLVM)
  message(FATAL_ERROR "for ${ANDROID_ABI} with ${ANDROID_STL} and LLVM ${USE_LLVM}")
endif()
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
add_library(tvm_ffi_shared SHARED ffi.c)
set_target_properties(tvm_ffi_shared PROPERTIES OUTPUT_NAME tvm_ffi)
add_library(tvm_runtime SHARED runtime.c)
target_link_libraries(tvm_runtime PUBLIC tvm_ffi_shared)
add_library(tvm_compiler SHARED compiler.c)
"""


def symbols(library: Path, which: str) -> list[str]:
    shown = subprocess.run(["nm", "-D", which, library], capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in shown.splitlines()]


def program(path: Path, *command: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def ndk(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "ndk"
    host = folder / "toolchains/llvm/prebuilt/linux-x86_64"
    zig, _, *flags = zig_cc(f"aarch64-linux-gnu.{build.GLIBC}")
    program(host / "bin/clang", zig, "cc", *flags)
    program(host / f"bin/aarch64-linux-android{bionic.API}-clang++", zig, "c++", *flags)
    for name, text in (
        ("build/cmake/android.toolchain.cmake", TOOLCHAIN),
        ("source.properties", "Pkg.Revision = 27.0"),
        (f"toolchains/llvm/prebuilt/linux-x86_64/sysroot/usr/lib/aarch64-linux-android/{bionic.LIBCXX}", ""),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv(bionic.NDK, str(folder))
    return folder


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "tvm"
    tvm, ffi = bionic.installed_headers()
    shutil.copytree(tvm, folder / "include")
    shutil.copytree(ffi, folder / bionic.FFI_SOURCE / "include")
    (folder / "CMakeLists.txt").write_text(TREE)
    names = symbols(build.runtime_libs(build.HOST_ARCH) / "libtvm_ffi.so", "--defined-only")
    empty = "".join(f"void {name}(void) {{}}\n" for name in names if name.startswith("TVMFFI"))
    for name, text in (("ffi.c", empty), ("runtime.c", "int runtime;"), ("compiler.c", "#error not for a phone")):
        (folder / name).write_text(text)
    monkeypatch.setenv(bionic.SOURCE, str(folder))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Of this test alone, but for the runtime's own libraries."""
    libs = build.runtime_libs(build.HOST_ARCH)
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "runtime_libs", lambda arch: libs)


def test_the_bundle_is_the_server_with_its_libraries(ndk, source, tmp_path, capsys):
    bundle = tmp_path / "phone-server"
    assert main(["serve", "--bundle", str(bundle), "--android"]) == 0
    assert "adb push" in capsys.readouterr().out
    assert {path.name for path in bundle.iterdir()} == {build.SERVER, *build.LIBS, bionic.LIBCXX, "licences"}
    server = bundle / build.SERVER
    assert os.access(server, os.X_OK) and elf_machine(server) == "aarch64"
    assert "TVMFFIFunctionGetGlobal" in symbols(server, "--undefined-only")
    assert "TVMFFIFunctionGetGlobal" in symbols(bundle / "libtvm_ffi.so", "--defined-only")
    if toolchain.find_qemu().path and toolchain.find_sysroot().path:
        command = [toolchain.find_qemu().path, "-L", toolchain.find_sysroot().path, str(server), "--help"]
        assert "--secret-file" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (source / "CMakeLists.txt").unlink()
    assert main(["serve", "--bundle", str(tmp_path / "again"), "--android"]) == 0, "it is built once"


@pytest.mark.parametrize("variable", [bionic.NDK, bionic.SOURCE])
def test_without_either_the_static_benchmark_is_the_way(ndk, source, monkeypatch, capsys, tmp_path, variable):
    for value in (None, str(tmp_path / "nowhere")):
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
        assert main(["serve", "--bundle", str(tmp_path / "bundle"), "--android"]) == 3
        error = capsys.readouterr().err
        assert variable in error and "deploy --to adb" in error and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "part", ["build/cmake/android.toolchain.cmake", "toolchains/llvm/prebuilt/linux-x86_64/bin", "source.properties"]
)
def test_an_ndk_that_lacks_a_part(ndk, source, tmp_path, part):
    (ndk / part).rename(tmp_path / "away")
    with pytest.raises(ToolMissing, match="the NDK lacks"):
        bionic.server_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("header", "old", "new", "said"),
    [
        (
            "include/tvm/runtime/base.h",
            '#define TVM_VERSION "0.27.0"',
            '#define TVM_VERSION "0.26.0"',
            "version 0.26.0",
        ),
        (f"{bionic.FFI_SOURCE}/include/tvm/ffi/c_api.h", "_VERSION_PATCH ", "_VERSION_PATCH 9", "of TVM's FFI"),
        (f"{bionic.FFI_SOURCE}/include/tvm/ffi/c_api.h", None, None, "no version of TVM's FFI"),
    ],
)
def test_a_tree_of_another_version(ndk, source, tmp_path, header, old, new, said):
    path = source / header
    if old is None:
        path.unlink()
    else:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ToolMissing, match=said) as refused:
        bionic.server_bundle(tmp_path / "bundle")
    assert "git clone --recursive --branch v0.27.0 " in refused.value.next_step


def test_a_build_that_fails_names_its_log(ndk, source, tmp_path):
    (source / "runtime.c").write_text("#error no bytes left\n")
    with pytest.raises(LinkFailed, match="no bytes left") as failed:
        bionic.server_bundle(tmp_path / "bundle")
    log = toolchain.cache_dir() / "android-server.log"
    assert str(log) in failed.value.next_step and "no bytes left" in log.read_text()
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("words", [["--android"], ["--android", "--bundle", "b", "--arch", "x86_64"]])
def test_words_that_do_not_go_together(words, capsys):
    assert main(["serve", *words]) == 2 and "arm64" in capsys.readouterr().err
