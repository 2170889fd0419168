"""Standalone libraries: the bits of TVM's VM without TVM, wrong calls answered, what they need and show."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from helpers.cross import zig_cc
from helpers.networks import answer, machine_of
from helpers.tensors import OUTPUT, only, signature
from helpers.view_programs import STEP, Program
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.clock.disassembly import disassembled
from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.errors import ImportFailed, LinkFailed, PackageInvalid, ToolMissing
from tvm_shufflenet.graph import frontend
from tvm_shufflenet.graph.pipeline import fuse, stock
from tvm_shufflenet.hardware.boards import BOARDS
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.scheduling import schedule_tuned, schedule_untuned
from tvm_shufflenet.library.symbols import undefined_symbols
from tvm_shufflenet.models import Model, exporting, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
from tvm_shufflenet.models.zoo.shufflenet_v2 import ShuffleUnit as ShuffleUnitV2
from tvm_shufflenet.packages.package import Package
from tvm_shufflenet.standalone import build as building
from tvm_shufflenet.standalone import source
from tvm_shufflenet.standalone.arena import Range, aligned, place
from tvm_shufflenet.standalone.kernels import compile_kernels
from tvm_shufflenet.standalone.program import plan
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.verification.answers import Answer, Answers
from tvm_shufflenet.verification.probes import PROBES, REFERENCE, probe
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.schedules import best_records

SHAPE = (1, 6, 16, 16)
HOST = find_target("local")
NATIVE, HERE = source.NATIVE, Path(__file__).parent
GCC = shutil.which("gcc")
JNI = Path("/usr/include/android/nativehelper/jni.h")
needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc")


class Small(nn.Module):
    """Every operator of ours, results written in place, and a classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(6, 12, 3, 2, 1)
        self.units = nn.Sequential(ShuffleUnit(12, 24, 3, 2, 1), ShuffleUnit(24, 24, 3, 1, 3), ShuffleUnitV2(24, 24, 1))
        self.classifier = nn.Linear(24, 5)
        randomise_batch_norms(self)

    def forward(self, data):
        return self.classifier(self.units(F.max_pool2d(F.relu(self.stem(data)), 3, 2, 1)).mean((2, 3)))


class Curved(nn.Module):
    """Operators that want the C library's functions."""

    def forward(self, data):
        return torch.tanh(F.gelu(data)) + torch.sigmoid(data) * torch.softmax(data, 1)


def imported(module: nn.Module, name: str = "small", shape=SHAPE):
    return import_model(Model(name, shape, module=module.eval()))


def compiled(network, folder, formats=("standalone",), target=HOST) -> Package:
    store = RecordStore(folder / "records", target.tvm())
    return compile_package(network, target, store, folder / "package", formats=formats)


def load(package_folder: Path, model: str = "small"):
    """The Python wrapper that the package brings."""
    spec = importlib.util.spec_from_file_location(model, package_folder / f"{model}.py")
    wrapper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wrapper)
    return wrapper


@pytest.fixture(scope="module")
def small():
    return imported(Small())


@pytest.fixture(scope="module")
def both(small, tmp_path_factory):
    """A package with both libraries, for this machine."""
    return compiled(small, tmp_path_factory.mktemp("both"), ("vm", "standalone"))


@pytest.fixture(scope="module")
def arm(small, tmp_path_factory):
    return compiled(small, tmp_path_factory.mktemp("arm"), ("vm", "standalone"), find_target("cortex-a72"))


@pytest.fixture(scope="module")
def statics(small, tmp_path_factory):
    """Packages of two models, for this machine and to link into programs."""
    if toolchain.find_llvm_objcopy().path is None:
        pytest.skip("no llvm-objcopy")
    torch.manual_seed(1)
    other = imported(nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()), "the-other.net")
    return [
        compiled(network, tmp_path_factory.mktemp("static"), ("standalone", "static")) for network in (small, other)
    ]


def vm_answer(library: Path, *data: np.ndarray):
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    return answer(machine, *map(tvm.runtime.tensor, data))


# The same bits


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_answers_the_bits_of_the_vm(both, threads):
    with load(both.folder).Network(threads) as network:
        for seed in range(3):
            data = np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)
            np.testing.assert_array_equal(network(data), vm_answer(both.library, data))


def test_a_network_with_functions_of_the_c_library(tmp_path):
    network = imported(Curved(), "curved")
    package = compiled(network, tmp_path, ("vm", "standalone"))
    assert undefined_symbols(package.folder / "libcurved.so"), "else this tests nothing"
    with load(package.folder, "curved").Network() as instance:
        output = instance(only(network.inputs))
    np.testing.assert_array_equal(output, vm_answer(package.library, only(network.inputs)))


def test_untuned_code_of_tvm_s_own(small, tmp_path):
    package = compile_package(small, HOST, None, tmp_path / "package", formats=("vm", "standalone"))
    with load(package.folder).Network(2) as instance:
        np.testing.assert_array_equal(instance(only(small.inputs)), vm_answer(package.library, only(small.inputs)))


@pytest.mark.skipif(any(tool.path is None for tool in toolchain.all_tools()), reason="no emulated device")
def test_it_answers_the_bits_of_the_vm_on_arm(arm, tmp_path):
    command = [toolchain.find_qemu().path, "-cpu", BOARDS["cortex-a72"].core.qemu_cpu]
    options = ["--repeat", "1", "--threads", "2", "--output", str(tmp_path / "output")]
    bench = run_bench(arm, *options, command=command)
    assert bench.returncode == 0, bench.stderr
    with (
        EmulatedDevice(BOARDS["cortex-a72"]) as device,
        Network(device, arm.library, arm.manifest.signature) as network,
    ):
        expected = only(network.run(arm.inputs))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "output", np.float32), expected.ravel())


# What a library is


def test_it_needs_nothing_and_shows_its_interface_alone(both, arm):
    for package in (both, arm):
        library = package.folder / "libsmall.so"
        assert undefined_symbols(library) == []
        shown = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
        assert sorted(line.split()[-1] for line in shown.stdout.splitlines()) == sorted(source.symbols("small"))
        assert b"libc.so" not in library.read_bytes()


@pytest.mark.skipif(any(tool.path is None for tool in toolchain.all_tools()), reason="no emulated device")
def test_a_device_needs_a_c_library_and_nothing_beside_it(arm, tmp_path):
    sysroot, root = Path(toolchain.find_sysroot().path), tmp_path / "root"
    (root / "lib").mkdir(parents=True)
    # Until glibc 2.34 threads were in a library of their own, which zig links programs with.
    for name in ("libc.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"):
        shutil.copy(sysroot / "lib" / name, root / "lib")
    build = zig_cc("aarch64-linux-gnu.2.28", arm.folder / "examples/example.c")
    subprocess.run([*build, f"-I{arm.folder}", f"-L{arm.folder}", "-lsmall", "-o", tmp_path / "app"], check=True)
    command = [toolchain.find_qemu().path, "-L", root, "-E", f"LD_LIBRARY_PATH={arm.folder}", tmp_path / "app"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "the first value of output0 is" in done.stdout, done.stderr


@pytest.mark.skipif(toolchain.find_llvm_mc().path is None, reason="no disassembler")
def test_it_leaves_the_register_alone_that_android_keeps(arm):
    """x18 holds the shadow stack of whoever calls from Android's own libraries."""
    section, code = ".text", arm.folder / "libsmall.so"
    content = subprocess.run(["readelf", "-SW", code], capture_output=True, text=True, check=True).stdout
    fields = next(line for line in content.splitlines() if f" {section} " in line).split(section)[1].split()
    offset, size = int(fields[2], 16), int(fields[3], 16)
    words = set(np.frombuffer(code.read_bytes()[offset : offset + size], "<u4").tolist())
    texts = disassembled(toolchain.find_llvm_mc().path, words)
    assert len(words) > 1000 and any(text and re.search(r"\b[xw]17\b", text) for text in texts.values())
    assert not [text for text in texts.values() if text and re.search(r"\b[xw]18\b", text)]


TWO_MODELS = """
#include <stdio.h>
#include "small.h"
#include "the-other.net.h"

static float data[6 * 16 * 16], classes[5], features[8 * 16 * 16];

int main(void) {
  small *one;
  the_other_net *two;
  const tvmsn_input input = {data, sizeof data};
  const tvmsn_output first = {classes, sizeof classes}, second = {features, sizeof features};
  for (int i = 0; i < 6 * 16 * 16; i++) data[i] = (float)i / 512 - 1;
  int failed = small_create(2, &one) || the_other_net_create(1, &two) || small_run(one, &input, 1, &first, 1) ||
               the_other_net_run(two, &input, 1, &second, 1);
  fwrite(classes, sizeof classes, 1, stdout), fwrite(features, sizeof features, 1, stdout);
  small_destroy(one), the_other_net_destroy(two);
  return failed;
}
"""


@needs_gcc
def test_a_program_links_two_models(statics, tmp_path):
    (tmp_path / "two.c").write_text(TWO_MODELS)
    folders = [package.folder for package in statics]
    command = [GCC, "-std=c11", "-Wall", "-Wextra", "-Werror", *(f"-I{folder}" for folder in folders), "two.c"]
    libraries = [folders[0] / "libsmall.a", folders[1] / "libthe-other.net.a"]
    for more in ((), ("-static",)):
        subprocess.run([*command, *libraries, *more, "-o", "two"], cwd=tmp_path, check=True)
        found = subprocess.run([tmp_path / "two"], capture_output=True, check=True).stdout
        data = (np.arange(np.prod(SHAPE), dtype=np.float32) / np.float32(512) - 1).reshape(SHAPE)
        with load(folders[0]).Network() as one, load(folders[1], "the-other.net").Network() as two:
            assert found == one(data).tobytes() + two(data).tobytes()


def global_symbols(archive: Path) -> list[str]:
    shown = subprocess.run(["nm", "--extern-only", archive], capture_output=True, text=True, check=True).stdout
    return sorted(line.split()[-1] for line in shown.splitlines() if " " in line)


def test_a_static_library_shows_its_interface_alone(statics):
    for package, model in zip(statics, ("small", "the-other.net"), strict=True):
        assert global_symbols(package.folder / f"lib{model}.a") == sorted(source.symbols(model))
        assert f"lib{model}.a" in package.manifest.standalone.files


@pytest.mark.skipif(toolchain.find_llvm_objcopy().path is None, reason="no llvm-objcopy")
def test_a_static_library_for_arm(small, tmp_path):
    target = find_target("cortex-a72")
    scheduled = schedule_untuned(stock(small.module, target))
    program = plan(scheduled.module, compile_kernels(scheduled.module, target, tmp_path / "kernels.o"))
    building.write_sources(program, target, "small", tmp_path)
    assert global_symbols(building.make_archive(target, "small", tmp_path)) == sorted(source.symbols("small"))


def test_a_static_library_goes_with_a_standalone_one(tmp_path, capsys):
    words = ["compile", "--target", "local", "--static", "-o", str(tmp_path / "package")]
    assert main(words) == 2 and "--format standalone" in capsys.readouterr().err


def test_without_its_tool_a_static_library_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TVM_SHUFFLENET_LLVM_OBJCOPY", "/nowhere/llvm-objcopy")
    with pytest.raises(ToolMissing, match="llvm-objcopy is missing"):
        building.make_archive(HOST, "small", tmp_path)


def test_it_is_its_weights_and_little_more(both, arm):
    for package in (both, arm):
        size = (package.folder / "libsmall.so").stat().st_size
        assert package.manifest.weight_bytes < size < package.manifest.weight_bytes + 150_000


def test_the_manifest_says_what_is_standalone(both):
    manifest = both.manifest
    assert (manifest.library, manifest.standalone.library) == ("small.so", "libsmall.so")
    assert set(manifest.standalone.files) <= set(manifest.hashes) and manifest.standalone.interface == 1
    assert 0 < manifest.standalone.arena_bytes <= manifest.activation_bytes
    header = (both.folder / "small.h").read_text()
    assert "#define TVMSN_INTERFACE 1" in header and "small_create" in header
    assert os.access(both.folder / "small_bench", os.X_OK)


def test_a_package_without_a_vm_library_says_how_to_run_it(small, tmp_path, capsys):
    package = compiled(small, tmp_path)
    assert package.manifest.library == "libsmall.so"
    with pytest.raises(PackageInvalid, match="no library for TVM"):
        package.check_runnable()
    assert main(["run", str(package.folder)]) == 2
    assert "small_bench" in capsys.readouterr().err


def test_the_command_line_compiles_both(tmp_path, capsys):
    factory = "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(6, 8, 1), torch.nn.ReLU())\n"
    (tmp_path / "tiny.py").write_text(factory)
    model = ["--model", f"{tmp_path}/tiny.py:make", "--input-shape", "1,6,8,8"]
    assert main(["compile", *model, "--target", "local", "--format", "both", "-o", str(tmp_path / "package")]) == 0
    package = Package(tmp_path / "package")
    assert package.manifest.standalone.library in capsys.readouterr().out
    bench = package.folder / package.manifest.standalone.bench
    assert subprocess.run([bench, "--repeat", "1"], capture_output=True).returncode == 0


def test_a_compiler_that_fails_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TVM_SHUFFLENET_CC", "false")
    with pytest.raises(LinkFailed, match=r"libsmall\.so did not link"):
        compiled(small, tmp_path)


def test_instances_share_the_weights(both, tmp_path):
    """What is private to the process grows by an arena with each instance, and not by the weights."""
    wrapper = load(both.folder)
    data = np.zeros(SHAPE, np.float32)
    networks = [wrapper.Network() for _ in range(3)]
    assert len({id(network._instance) for network in networks}) == 3
    answers = [network(data) for network in networks]
    np.testing.assert_array_equal(answers[0], answers[2])
    library = os.path.realpath(both.folder / "libsmall.so")
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(library)]
    weights = [line for line in mapped if int(line[2], 16) == 0]
    assert weights and all(line[1] == "r--p" for line in weights), "read-only pages of the file, mapped once"
    assert len(weights) == 1


# The wrappers


def test_python_refuses_wrong_arrays(both):
    wrapper = load(both.folder)
    network = wrapper.Network()
    assert repr(network.inputs[0]) == "data: float32[1, 6, 16, 16]" and network.outputs[0].shape == (1, 5)
    for wrong in ((), (np.zeros((1, 6, 16, 15), np.float32),), (np.zeros(SHAPE), np.zeros(SHAPE))):
        with pytest.raises(ValueError, match=r"given|array"):
            network(*wrong)
    np.testing.assert_array_equal(network(np.ones(SHAPE)), network(np.ones(SHAPE, np.float32)))
    network.close()
    with pytest.raises(ValueError, match="closed"):
        network(np.zeros(SHAPE, np.float32))
    with pytest.raises(wrapper.NetworkError, match="threads"):
        wrapper.Network(threads=1000)


def test_threads_have_instances_of_their_own(both, small):
    wrapper, answers = load(both.folder), {}

    def work(name):
        with wrapper.Network(2) as network:
            for _ in range(20):
                answers[name] = network(only(small.inputs))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for output in answers.values():
        np.testing.assert_array_equal(output, answers[0])


def test_null_pointers_and_wrong_sizes_are_answered(both):
    library = ctypes.CDLL(str(both.folder / "libsmall.so"))
    library.small_last_error.restype = library.small_status_text.restype = ctypes.c_char_p
    library.small_input.restype = library.small_output.restype = ctypes.c_void_p
    size, instance = ctypes.c_size_t, ctypes.c_void_p()
    assert library.small_create(1, None) == 1
    assert library.small_create(-1, ctypes.byref(instance)) == 2 and not instance
    assert library.small_run(None, None, size(1), None, size(1)) == 1
    library.small_destroy(None)
    assert library.small_input(size(1)) is None and library.small_output(size(2**63)) is None
    assert library.small_create(1, ctypes.byref(instance)) == 0
    assert library.small_run(instance, None, size(1), None, size(1)) == 1
    assert library.small_last_error(instance) == b"the list of inputs is a null pointer"
    assert library.small_run(instance, None, size(7), None, size(1)) == 2
    assert library.small_last_error(instance) == b"the network has 1 input, 7 were given"
    assert library.small_status_text(3) == b"a buffer has another size than the network's"
    library.small_destroy(instance)


@pytest.mark.parametrize("example", ["example.c", "example.cpp", "example.py"])
def test_the_examples_run(both, tmp_path, example):
    folder = both.folder / "examples"
    if example.endswith(".py"):
        command = [sys.executable, str(folder / example)]
    else:
        compiler = shutil.which("gcc" if example.endswith(".c") else "g++")
        if compiler is None:
            pytest.skip("no compiler")
        flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c11" if example.endswith(".c") else "-std=c++17"]
        build = [compiler, *flags, str(folder / example), f"-I{both.folder}", f"-L{both.folder}", "-lsmall"]
        subprocess.run([*build, f"-Wl,-rpath,{both.folder}", "-o", tmp_path / "example"], check=True)
        command = [str(tmp_path / "example")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with load(both.folder).Network() as network:
        expected = network(np.zeros(SHAPE, np.float32))[0, 0]
    assert f"the first value of output0 is {expected:g}\n" == done.stdout


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake")
@pytest.mark.parametrize("library", ["small", "static"])
def test_cmake_finds_the_package(statics, tmp_path, library):
    folder = statics[0].folder
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app CXX)\n"
        f"find_package(small CONFIG REQUIRED PATHS {folder}/cmake)\n"
        f"add_executable(app {folder}/examples/example.cpp)\n"
        f"target_compile_features(app PRIVATE cxx_std_17)\ntarget_link_libraries(app PRIVATE small::{library})\n"
    )
    for command in (["cmake", "-S", tmp_path, "-B", tmp_path / "build"], ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "the first value" in subprocess.run([tmp_path / "build" / "app"], capture_output=True, text=True).stdout


@pytest.mark.skipif(not JNI.exists(), reason="missing: android-libnativehelper-dev")
def test_the_glue_for_android_compiles_and_names_what_java_declares(arm, tmp_path):
    folder, library = arm.folder / "examples" / "android", tmp_path / "libnetwork_jni.so"
    command = zig_cc("aarch64-linux-musl", "-shared", "-nostdlib", "-fPIC")
    flags = [
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-Wl,-z,max-page-size=16384",
        "-Wl,-z,defs",
    ]
    build = [
        *command,
        *flags,
        f"-I{JNI.parent}",
        f"-I{arm.folder}",
        folder / "network_jni.c",
        f"-L{arm.folder}",
        "-lsmall",
    ]
    subprocess.run([*build, "-o", library], check=True)
    assert set(undefined_symbols(library)) <= set(source.symbols("small"))
    declared = re.findall(r"private static native \w+ (\w+)\(", (folder / "Network.java").read_text())
    registered = re.findall(r'{"(\w+)", "', (folder / "network_jni.c").read_text())
    assert declared == registered and "Input 0, data: 1x6x16x16 float32." in (folder / "Network.java").read_text()


# The benchmark


def run_bench(package: Package, *arguments, command=()) -> subprocess.CompletedProcess:
    program = [*command, str(package.folder / "small_bench"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, env={"QEMU_LD_PREFIX": "/nowhere"})


def test_the_benchmark_prints_json(both):
    cpu = min(os.sched_getaffinity(0))
    done = run_bench(both, "--json", "--warmup", "1", "--repeat", "7", "--threads", "2", "--affinity", str(cpu))
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert (facts["schema"], facts["model"], facts["threads"], facts["affinity"]) == (1, "small", 2, [cpu])
    latency = facts["latency_us"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"] <= latency["p99"] and latency["samples"] == 7
    assert facts["cold_us"] > 0 and facts["peak_memory_bytes"] > both.manifest.weight_bytes
    assert {operator["name"] for operator in facts["operators"]} == {o.name for o in both.manifest.operators}
    assert set(facts["device"]) == {"model", "kernel", "governor", "cores"}
    assert len(facts["device"]["cores"]) == os.cpu_count()
    output = facts["output"]
    assert output["ok"] is True and output["checksum"] == pytest.approx(output["expected"], rel=1e-3)


def test_the_benchmark_prints_a_table(both):
    done = run_bench(both, "--repeat", "3")
    assert done.returncode == 0
    assert "warm" in done.stdout and "pointwise" in done.stdout and "checksum" in done.stdout


@pytest.mark.skipif(toolchain.find_qemu().path is None, reason="no qemu")
def test_the_benchmark_of_arm_needs_nothing(arm):
    done = run_bench(arm, "--json", "--repeat", "2", "--threads", "2", command=[toolchain.find_qemu().path])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"]["ok"] is True


@pytest.mark.skipif(toolchain.find_qemu().path is None, reason="no qemu")
def test_an_emulator_is_recognised_and_its_times_are_not_shown(arm, both):
    qemu = [toolchain.find_qemu().path]
    facts = json.loads(run_bench(arm, "--json", "--repeat", "2", command=qemu).stdout)
    assert facts["emulated"] is True and not {"latency_us", "cold_us", "operators"} & set(facts)
    text = run_bench(arm, "--repeat", "2", command=qemu).stdout
    assert "run by an emulator" in text and "checksum" in text and "warm" not in text and "median" not in text
    assert json.loads(run_bench(both, "--json", "--repeat", "2").stdout)["emulated"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["--repeat", "0"],
        ["--repeat", "x"],
        ["--threads", "65"],
        ["--warmup", "-1"],
        ["--affinity", "0-"],
        ["--affinity", ""],
        ["--affinity", "1023"],
        ["--input", "/nowhere"],
        ["--input", "/dev/null"],
        ["--output", "/nowhere/at/all"],
        ["--colour"],
        ["stray"],
    ],
    ids=str,
)
def test_the_benchmark_refuses_wrong_arguments(both, arguments):
    done = run_bench(both, "--repeat", "1", *arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_the_benchmark_runs_on_an_input_of_the_user_s(both, tmp_path):
    data = np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)
    data.tofile(tmp_path / "input")
    done = run_bench(both, "--repeat", "1", "--input", str(tmp_path / "input"), "--output", str(tmp_path / "output"))
    assert done.returncode == 0 and "checksum" not in done.stdout
    expected = vm_answer(both.library, data)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "output", np.float32), expected.ravel())


def test_a_wrong_answer_shows_no_time(small, tmp_path):
    package = tmp_path / "built"
    scheduled = schedule_untuned(stock(small.module, HOST))
    wrong = replace(small.answers.reference, expected={OUTPUT: only(small.reference) + 1})
    answers = replace(small.answers, each=(wrong,))
    built = building.build_standalone(scheduled.module, HOST, "small", small.signature, answers, package)
    done = subprocess.run([built.bench, "--repeat", "1"], capture_output=True, text=True)
    assert done.returncode == 5 and done.stdout == "" and "from PyTorch" in done.stderr
    done = subprocess.run([built.bench, "--repeat", "1", "--json"], capture_output=True, text=True)
    assert done.returncode == 5 and json.loads(done.stdout)["output"]["ok"] is False


@pytest.mark.parametrize("name", ["other", "denormal", "NaN"])
def test_an_answer_that_is_right_for_one_input_only_shows_no_time(small, tmp_path, name):
    scheduled = schedule_untuned(stock(small.module, HOST))
    right = {answer.probe: answer for answer in small.answers.each}
    wrong = {OUTPUT: np.nan_to_num(only(right[name].expected), nan=1.0) + np.float32(1)}
    each = tuple((right | {name: replace(right[name], expected=wrong)}).values())
    answers = replace(small.answers, each=each)
    built = building.build_standalone(scheduled.module, HOST, "small", small.signature, answers, tmp_path / "built")
    done = subprocess.run([built.bench, "--repeat", "1"], capture_output=True, text=True)
    assert done.returncode == 5 and done.stdout == "" and f'for the input "{name}"' in done.stderr
    facts = json.loads(subprocess.run([built.bench, "--repeat", "1", "--json"], capture_output=True).stdout)
    assert facts["output"]["ok"] is False and facts["output"]["inputs"] < len(right)


@I.ir_module
class Overwrites:
    """x + 1, with an element of x changed afterwards."""

    @T.prim_func
    def add(x: T.Buffer((2, 8), "float32"), y: T.Buffer((2, 8), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i, j in T.grid(2, 8):
            y[i, j] = x[i, j] + T.float32(1)
        x[1, 3] = x[1, 3] + T.float32(1)

    @R.function
    def main(x: R.Tensor((2, 8), "float32")) -> R.Tensor((2, 8), "float32"):
        cls = Overwrites
        with R.dataflow():
            y = R.call_tir(cls.add, (x,), out_ty=R.Tensor((2, 8), "float32"))
            R.output(y)
        return y


def test_a_benchmark_that_overwrites_its_input_shows_no_time(tmp_path):
    data = np.arange(16, dtype=np.float32).reshape(2, 8)
    answer = Answer(REFERENCE, {OUTPUT: data + 1}, {OUTPUT: 1e-6})
    answers = Answers({"data": data}, (answer,), {OUTPUT: 0.0}, {OUTPUT: 1.0})
    takes = signature(data.shape, data.shape)
    built = building.build_standalone(Overwrites, HOST, "small", takes, answers, tmp_path / "built")
    done = subprocess.run([built.bench, "--repeat", "1"], capture_output=True, text=True)
    assert done.returncode == 5 and done.stdout == "" and "the input is overwritten" in done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="missing: cc")
def test_c_makes_the_same_inputs_bit_by_bit(tmp_path):
    command = ["cc", "-std=c11", "-O2", "-fPIC", "-shared", *building.native("probes.c"), "-o", "probes.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    make = ctypes.CDLL(str(tmp_path / "probes.so")).make_probe
    for shape in ((1, 3, 7, 5), (1, 1, 1, 2), (1, 1, 1, 1)):
        data = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        for name in [name for name in PROBES if name != REFERENCE]:
            made = np.empty_like(data)
            assert make(name.encode(), data.ctypes, made.ctypes, ctypes.c_size_t(data.size)) == 0
            expected, finite = only(probe(name, {"data": data})), np.isfinite(made)
            np.testing.assert_array_equal(made, expected)
            assert made[finite].tobytes() == expected[finite].tobytes()
    assert make(b"stranger", data.ctypes, made.ctypes, ctypes.c_size_t(data.size)) == -1


# Under watch: sanitizers, and a counter of allocations


@pytest.fixture(scope="module")
def sources(small, tmp_path_factory):
    """The C of the small network, its weights and its kernels."""
    folder = tmp_path_factory.mktemp("sources")
    store = RecordStore(folder / "records", HOST.tvm())
    database, _ = best_records(fuse(small.module, HOST), store, "measured", threads=4)
    module = schedule_tuned(fuse(small.module, HOST), database, threads=4).module
    program = plan(module, compile_kernels(module, HOST, folder / "kernels.o"))
    building.write_sources(program, HOST, "small", folder)
    return folder


def check_program(sources: Path, output: Path, *flags: str, system: str = "system_hosted.c") -> str:
    """What standalone_check.c says, built with ``flags``."""
    own = [str(NATIVE / name) for name in ("driver.c", "pool.c", system)]
    model = ["model.c", "weights.S", "kernels.o"]
    command = [
        GCC,
        "-std=gnu11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        f"-I{NATIVE}",
        "-I.",
        str(HERE / "standalone_check.c"),
    ]
    done = subprocess.run(
        [*command, *own, *model, *flags, "-lpthread", "-lm", "-o", str(output)],
        cwd=sources, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    done = subprocess.run([output], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_gcc
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_a_sanitizer_finds_nothing(sources, tmp_path, sanitizer):
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    assert check_program(sources, tmp_path / "check", *flags) == "ok\n"


@needs_gcc
def test_a_sanitizer_would_find_something(sources, tmp_path):
    """The thread sanitizer sees the pool: without waiting for the workers there are races."""
    broken = (NATIVE / "pool.c").read_text().replace("  await_workers(pool);\n", "  (void)await_workers;\n")
    (tmp_path / "pool.c").write_text(broken)
    shutil.copytree(sources, tmp_path / "sources")
    own = [str(NATIVE / "driver.c"), str(tmp_path / "pool.c"), str(NATIVE / "system_hosted.c")]
    command = [GCC, "-std=gnu11", "-g", "-fsanitize=thread", f"-I{NATIVE}", "-I.", str(HERE / "standalone_check.c")]
    link = [*command, *own, "model.c", "weights.S", "kernels.o", "-lpthread", "-lm", "-o", str(tmp_path / "check")]
    subprocess.run(link, cwd=tmp_path / "sources", check=True)
    assert subprocess.run([tmp_path / "check"], capture_output=True, timeout=120).returncode != 0


@needs_gcc
def test_the_driver_as_it_ships_passes_the_same_checks(sources, tmp_path):
    assert check_program(sources, tmp_path / "check", system="system_linux.c") == "ok\n"


@needs_gcc
def test_nothing_is_allocated_after_creation(sources, tmp_path):
    wrapped = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "posix_memalign")]
    flags = ["-DCOUNTED", str(HERE / "standalone_allocations.c"), *wrapped]
    assert check_program(sources, tmp_path / "check", *flags) == "ok\n"


@pytest.mark.skipif(toolchain.find_qemu().path is None, reason="no qemu")
def test_no_inference_asks_the_kernel_for_memory(arm):
    """QEMU writes down every system call: more inferences are not more of those for memory."""

    def maps(warmup: str) -> int:
        options = ["--warmup", warmup, "--repeat", "2", "--threads", "2", "--json"]
        done = run_bench(arm, *options, command=[toolchain.find_qemu().path, "-strace"])
        # Two threads' lines may run into each other; the words of which they are made stay whole. How often munmap()
        # is called depends on where the kernel puts what is asked for: an aligned piece is cut out of it.
        return done.stderr.count(" mmap(") + done.stderr.count(" brk(")

    assert maps("0") == maps("9") > 0


# The plan

RANGE = st.builds(
    lambda size, first, length: Range(size, first, first + length),
    st.integers(0, 5000),
    st.integers(0, 20),
    st.integers(0, 10),
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(ranges=st.lists(RANGE, max_size=25))
def test_ranges_in_use_at_once_do_not_overlap(ranges):
    offsets, total = place(ranges)
    spans = [(offset, offset + aligned(each.bytes)) for offset, each in zip(offsets, ranges, strict=True)]
    for index, (start, end) in enumerate(spans):
        assert start % 64 == 0 and end <= total
        for other in range(index):
            if ranges[index].overlaps(ranges[other]):
                assert end <= spans[other][0] or spans[other][1] <= start
    busiest = max((sum(aligned(r.bytes) for r in ranges if r.first <= step <= r.last) for step in range(31)), default=0)
    assert busiest <= total <= sum(aligned(each.bytes) for each in ranges)


def test_ranges_that_follow_each_other_share_memory():
    assert place([Range(100, 0, 1), Range(100, 2, 3), Range(64, 1, 2)]) == ([0, 0, 128], 192)


@I.ir_module
class Several:
    """Two inputs; outputs that are computed, an input, a constant, one twice, one in another shape."""

    @T.prim_func(s_tir=True)
    def add(a: T.Buffer((2, 8), "float32"), b: T.Buffer((2, 8), "float32"), c: T.Buffer((2, 8), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i, j in T.grid(2, 8):
            with T.sblock("add"):
                vi, vj = T.axis.remap("SS", [i, j])
                c[vi, vj] = a[vi, vj] + b[vi, vj]

    @T.prim_func(s_tir=True)
    def twice(a: T.Buffer((2, 8), "float32"), c: T.Buffer((2, 8), "float32")):
        """Two parallel loops, and between them what the first one wrote; each with memory of its own."""
        T.func_attr({"tirx.noalias": True})
        middle = T.alloc_buffer((2, 8))
        for i in T.parallel(2):
            for j in range(8):
                with T.sblock("first"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    middle[vi, vj] = a[1 - vi, vj] * T.float32(2)
        for j in T.parallel(8):
            for i in range(2):
                with T.sblock("second"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    c[vi, vj] = middle[1 - vi, 7 - vj]

    @R.function
    def main(x: R.Tensor((2, 8), "float32"), y: R.Tensor((2, 8), "float32")):
        cls = Several
        with R.dataflow():
            s = R.call_tir(cls.add, (x, y), out_ty=R.Tensor((2, 8), "float32"))
            d = R.call_tir(cls.twice, (s,), out_ty=R.Tensor((2, 8), "float32"))
            k = R.call_tir(cls.add, (d, R.const(np.arange(16, dtype="float32").reshape(2, 8))),
                           out_ty=R.Tensor((2, 8), "float32"))  # fmt: skip
            r = R.reshape(d, R.shape([4, 4]))
            gv = (k, x, R.const(np.full((3,), 7, "float32")), k, r)
            R.output(gv)
        return gv


def library_of(module: tvm.IRModule, model: str, folder: Path):
    """The loaded library of a Relax module, by the wrapper."""
    folder.mkdir()
    program = plan(module, compile_kernels(module, HOST, folder / "kernels.o"))
    building.write_sources(program, HOST, model, folder)
    building.link_library(HOST, model, folder)
    (folder / f"{model}.py").write_text(source.render("model.py.j2", model, program))
    return program, load(folder, model)


@pytest.mark.parametrize("threads", [1, 3])
def test_several_inputs_and_outputs(tmp_path, threads):
    program, wrapper = library_of(Several, "several-in.and out", tmp_path / "built")
    assert [tensor.shape for tensor in program.outputs] == [(2, 8), (2, 8), (3,), (2, 8), (4, 4)]
    assert [copy.output for copy in program.copies] == [1, 2, 3]
    phases = [phase for step in program.steps for phase in step.kernel.phases]
    assert [phase.extent for phase in phases] == [None, 2, 8, None]
    x, y = (np.random.default_rng(seed).standard_normal((2, 8), dtype=np.float32) for seed in (1, 2))
    d = 2 * (x + y)[:, ::-1]
    k = d + np.arange(16, dtype=np.float32).reshape(2, 8)
    with wrapper.Network(threads) as network:
        for got, expected in zip(network(x, y), (k, x, np.full(3, 7, np.float32), k, d.reshape(4, 4)), strict=True):
            np.testing.assert_array_equal(got, expected)


@settings(deadline=None, max_examples=4, derandomize=True)
@given(steps=st.lists(STEP, min_size=5, max_size=12))
def test_a_random_program_answers_as_the_vm(steps):
    """Splits, shuffles and concatenations that became views and results in place: nothing needed is overwritten."""
    net = Program([("pointwise", 0, 0), *steps]).eval()
    with torch.no_grad():
        assume(net(torch.zeros(1, 8, 4, 4)).shape[1] <= 64)
    module = fuse(frontend.to_relax(exporting.export(net, (1, 8, 4, 4))), HOST).module
    data = np.random.default_rng(len(steps)).standard_normal((1, 8, 4, 4), dtype=np.float32)
    expected = answer(machine_of(module), tvm.runtime.tensor(data))
    with tempfile.TemporaryDirectory() as folder:
        _, wrapper = library_of(module, "random", Path(folder) / "built")
        with wrapper.Network(2) as network:
            for _ in range(2):
                np.testing.assert_allclose(network(data), expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_kernel_is_refused():
    @I.ir_module
    class Foreign:
        @R.function
        def main(x: R.Tensor((2, 8), "float32")):
            with R.dataflow():
                gv = R.call_dps_packed("someone.elses", (x,), out_ty=R.Tensor((2, 8), "float32"))
                R.output(gv)
            return gv

    with pytest.raises(ImportFailed, match="--format vm"):
        plan(Foreign, {})


@pytest.mark.parametrize("name", ["a-b.c", "1st", "class", "", "naïve"])
def test_any_name_becomes_an_identifier(name):
    assert source.identifier(name).isidentifier() and source.identifier(name).isascii()


# A CPU that lacks what the library was compiled for


LACKS = r"this CPU cannot execute [\w.]+, which the library was compiled for"
needs_qemu_x86 = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or os.uname().machine != "x86_64", reason="missing: qemu-user, on x86-64"
)


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """Packages for CPUs that are newer than the baseline, by their targets."""
    network, targets = imported(nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU())), ("cortex-a76", "x86-64")
    return {name: compiled(network, tmp_path_factory.mktemp("newer"), target=find_target(name)) for name in targets}


@pytest.mark.parametrize(
    ("target", "emulator", "cpus"),
    [
        pytest.param(
            "cortex-a76",
            toolchain.find_qemu().path or "",
            {"cortex-a53": False, "cortex-a72": False, "cortex-a76": True},
            marks=pytest.mark.skipif(toolchain.find_qemu().path is None, reason="no qemu"),
        ),
        pytest.param(
            "x86-64", "qemu-x86_64", {"qemu64": False, "SandyBridge": False, "max": True}, marks=needs_qemu_x86
        ),
    ],
)
def test_the_benchmark_asks_the_cpu_first(newer, target, emulator, cpus):
    for cpu, able in cpus.items():
        command = [emulator, "-cpu", cpu, newer[target].folder / "small_bench", "--repeat", "1", "--warmup", "0"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == (0 if able else 4), (cpu, done)
        assert able or re.search(f"^small: {LACKS}\n$", done.stderr, re.MULTILINE), done.stderr
        assert able or done.stdout == ""


@needs_qemu_x86
@needs_gcc
def test_create_asks_the_cpu_first(newer, tmp_path):
    """The library in a program that is linked with it, and in C++, whose wrapper says the same."""
    folder = newer["x86-64"].folder
    example = folder / "examples" / "example.c"
    app = tmp_path / "app"
    command = [GCC, example, f"-I{folder}", f"-L{folder}", "-lsmall", f"-Wl,-rpath,{folder}", "-o", app]
    subprocess.run(command, check=True)
    done = subprocess.run(["qemu-x86_64", "-cpu", "qemu64", app], capture_output=True, text=True)
    assert done.returncode == 1 and re.search(f"^{LACKS}\n$", done.stderr, re.MULTILINE), done
    assert subprocess.run(["qemu-x86_64", "-cpu", "max", app], capture_output=True).returncode == 0


ASKS = r"""
#include <stdio.h>
#include <stdlib.h>
#include "cpu.h"
static const char *words[3];
int system_auxiliary(uint64_t type, uint64_t *value) {
  const char *word = words[type == 16 ? 0 : 1];
  *value = strtoull(word, 0, 16);
  return *word == '-' ? -1 : 0;
}
int main(int count, char **arguments) {
  words[0] = arguments[1], words[1] = arguments[2], arguments[count] = 0;
  const char *sentence = cpu_lacks((const char *const *)arguments + 3);
  puts(sentence ? sentence : "nothing");
}
"""


@pytest.mark.skipif(toolchain.find_qemu().path is None, reason="no qemu")
def test_what_arm64_s_kernel_says(tmp_path):
    """Words of its auxiliary vector. Where it says nothing, as in a sandbox without /proc, nothing is refused."""
    (tmp_path / "asks.c").write_text(ASKS)
    words = ["-static", *building.LAYOUT, "asks.c"]  # as the benchmark is linked: zig makes no other C library for it
    building.compile_c(find_target("cortex-a72"), tmp_path, words, tmp_path / "asks")

    def lacks(*words: str) -> str:
        command = [toolchain.find_qemu().path, tmp_path / "asks", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    a53, a76 = "8ff", "10ffff"  # of boards: fp to cpuid, and with lse, half floats and dot products
    assert lacks(a76, "0", "neon", "lse", "fullfp16", "rdm", "dotprod", "not-known-here") == "nothing"
    assert re.fullmatch(LACKS, lacks(a53, "0", "neon", "dotprod")) and "dotprod" in lacks(a53, "0", "neon", "dotprod")
    assert "bf16" in lacks(a76, "0", "bf16") and lacks(a76, "4000", "bf16") == "nothing"
    assert "fullfp16" in lacks("200", "0", "fullfp16"), "for scalars alone"
    assert lacks("-", "-", "dotprod") == "nothing"


def test_the_driver_asks_for_what_code_for_the_target_may_use():
    assert building.checked_features(find_target("cortex-a72")) == ["neon"]
    assert building.checked_features(find_target("cortex-a76")) == ["neon", "lse", "fullfp16", "rdm", "dotprod"]
    assert {"avx2", "fma", "bmi2"} <= set(building.checked_features(find_target("x86-64")))


def test_two_builds_in_different_places_are_the_same_bytes(tmp_path, monkeypatch):
    """Both libraries, benchmark, examples, manifest: with other records folders, temporary and current folders."""
    network, made = imported(nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU())), []
    for name in ("one", "the other place"):
        folder = tmp_path / name
        (folder / "temporary").mkdir(parents=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        made.append(compiled(network, folder, ("vm", "standalone"), find_target("cortex-a72")))
    one, other = made
    files = sorted(path.relative_to(one.folder) for path in one.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other.folder) for path in other.folder.rglob("*") if path.is_file())
    for file in files:
        assert (one.folder / file).read_bytes() == (other.folder / file).read_bytes(), file
    for where in (tmp_path, Path(sys.prefix), NATIVE):
        assert not [file for file in files if str(where).encode() in (one.folder / file).read_bytes()]
