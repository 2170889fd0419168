"""Packages: what they say, what damages are found, what is refused; and the linker behind them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm import relax

from helpers.tensors import OUTPUT, only
from helpers.tiny_packages import as_before_schema_4
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.errors import LinkFailed, PackageInvalid, ToolMissing
from tvm_shufflenet.hardware.targets import compiled_for, features_of, find_target, host_machine
from tvm_shufflenet.library import link as linking
from tvm_shufflenet.library.link import CC_VARIABLE, elf_machine, link, linker_command, trial_command
from tvm_shufflenet.licences.sbom import SBOM
from tvm_shufflenet.licences.texts import FOLDER
from tvm_shufflenet.models import Model, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
from tvm_shufflenet.packages import package as packages
from tvm_shufflenet.packages.manifest import MANIFEST, Manifest, Timing
from tvm_shufflenet.packages.package import Package, answers_file, write_package
from tvm_shufflenet.signature import TensorSpec
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.verification.answers import Answer
from tvm_shufflenet.verification.probes import reference_inputs
from tvm_shufflenet.workflow.bench import bench_package
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.profile import profile_package
from tvm_shufflenet.workflow.run import run_package

SHAPE = (1, 6, 8, 8)
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}


class Tiny(nn.Module):
    """One unit of each stride, a classifier, and at the end what no operator of ours computes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.units = nn.Sequential(ShuffleUnit(6, 12, 3, 2, 1), ShuffleUnit(12, 12, 3, 1, 3))
        self.classifier = nn.Linear(12, 5)
        randomise_batch_norms(self)

    def forward(self, data):
        return torch.tanh(self.classifier(F.relu(self.units(data)).mean((2, 3))))


@pytest.fixture(scope="module")
def local():
    return find_target("local")


@pytest.fixture(scope="module")
def imported():
    return import_model(Model("tiny", SHAPE, module=Tiny().eval()))


@pytest.fixture(scope="module")
def compiled(imported, local, tmp_path_factory):
    """A package for this machine, of the templates' default schedules. Tests copy it before they touch it."""
    folder = tmp_path_factory.mktemp("compiled")
    store = RecordStore(folder / "records", local.tvm())
    return compile_package(imported, local, store, folder / "tiny")


@pytest.fixture
def copy(compiled, tmp_path):
    shutil.copytree(compiled.folder, tmp_path / "tiny")
    return tmp_path / "tiny"


def edit(folder, **changes) -> None:
    """Change fields of a manifest as somebody with an editor would."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def run(library, data: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    output = machine["main"](tvm.runtime.tensor(data))
    return (output if isinstance(output, tvm.runtime.Tensor) else output[0]).numpy()


# What a package says


def test_a_package_answers_as_torch_does(compiled, imported):
    expected = only(compiled.reference)
    np.testing.assert_allclose(run(compiled.library, only(compiled.inputs)), expected, atol=1e-5)
    np.testing.assert_array_equal(expected, only(imported.reference))
    with torch.no_grad():
        np.testing.assert_array_equal(expected, Tiny().eval()(torch.from_numpy(only(compiled.inputs))).numpy())


def test_every_command_takes_an_archive(imported, local, tmp_path):
    store = RecordStore(tmp_path / "records", local.tvm())
    package = compile_package(imported, local, store, tmp_path / "tiny.tar.zst")
    assert package.path.is_file() and sorted(os.listdir(tmp_path)) == ["tiny.tar.zst"]
    with find_device("local", local) as device:
        outputs = run_package(package, device, imported.inputs)
        np.testing.assert_allclose(only(outputs), only(imported.reference), atol=1e-5)
        bench = bench_package(package, device, 1, 0, 1)
        assert profile_package(Package(package.path), device, 1).operators
    (timing,) = Package(package.path).manifest.timings
    assert timing.latency_us == msgspec.to_builtins(bench.latency.summary)


def test_a_package_is_five_files_and_the_licences(compiled):
    assert sorted(os.listdir(compiled.folder)) == sorted([MANIFEST, answers_file(0), SBOM, "tiny.so", FOLDER])
    assert os.access(compiled.library, os.X_OK)
    assert oct(compiled.folder.stat().st_mode & 0o777) == "0o755", "not as private as a temporary folder"


def test_the_same_model_makes_the_same_bytes_in_another_folder(compiled, imported, local, tmp_path, monkeypatch):
    for folder in ("elsewhere", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    again = compile_package(imported, local, RecordStore(Path("records"), local.tvm()), Path("tiny"))
    assert again.manifest.hashes == compiled.manifest.hashes
    for name in (MANIFEST, *again.manifest.hashes):
        assert (again.folder / name).read_bytes() == (compiled.folder / name).read_bytes(), name
    for path in (str(tmp_path), str(compiled.folder), sys.prefix, str(Path(toolchain.find_zig().path).parent)):
        assert path not in (again.folder / MANIFEST).read_text() + (compiled.folder / MANIFEST).read_text()


def test_the_manifest_says_what_was_compiled_for_what(compiled, local):
    manifest = json.loads((compiled.folder / MANIFEST).read_text())
    assert (manifest["schema"], manifest["model"], manifest["library"]) == (4, "tiny", "tiny.so")
    assert [(each["name"], each["shape"]) for each in (*manifest["inputs"], *manifest["outputs"])] == [
        ("data", [1, 6, 8, 8]), (OUTPUT, [1, 5])
    ]  # fmt: skip
    assert (manifest["target"], manifest["machine"], manifest["tuned"]) == ("local", local.machine, True)
    assert manifest["target_config"] == local.tvm_config
    assert (manifest["tvm"], manifest["ffi"]) == (toolchain.TVM_VERSION, toolchain.FFI_VERSION)
    assert manifest["linker"] == ["zig", *linker_command(local)[1:]]
    assert 0 < manifest["tolerances"][OUTPUT] < 1e-2 and manifest["timings"] == []
    for name in (answers_file(0), "tiny.so"):
        assert manifest["hashes"][name] == hashlib.sha256((compiled.folder / name).read_bytes()).hexdigest()


def test_the_manifest_names_every_operator_and_how_it_was_scheduled(compiled):
    operators = compiled.manifest.operators
    by_schedule = {schedule: [o for o in operators if o.schedule == schedule] for schedule in ("template", "none")}
    ours = [o for o in operators if o.name.startswith(("pointwise", "depthwise", "pooling", "dense"))]
    assert by_schedule["template"] == ours and sum(o.occurrences for o in ours) == 6 + 2
    assert [o.name for o in by_schedule["none"]] == ["tir_tanh"]
    assert compiled.manifest.operators_without_record == [o.name for o in operators]


def test_memory_is_that_of_the_weights_and_of_planned_activations(compiled):
    parameters = sum(p.numel() for name, p in Tiny().named_parameters() if "_bn" not in name)
    biases = sum(p.numel() for name, p in Tiny().named_parameters() if name.endswith("_bn.bias"))
    # Packing fills the last run of 4 output channels and the classifier's last strip of 16 with zeros.
    assert 4 * (parameters + biases) <= compiled.manifest.weight_bytes <= 2 * 4 * (parameters + biases)
    largest = 4 * 12 * 4 * 4
    assert largest < compiled.manifest.activation_bytes < 20 * largest


def test_an_untuned_package_says_so(imported, local, tmp_path):
    package = compile_package(imported, local, None, tmp_path / "untuned")
    assert (package.manifest.tuned, package.manifest.records) == (False, None)
    assert {operator.schedule for operator in package.manifest.operators} == {"none"}
    np.testing.assert_allclose(run(package.library, only(package.inputs)), only(package.reference), atol=1e-5)


def test_the_reference_input_is_decided_by_its_seed():
    specs = (TensorSpec("one", SHAPE), TensorSpec("two", SHAPE))
    first, again, other = (reference_inputs(specs, seed) for seed in (3, 3, 4))
    assert [(name, array.dtype, array.shape) for name, array in first.items()] == [
        ("one", np.float32, SHAPE), ("two", np.float32, SHAPE)
    ]  # fmt: skip
    np.testing.assert_array_equal(first["two"], again["two"])
    assert not np.array_equal(first["one"], first["two"]) and not np.array_equal(first["one"], other["one"])


def test_a_package_can_be_moved_and_read_again(copy, compiled):
    package = Package(copy)
    assert package.manifest == compiled.manifest
    np.testing.assert_array_equal(only(package.reference), only(compiled.reference))


@pytest.mark.parametrize(("schema", "inputs"), [(3, 7), (1, 1)])
def test_a_package_of_before_schema_4_is_read_and_runs(copy, compiled, local, schema, inputs):
    as_before_schema_4(copy, schema)
    package = Package(copy)
    assert len(package.answers.each) == inputs
    ours, old = compiled.answers, package.answers
    for one, other in zip(ours.each, old.each, strict=False):
        np.testing.assert_array_equal(only(one.expected), only(other.expected))
        assert list(one.tolerances.values()) == list(other.tolerances.values())
    assert (schema == 1) == (None in old.roundings.values()) == bool(old.blind)
    with find_device("local", local) as device:
        bench_package(package, device, 1, 0, 1)
        assert np.isfinite(only(run_package(package, device, package.inputs))).all()
    assert Package(copy).manifest.timings, "what was noted is read again"
    assert main(["run", str(copy)]) == 0


def test_a_timing_replaces_that_of_the_same_device_and_threads(copy):
    package = Package(copy)
    board = {"name": "board", "kind": "measured"}
    for median in (3.0, 2.0):
        package.add_timing(Timing(board, 1, {"median": median}))
    package.add_timing(Timing(board, 2, {"median": 1.0}))
    timings = Package(copy).manifest.timings
    assert [(t.threads, t.latency_us["median"]) for t in timings] == [(1, 2.0), (2, 1.0)]
    assert sorted(os.listdir(copy)) == sorted([MANIFEST, answers_file(0), SBOM, "tiny.so", FOLDER])


def test_a_manifest_of_a_later_version_may_say_more(copy):
    edit(copy, colour="blue")
    assert Package(copy).manifest.model == "tiny"


# Damage


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        ({"by": "local", "max_abs_err": 1e-7, "tolerance": 1e-4}, "verified on local: largest error"),
        ({"by": "local"}, "not verified: nobody has seen it run"),
        ({"by": "local", "max_abs_err": 1.0, "tolerance": 1e-4}, "not verified: "),
        ({"reason": "no qemu"}, "not verified: no qemu; next: tvm-shufflenet bench PACKAGE"),
        ({}, "not verified: "),
    ],
)
def test_a_manifest_that_claims_half_of_it_was_not_verified(copy, verified, said):
    edit(copy, verified=verified)
    assert str(Package(copy).manifest.verified).startswith(said)


def test_a_changed_file_is_found(copy):
    for name in ("tiny.so", answers_file(0)):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(PackageInvalid, match="has changed"):
            Package(copy)
        (copy / name).write_bytes(content)
    Package(copy)


def test_a_truncated_library_is_found(copy):
    content = (copy / "tiny.so").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (copy / "tiny.so").write_bytes(content[:length])
        with pytest.raises(PackageInvalid, match=r"tiny\.so has changed"):
            Package(copy)


@pytest.mark.parametrize("name", ["tiny.so", answers_file(0)])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(PackageInvalid, match=f"lacks {name}"):
        Package(copy)


def test_a_folder_without_a_manifest_is_no_package(tmp_path, copy):
    for folder in (tmp_path / "missing", tmp_path, copy / "tiny.so"):
        with pytest.raises(PackageInvalid, match="not a package"):
            Package(folder)


GARBAGE = [b"", b"{", b"null", b"[]", b"17", b'{"schema": 1}', bytes(range(256)), b'{"schema": 1, "model": "\xff"}']


@pytest.mark.parametrize("content", GARBAGE)
def test_a_garbage_manifest_is_refused(copy, content):
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(PackageInvalid) as refused:
        Package(copy)
    assert MANIFEST in str(refused.value)


@pytest.mark.parametrize("schema", [0, 5, "1", None])
def test_another_schema_is_refused(copy, schema):
    edit(copy, schema=schema)
    with pytest.raises(PackageInvalid, match="has schema"):
        Package(copy)


@pytest.mark.parametrize("field", ["hashes", "library", "machine", "inputs", "tolerances", "operators"])
def test_a_manifest_that_lacks_a_field_is_refused(copy, field):
    manifest = json.loads((copy / MANIFEST).read_bytes())
    del manifest[field]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(PackageInvalid, match=field):
        Package(copy)


@pytest.mark.parametrize(
    "changes",
    [{"hashes": {}}, {"library": "other.so"}, {"library": "../tiny/tiny.so"}, {"library": MANIFEST}, {"library": ""}],
    ids=str,
)
def test_a_manifest_that_leads_elsewhere_is_refused(copy, changes):
    """Every file that is used has to be in the folder and hashed."""
    edit(copy, **changes)
    with pytest.raises(PackageInvalid):
        Package(copy)


def test_a_library_that_was_swapped_for_another_machine_s_is_refused(copy):
    library = bytearray((copy / "tiny.so").read_bytes())
    struct.pack_into("<H", library, 18, 243)
    (copy / "tiny.so").write_bytes(library)
    hashes = json.loads((copy / MANIFEST).read_bytes())["hashes"]
    edit(copy, hashes=hashes | {"tiny.so": hashlib.sha256(library).hexdigest()})
    with pytest.raises(PackageInvalid, match="built for riscv"):
        Package(copy)


def test_a_package_of_another_machine_is_refused_by_name(compiled):
    machine = compiled.manifest.machine
    compiled.check_machine(machine, "local")
    with pytest.raises(PackageInvalid, match=f"is built for {machine}, emulated is {OTHER[machine]}"):
        compiled.check_machine(OTHER[machine], "emulated")


# Writing


def parts(compiled) -> tuple[Path, Sequence[Answer], Manifest]:
    return compiled.library, compiled.answers.each, compiled.manifest


def test_a_package_is_written_over_an_older_one(compiled, tmp_path):
    library, answers, manifest = parts(compiled)
    write_package(tmp_path / "made" / "here", library, answers, manifest)
    renamed = msgspec.structs.replace(manifest, library="renamed.so")
    changed = only(answers[0].expected) + 1
    package = write_package(
        tmp_path / "made" / "here", library, [replace(answers[0], expected={OUTPUT: changed})], renamed
    )
    assert sorted(os.listdir(package.folder)) == sorted([MANIFEST, answers_file(0), SBOM, "renamed.so", FOLDER]), (
        "nothing of the older one"
    )
    np.testing.assert_array_equal(only(package.reference), changed)
    assert os.listdir(tmp_path / "made") == ["here"]


def test_an_empty_folder_may_become_a_package(compiled, tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_package(tmp_path / "empty", *parts(compiled)).manifest.model == "tiny"


def test_other_folders_and_files_are_not_overwritten(compiled, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    (tmp_path / "file").write_text("more")
    for name in ("thesis", "file"):
        with pytest.raises(PackageInvalid, match="is no package"):
            write_package(tmp_path / name, *parts(compiled))
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years"
    assert (tmp_path / "file").read_text() == "more"
    assert sorted(os.listdir(tmp_path)) == ["file", "thesis"]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("step", ["sha256", "write_manifest"])
@pytest.mark.parametrize("older", [False, True])
def test_an_interrupted_write_leaves_what_was_there(compiled, tmp_path, monkeypatch, step, older):
    if older:
        shutil.copytree(compiled.folder, tmp_path / "tiny")

    def interrupt(*_):
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(packages, step, interrupt)
        with pytest.raises(Interrupted):
            write_package(tmp_path / "tiny", *parts(compiled))
    assert os.listdir(tmp_path) == (["tiny"] if older else [])
    if older:
        assert Package(tmp_path / "tiny").manifest == compiled.manifest


def test_a_failed_swap_leaves_the_older_package(compiled, copy, monkeypatch):
    real = type(copy).rename

    def refuse(path, target):
        if str(target) == str(copy) and not path.name.endswith("-older"):
            raise OSError("no")
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(type(copy), "rename", refuse)
        with pytest.raises(OSError, match="no"):
            write_package(copy, *parts(compiled))
    assert os.listdir(copy.parent) == ["tiny"]
    assert Package(copy).manifest == compiled.manifest


# The linker


def test_elf_machine_reads_the_header(compiled, local, tmp_path):
    assert elf_machine(compiled.library) == local.machine
    header = bytearray(compiled.library.read_bytes()[:64])
    for code, name in ((183, "aarch64"), (62, "x86_64"), (40, "arm"), (999, "machine 999")):
        struct.pack_into("<H", header, 18, code)
        (tmp_path / "made.so").write_bytes(header)
        assert elf_machine(tmp_path / "made.so") == name


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!/bin/sh\nexit 0\n" * 10, b"\x7fELF\x01" + bytes(60), bytes(100)]
)
def test_what_is_no_64_bit_elf_file_is_refused(tmp_path, content):
    (tmp_path / "odd.so").write_bytes(content)
    with pytest.raises(PackageInvalid, match="not a 64-bit ELF"):
        elf_machine(tmp_path / "odd.so")


@pytest.fixture
def objects(tmp_path):
    """An object file of this machine."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "one.c").write_text("int one(void) { return 1; }\n")
    assert os.spawnl(os.P_WAIT, compiler, compiler, "-c", "-fPIC", f"{tmp_path}/one.c", "-o", f"{tmp_path}/one.o") == 0
    return [str(tmp_path / "one.o")]


def leftovers(folder) -> list[str]:
    return [name for name in os.listdir(folder) if "tiny" in name]


def test_the_variable_names_the_linker(monkeypatch, local, objects, tmp_path):
    monkeypatch.setenv(CC_VARIABLE, "cc -O1 '-DA=b c'")
    assert linker_command(local) == ["cc", "-O1", "-DA=b c", "-shared", "-fPIC"] == trial_command(local)
    link(objects, tmp_path / "tiny.so", linker_command(local), local.machine)
    assert elf_machine(tmp_path / "tiny.so") == local.machine
    assert leftovers(tmp_path) == ["tiny.so"]


def test_zig_links_for_each_system():
    commands = {name: " ".join(linker_command(find_target(name))) for name in ("arm64", "android-arm64", "x86-64")}
    assert f"-target aarch64-linux-gnu.{linking.GLIBC} " in commands["arm64"]
    assert "-target aarch64-linux-musl " in commands["android-arm64"]
    assert f"-target x86_64-linux-gnu.{linking.GLIBC} " in commands["x86-64"]


def test_without_zig_the_install_command_is_told(monkeypatch):
    monkeypatch.delenv(CC_VARIABLE, raising=False)
    monkeypatch.setenv("TVM_SHUFFLENET_ZIG", "/nonexistent/zig")
    with pytest.raises(ToolMissing, match="zig is missing") as missing:
        linker_command(find_target("arm64"))
    assert missing.value.exit_code == 3 and missing.value.next_step


def test_a_missing_compiler_is_named(monkeypatch, local, objects, tmp_path):
    monkeypatch.setenv(CC_VARIABLE, "/nonexistent")
    with pytest.raises(LinkFailed, match="/nonexistent") as failed:
        link(objects, tmp_path / "tiny.so", linker_command(local), local.machine)
    assert failed.value.exit_code == 3 and CC_VARIABLE in str(failed.value)
    assert leftovers(tmp_path) == []


def test_a_compiler_that_fails_is_quoted(monkeypatch, local, objects, tmp_path):
    with pytest.raises(LinkFailed, match=r"linking failed: .*missing"):
        link([*objects, str(tmp_path / "missing.o")], tmp_path / "tiny.so", ["cc", "-shared"], local.machine)
    assert leftovers(tmp_path) == []


def test_a_compiler_that_makes_nothing_is_refused(local, objects, tmp_path):
    with pytest.raises(LinkFailed):
        link(objects, tmp_path / "tiny.so", ["true"], local.machine)
    assert leftovers(tmp_path) == []


def test_a_compiler_that_makes_no_library_is_refused(local, objects, tmp_path):
    script = tmp_path / "cc.sh"
    script.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho hello > "$2"\n')
    script.chmod(0o755)
    with pytest.raises(LinkFailed):
        link(objects, tmp_path / "tiny.so", [str(script)], local.machine)
    assert leftovers(tmp_path) == []


def test_a_library_of_the_wrong_machine_is_refused_before_it_is_left(local, objects, tmp_path):
    other = OTHER[local.machine]
    with pytest.raises(LinkFailed, match=f"made a {local.machine} library.*target is {other}"):
        link(objects, tmp_path / "tiny.so", ["cc", "-shared"], other)
    assert leftovers(tmp_path) == []


def test_an_older_library_outlives_a_failed_link(local, objects, tmp_path):
    (tmp_path / "tiny.so").write_text("older")
    with pytest.raises(LinkFailed):
        link(objects, tmp_path / "tiny.so", ["cc", "-shared"], OTHER[local.machine])
    assert (tmp_path / "tiny.so").read_text() == "older"


@pytest.mark.parametrize("compiler", ["/nonexistent", "gcc"])
def test_a_package_for_arm64_needs_a_compiler_for_arm64(imported, monkeypatch, tmp_path, compiler):
    """gcc here makes code of this machine: it fails on the objects, or it links and the header gives it away."""
    if find_target("local").machine == "aarch64" and compiler == "gcc":
        pytest.skip("gcc of an arm64 machine is right")
    monkeypatch.setenv(CC_VARIABLE, compiler)
    with pytest.raises(LinkFailed):
        compile_package(imported, find_target("arm64"), None, tmp_path / "tiny")
    assert os.listdir(tmp_path) == []


def test_a_package_for_arm64_holds_arm64_code(imported, tmp_path):
    store = RecordStore(tmp_path / "records", find_target("arm64").tvm())
    package = compile_package(imported, find_target("arm64"), store, tmp_path / "tiny")
    assert package.manifest.machine == elf_machine(package.library) == "aarch64"


def test_a_package_for_another_cpu_is_refused_by_the_features_it_was_compiled_for(compiled, copy, capsys):
    """``local`` is this CPU here, and was another one there."""
    facts = json.loads((copy / MANIFEST).read_text())
    facts["target_config"]["mcpu"] = "sapphirerapids" if host_machine() == "x86_64" else "neoverse-v2"
    needed = features_of(compiled_for(find_target("local"), facts["target_config"]))
    if {"avx512fp16", "sve2"} & needed <= features_of(find_target("local")):
        pytest.skip("this CPU has all of it")
    (copy / MANIFEST).write_text(json.dumps(facts))
    assert main(["bench", str(copy), "--device", "local"]) == 4
    assert "cannot execute" in capsys.readouterr().err
    for hostile in ({"mcpu": 3, "mattr": "x"}, {"mcpu": "a b;", "mattr": [None, "\x1b"]}, {}):
        assert compiled_for(find_target("cortex-a76"), hostile) == find_target("cortex-a76")
