"""Packages in one file: the same as in a folder, and nothing of a damaged or a hostile one is ever written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cross import static_zig_cc
from helpers.tensors import only
from helpers.tiny_packages import ELF, answers, manifest, members, written
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.errors import PackageInvalid
from tvm_shufflenet.licences.linked import linked_by, without_folders
from tvm_shufflenet.licences.sbom import SBOM
from tvm_shufflenet.licences.texts import FOLDER, WEIGHTS, licences_of, texts_for
from tvm_shufflenet.packages.archive import pack, safe_name
from tvm_shufflenet.packages.manifest import MANIFEST, SCHEMA, Timing
from tvm_shufflenet.packages.package import Package, answers_file, write_package
from tvm_shufflenet.support import toolchain


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "built.so"
    path.write_bytes(ELF + os.urandom(200_000))
    return path


@pytest.fixture
def archive(tmp_path, library):
    return written(tmp_path / "tiny.tar.zst", library).path


def rebuilt(archive: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    """An archive of these files, and of members that are none."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    archive.write_bytes(zstandard.compress(file.getvalue()))
    return archive


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Reads an archive that must be refused, and makes sure that nothing was written."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)

    def read(archive: Path) -> str:
        before = sorted(path.name for path in archive.parent.iterdir())
        with pytest.raises(PackageInvalid) as error:
            Package(archive)
        assert not list(scratch.iterdir()) and sorted(path.name for path in archive.parent.iterdir()) == before
        return str(error.value)

    return read


# Both forms


def test_an_archive_holds_what_the_folder_holds(tmp_path, library, archive):
    folder, packed = written(tmp_path / "tiny", library), Package(archive)
    assert packed.manifest == folder.manifest and packed.path == archive != packed.folder
    for name in (*folder.manifest.hashes, MANIFEST):
        assert (packed.folder / name).read_bytes() == (folder.folder / name).read_bytes()
        assert os.access(packed.folder / name, os.X_OK) == os.access(folder.folder / name, os.X_OK)
    texts = {name for name in folder.manifest.hashes if name.startswith(f"{FOLDER}/")}
    assert set(folder.manifest.hashes) == {"tiny.so", answers_file(0), SBOM, "tiny_bench", "examples/run.c", *texts}
    np.testing.assert_array_equal(only(packed.reference), only(folder.reference))


def test_an_unpacked_package_goes_with_its_object(archive):
    package = Package(archive)
    folder = package.folder
    assert folder.is_dir()
    del package
    assert not folder.exists()


def test_the_same_files_make_the_same_archive(tmp_path, archive):
    first, names = archive.read_bytes(), (MANIFEST, *sorted(Package(archive).manifest.hashes))
    package = Package(archive)
    os.utime(package.folder / "tiny.so", (1, 1))
    pack(package.folder, names, tmp_path / "again.tar.zst")
    assert (tmp_path / "again.tar.zst").read_bytes() == first


def test_tar_packs_and_unpacks_one(tmp_path, library, archive):
    (tmp_path / "by-tar").mkdir()
    subprocess.run(["tar", "--zstd", "-xf", archive, "-C", tmp_path / "by-tar"], check=True)
    assert Package(tmp_path / "by-tar").manifest == Package(archive).manifest
    subprocess.run(["tar", "--zstd", "-cf", tmp_path / "by-tar.tar.zst", "-C", tmp_path / "by-tar", "."], check=True)
    assert Package(tmp_path / "by-tar.tar.zst").manifest == Package(archive).manifest


def test_a_timing_is_written_back(archive):
    package = Package(archive)
    package.add_timing(Timing({"name": "board"}, 1, {"median": 3.0}, affinity="0,1", cold_us=5.0))
    package.add_timing(Timing({"name": "board"}, 1, {"median": 2.0}, affinity="0,1"))
    package.add_timing(Timing({"name": "board"}, 1, {"median": 1.0}))
    again = Package(archive)
    assert [(t.affinity, t.latency_us["median"]) for t in again.manifest.timings] == [("0,1", 2.0), (None, 1.0)]
    assert again.manifest.hashes == package.manifest.hashes


def test_an_archive_is_written_over_an_older_one_only(tmp_path, library, archive):
    assert written(archive, library).path == archive
    (tmp_path / "thesis.tar.zst").write_text("years")
    (tmp_path / "folder.tar.zst").mkdir()
    for name in ("thesis.tar.zst", "folder.tar.zst"):
        with pytest.raises(PackageInvalid, match="is no package"):
            written(tmp_path / name, library)
    assert (tmp_path / "thesis.tar.zst").read_text() == "years"
    with pytest.raises(PackageInvalid, match="is no package"):
        written(Path(shutil.copy(archive, tmp_path / "file")), library)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Damage


def test_an_archive_cut_anywhere_is_refused(refused, archive):
    whole = archive.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 5, len(whole) - 1):
        archive.write_bytes(whole[:length])
        assert "not a package" in (said := refused(archive)) or "cannot be read as a package" in said


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_an_archive_with_a_changed_byte_is_refused(tmp_path_factory, place, flipped):
    """zstd's own checksum sees it, or tar's, or a hash."""
    folder = tmp_path_factory.mktemp("changed")
    (folder / "built.so").write_bytes(ELF + bytes(range(256)) * 8)
    archive = written(folder / "tiny.tar.zst", folder / "built.so").path
    content = bytearray(archive.read_bytes())
    content[int(place * len(content))] ^= flipped
    archive.write_bytes(content)
    try:
        found = Package(archive)
    except PackageInvalid:
        return
    assert hashlib.sha256(found.library.read_bytes()).hexdigest() == found.manifest.hashes["tiny.so"]


@pytest.mark.parametrize("more", [b"x", zstandard.compress(b"more")])
def test_something_behind_the_archive_is_refused(refused, archive, more):
    archive.write_bytes(archive.read_bytes() + more)
    assert "follows its end" in refused(archive)


def test_something_behind_the_tar_is_refused(refused, archive):
    content = zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read()
    archive.write_bytes(zstandard.compress(content + b"hidden" + bytes(506)))
    assert "follows the end of the tar" in refused(archive)


@pytest.mark.parametrize("name", ["tiny.so", answers_file(0), "tiny_bench"])
def test_a_file_cut_short_is_refused(refused, archive, name):
    files = members(archive)
    assert f"{name} has changed" in refused(rebuilt(archive, files | {name: files[name][:-1]}))
    del files[name]
    assert f"lacks {name}" in refused(rebuilt(archive, files))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"\xff", "cannot be read"),
        (None, "not a package"),
        (json.dumps({"schema": SCHEMA + 1}).encode(), "a newer version compiled it"),
        (json.dumps({"schema": SCHEMA, "model": 3}).encode(), "cannot be read"),
    ],
)
def test_a_bad_manifest_is_refused(refused, archive, text, words):
    files = members(archive) | {MANIFEST: text}
    said = refused(rebuilt(archive, {name: content for name, content in files.items() if content is not None}))
    assert words in said


def test_another_machine_s_library_is_refused(refused, archive):
    files = members(archive)
    files["tiny.so"] = files["tiny.so"].replace(b"\x03\x00\xb7\x00", b"\x03\x00\x3e\x00", 1)
    facts = json.loads(files[MANIFEST])
    facts["hashes"]["tiny.so"] = hashlib.sha256(files["tiny.so"]).hexdigest()
    assert "is built for x86_64" in refused(rebuilt(archive, files | {MANIFEST: json.dumps(facts).encode()}))


# Harm


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..", "a//b", "a/./b", "a\\b", "a\nb"])
def test_a_name_that_leads_out_of_the_folder_is_refused(refused, archive, name):
    assert "leads out of the folder" in refused(rebuilt(archive, members(archive) | {name: b"evil"}))
    assert not safe_name(name)


def test_a_manifest_cannot_lead_out_of_the_folder(refused, archive, tmp_path):
    (tmp_path / "secret").write_text("key")
    files = members(archive)
    facts = json.loads(files[MANIFEST])
    facts["hashes"]["../secret"] = hashlib.sha256(b"key").hexdigest()
    assert "lacks ../secret" in refused(rebuilt(archive, files | {MANIFEST: json.dumps(facts).encode()}))


def test_a_folder_s_link_to_elsewhere_is_refused(tmp_path, library):
    package = written(tmp_path / "tiny", library)
    (tmp_path / "elsewhere").write_bytes((package.folder / "tiny_bench").read_bytes())
    (package.folder / "tiny_bench").unlink()
    (package.folder / "tiny_bench").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageInvalid, match="lacks tiny_bench"):
        Package(tmp_path / "tiny")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(refused, archive, kind):
    link = tarfile.TarInfo("examples")
    link.type, link.linkname = kind, "/etc"
    assert "is a link or a device" in refused(rebuilt(archive, members(archive), link))


def test_a_file_twice_or_one_that_nobody_named_is_refused(refused, archive):
    files = members(archive)
    assert "holds tiny.so twice" in refused(rebuilt(archive, files, tarfile.TarInfo("tiny.so")))
    assert "holds stranger, which its manifest does not name" in refused(rebuilt(archive, files | {"stranger": b""}))


def test_an_archive_that_unpacks_to_too_much_is_refused(refused, archive, monkeypatch):
    monkeypatch.setattr("tvm_shufflenet.packages.archive.LARGEST_BYTES", 100_000)
    assert "unpacks to more than" in refused(archive)


# Licences, and what is shown


def test_every_file_has_a_licence():
    names = ["m.so", "libm.so", "m.h", "m.hpp", "m.py", "m_bench", "examples/a.c", "cmake/m.cmake", answers_file(0)]
    found = licences_of(names, ("/opt/zig", "cc"))
    of = {name: {part.licence for part in found if name in part.files} for name in names}
    assert of["m.so"] == of["libm.so"] == {"Apache-2.0", WEIGHTS, "MIT"} and of[answers_file(0)] == {WEIGHTS}
    assert of["m.h"] == of["examples/a.c"] == of["cmake/m.cmake"] == {"Apache-2.0"}
    assert {part.part for part in found if "m_bench" in part.files} >= {"C library", "kernels", "compiler runtime"}
    assert not [part for part in licences_of(names, ("aarch64-linux-gnu-gcc",)) if part.part == "compiler runtime"]


ZIG = toolchain.find_zig().path


@pytest.mark.skipif(ZIG is None, reason="missing: zig")
def test_the_licence_texts_are_those_of_what_is_inside():
    texts = {name.split("/")[1]: text.decode() for name, text in texts_for(["m.so", "m_bench"], (ZIG, "cc")).items()}
    for name, words in {
        "tvm-shufflenet-LICENSE.txt": "Apache License",
        "apache-tvm-LICENSE.txt": "Apache License",
        "apache-tvm-NOTICE.txt": "Apache TVM",
        "zig-LICENSE.txt": "Zig contributors",
        "musl-COPYRIGHT.txt": "Rich Felker",
        "llvm-LICENSE.txt": "LLVM Exceptions to the Apache 2.0 License",
    }.items():
        assert words in texts[name]
    assert "musl-COPYRIGHT.txt" not in texts_for(["m.so"], ("aarch64-linux-gnu-gcc",))
    found = licences_of(["m.so", "m_bench"], (ZIG, "cc"), [f"{FOLDER}/{name}" for name in texts])
    versions = {part.part: part.version for part in found if part.version}
    done = subprocess.run([ZIG, "version"], capture_output=True, text=True)
    assert versions == {"compiler runtime": done.stdout.strip(), "C library": linked_by(ZIG).musl}
    assert {text.split("/")[1] for part in found for text in part.texts} == set(texts)


@pytest.mark.skipif(ZIG is None, reason="missing: zig")
def test_musl_and_llvm_are_of_the_versions_that_zig_brings(tmp_path):
    """As a program that zig has linked says itself."""
    (tmp_path / "m.c").write_text(
        "#include <stdio.h>\nextern const char __libc_version[];\nint main(void) { puts(__libc_version); }\n"
    )
    machine = os.uname().machine
    command = static_zig_cc(machine, "m.c", "-o", "m")
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "m"], capture_output=True, text=True).stdout.strip() == linked_by(ZIG).musl
    done = subprocess.run([*static_zig_cc(machine), "--version"], capture_output=True, text=True)
    assert f"clang version {linked_by(ZIG).llvm}" in done.stdout


def test_a_command_without_folders():
    words = ("/opt/zig/zig", "cc", "--sysroot=/opt/a/root", "-L/opt/lib", "-Wl,-rpath,/x/y", "-target", "a-b")
    assert without_folders(words) == ("zig", "cc", "--sysroot=root", "-Llib", "-Wl,-rpath,y", "-target", "a-b")


@pytest.mark.parametrize("name", ["tiny", "tiny.tar.zst"])
def test_inspect(capsys, tmp_path, library, name):
    package = written(tmp_path / name, library)
    package.add_timing(
        Timing({"name": "adb:1", "model": "Phone", "kernel": "6.1"}, 2, {"median": 1500.0, "kind": "measured"}, "4,5")
    )
    assert main(["inspect", str(tmp_path / name)]) == 0
    shown = capsys.readouterr().out
    assert "all hashes match" in shown and "tiny_bench" in shown and WEIGHTS in shown
    assert "1.500 ms (measured) on adb:1, 2 threads, CPUs 4,5; model Phone; kernel 6.1" in shown
    assert main(["inspect", str(tmp_path / name), "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["schema"], facts["form"]) == (1, "archive" if name.endswith("zst") else "folder")
    assert {file["name"]: file["sha256"] for file in facts["files"]} == package.manifest.hashes
    assert all(file["licences"] and file["bytes"] for file in facts["files"])
    assert facts["manifest"]["model"] == "tiny" and facts["manifest"]["timings"][0]["affinity"] == "4,5"


def test_the_bill_of_materials_is_cyclonedx_and_lists_every_file(archive):
    package = Package(archive)
    text = (package.folder / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bill = json.loads(text)
    files = {part["name"]: part["hashes"][0]["content"] for part in bill["components"] if part["type"] == "file"}
    assert files == {name: digest for name, digest in package.manifest.hashes.items() if name != SBOM}
    assert all(part["licenses"] for part in bill["components"])
    tools = {tool["name"]: tool.get("version") for tool in bill["metadata"]["tools"]["components"]}
    assert tools["apache-tvm"] == package.manifest.tvm and tools["ziglang"]


@pytest.mark.skipif(ZIG is None, reason="missing: zig")
def test_the_bill_has_the_versions_of_what_is_linked_in(tmp_path, library):
    bench = library.with_name("tiny_bench")
    bench.write_bytes(b"#!/bin/sh\n")
    facts = manifest(linker=(ZIG, "cc"))
    package = write_package(
        tmp_path / "tiny", library, answers(np.ones((1, 2), "float32")), facts, {"tiny_bench": bench}
    )
    text = (package.folder / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    versions = {part["name"]: part.get("version") for part in json.loads(text)["components"]}
    assert versions["musl"] == linked_by(ZIG).musl and versions["compiler-rt"] == linked_by(ZIG).zig
    assert package.manifest.linker == ("zig", "cc") and str(ZIG) not in text


def test_inspect_refuses_what_is_no_package(capsys, tmp_path, archive):
    archive.write_bytes(archive.read_bytes()[:1000])
    for path in (archive, tmp_path / "absent", tmp_path / "absent.tar.zst"):
        assert main(["inspect", str(path), "--json", str(tmp_path / "facts.json")]) == 2
        assert "package" in capsys.readouterr().err
    assert not (tmp_path / "facts.json").exists()
