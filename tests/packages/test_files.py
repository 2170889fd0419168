"""What others put in place of a file: nothing waits for it, nothing is written through it, nothing grows with it."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

from helpers.tiny_packages import members, written
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.errors import BadInput, DeviceFailed, PackageInvalid
from tvm_shufflenet.packages.inputs import read_input, write_array
from tvm_shufflenet.packages.labels import read_labels
from tvm_shufflenet.packages.manifest import MANIFEST, Timing
from tvm_shufflenet.packages.package import Package, answers_file
from tvm_shufflenet.report.baseline import read_baseline
from tvm_shufflenet.support.files import (
    JSON_DEPTH,
    YOUNG_S,
    Malformed,
    Unsuitable,
    draft_of,
    nests_deeper,
    open_file,
    parse_json,
    read_file,
    replacing,
    sha256_of,
    write_output,
)
from tvm_shufflenet.text import clean
from tvm_shufflenet.tuning.records.folder import JOURNAL, RECORDS, WORKLOADS, RecordFolder
from tvm_shufflenet.tuning.records.journal import Damaged, parse
from tvm_shufflenet.tuning.records.lines import LOCK, append_line, replace_lines
from tvm_shufflenet.tuning.records.shipped import BEST
from tvm_shufflenet.verification.reproducer import read_reproducer
from tvm_shufflenet.workflow.replay import replay

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44)
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def package(tmp_path):
    library = tmp_path / "built.so"
    library.write_bytes(ELF + os.urandom(1000))
    return written(tmp_path / "tiny", library)


@pytest.fixture(autouse=True)
def no_waiting():
    """A test that waits for a FIFO ends the run with a traceback, not after the suite's ten minutes."""
    timer = threading.Timer(60, os._exit, [3])
    timer.start()
    yield
    timer.cancel()


def fifo(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


# One way to open


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_read(tmp_path, make):
    make(tmp_path / "file")
    for read in (open_file, read_file, sha256_of):
        with pytest.raises(Unsuitable, match=r"is a (FIFO|folder|device), not a regular file"):
            read(tmp_path / "file")


def test_a_link_is_followed_only_where_it_may_be(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link") == b"data"
    with pytest.raises(Unsuitable, match="a symbolic link"):
        open_file(tmp_path / "link", follow=False)


def test_no_more_is_read_than_allowed(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1001))
    with pytest.raises(Unsuitable, match="larger than"):
        read_file(tmp_path / "file", 1000)
    assert len(read_file(tmp_path / "file", 1001)) == 1001


def test_a_hash_takes_no_memory(tmp_path):
    """Of a file of 200 MB, in a process that may have 50 more."""
    with open(tmp_path / "file", "wb") as file:
        file.truncate(200 << 20)
    script = (
        "import resource, sys; from tvm_shufflenet.support.files import sha256_of\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (50 << 20),) * 2); print(sha256_of(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "file"], capture_output=True, text=True)
    assert len(done.stdout.strip()) == 64, done.stderr


@pytest.mark.parametrize(
    "data", [DEEP, b'{"a":' * 100_000, b'[{"a":' * 50_000, b'"' + DEEP, b'{"a\\"": ' + DEEP + b"}"]
)
def test_json_that_nests_is_refused_without_recursion(data):
    with pytest.raises(Malformed):
        parse_json(data)
    with pytest.raises(Damaged):
        parse(data)


def test_depth_is_what_json_means_by_it():
    assert not nests_deeper(b"[" * JSON_DEPTH + b"]" * JSON_DEPTH, JSON_DEPTH)
    assert nests_deeper(b"[" * (JSON_DEPTH + 1) + b"]" * (JSON_DEPTH + 1), JSON_DEPTH)
    assert not nests_deeper(json.dumps(["[" * 1000, '"[[' * 1000, "\\"] * 50).encode(), JSON_DEPTH)
    assert not nests_deeper(b"[[],{}," * 3 + b"[]" + b"]" * 3 + b"[]" * 1000, JSON_DEPTH)
    assert not nests_deeper(b'"' * 1_000_001, JSON_DEPTH) and not nests_deeper(b'"\\' * 1_000_001, JSON_DEPTH)


# What reads


@pytest.mark.parametrize("content", [DEEP, b'{"a":' * 100_000, None], ids=["list", "dict", "fifo"])
def test_every_reader_of_json_says_what_is_wrong(tmp_path, package, content):
    def bad(path: Path) -> Path:
        return fifo(path) if content is None else (path.write_bytes(content), path)[1]

    with pytest.raises(BadInput, match="baseline"):
        read_baseline(bad(tmp_path / "old.json"))
    with pytest.raises(BadInput, match="cannot read labels"):
        read_labels(bad(tmp_path / "labels.json"), 3)
    with pytest.raises(BadInput, match="is no reproducer"):
        bad(tmp_path / "finding.json")
        read_reproducer(tmp_path)
    bad(package.folder / MANIFEST)
    with pytest.raises(PackageInvalid, match="cannot be read"):
        Package(package.folder)


@pytest.mark.parametrize("name", [answers_file(0), "tiny.so", "tiny_bench", MANIFEST])
def test_a_fifo_in_place_of_a_file_does_not_hold_inspect(package, capsys, name):
    fifo(package.folder / name)
    assert main(["inspect", str(package.folder)]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", ["image.npy", "image.png"])
def test_a_fifo_in_place_of_an_input_is_refused(tmp_path, name):
    with pytest.raises(BadInput):
        read_input(str(fifo(tmp_path / name)), (1, 3, 8, 8))


@pytest.mark.parametrize("name", [WORKLOADS, RECORDS, JOURNAL])
def test_a_fifo_in_place_of_records_does_not_hold_tune(tmp_path, name):
    fifo(tmp_path / name)
    with pytest.raises(BadInput, match=f"{name} is a FIFO"):
        RecordFolder(tmp_path)


def test_shipped_records_in_a_fifo_are_refused(tmp_path, capsys):
    fifo(tmp_path / BEST)
    assert main(["records", "list", str(tmp_path)]) == 2
    assert "is a FIFO" in capsys.readouterr().err


def test_a_reference_is_what_the_manifest_says(package):
    np.save(package.folder / answers_file(0), np.ones((3, 7), "float32"))
    with pytest.raises(PackageInvalid, match=r"is float32 \(3, 7\), the manifest says float32 \(1, 1, 2\)"):
        package.reference  # noqa: B018
    (package.folder / answers_file(0)).write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, "
                                             b"'shape': (99999999999, 9999), }".ljust(118) + b"\n")  # fmt: skip
    with pytest.raises(PackageInvalid, match="is no tensor"):
        package.reference  # noqa: B018


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": [{"name": "data", "shape": [1, 3, 10**9, 10**9]}]},
        {"outputs": [{"name": "output0", "shape": [-1, 2]}]},
        {"inputs": [{"name": "data", "shape": [1] * 100}]},
        {"inputs": [{"name": "data", "shape": ["n", 3]}]},
        {"tolerances": {}},
        {"tolerances": {"output0": 1e-4, "output1": 1e-4}},
        {"probes": [{"name": "other", "tolerances": {}}]},
        {"seed": -1},
        {"model": "../../tiny"},
        {"model": "a/b"},
    ],
)
def test_a_manifest_of_impossible_values_is_refused(package, changed):
    facts = json.loads((package.folder / MANIFEST).read_bytes()) | changed
    (package.folder / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(PackageInvalid, match="cannot be read"):
        Package(package.folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": []}, "takes 0 inputs: none"),
        ({"inputs": [{"name": name, "shape": [1]} for name in "ab"]}, "takes 2 inputs: a, b"),
        ({"outputs": [{"name": "output0", "shape": [1, 2], "dtype": "int64"}]}, "returns int64, only float32"),
    ],
)
def test_a_package_of_what_is_not_deployed_here_is_refused_by_name(package, changed, words):
    facts = json.loads((package.folder / MANIFEST).read_bytes()) | changed
    (package.folder / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(PackageInvalid, match=words):
        Package(package.folder)


def test_a_package_shows_nothing_that_a_terminal_obeys(package, capsys):
    facts = json.loads((package.folder / MANIFEST).read_bytes())
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31mplan\u202e"
    facts |= {"plan": evil, "timings": [{"device": {"name": evil}, "threads": 1, "latency_us": {"kind": evil}}]}
    facts["verified"] = {"reason": evil, "next_step": evil}
    (package.folder / MANIFEST).write_text(json.dumps(facts))
    assert main(["inspect", str(package.folder)]) == 0
    shown = capsys.readouterr().out
    assert "plan?" in shown and not set(shown) & set("\x1b\x07\x9b\u202e") and "owned" not in shown


# Text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Raspberry Pi 4, Größe 5 µs, 名前", "Raspberry Pi 4, Größe 5 µs, 名前"),
        ("two\nlines\tand a tab\r\n", "two\nlines\tand a tab\n"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]52;c;ZXZpbA==\x07clip", "clip"),
        ("\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\", "here"),
        ("\x1bP+q544e\x1b\\\x1b(0\x1bcreset", "reset"),
        ("\x9b2J\x9d0;title\x9cdone", "done"),
        ("over\rwritten\x08\x7f\x00", "over?written???"),
        ("\u202etxt.exe\u2066", "?txt.exe?"),
        ("half \ud800", "half ?"),
        ("a bare \x1b", "a bare "),
        ("\x1b]0;never ends", "0;never ends"),
    ],
)
def test_text_is_cleaned(text, cleaned):
    assert clean(text) == cleaned and clean(cleaned) == cleaned
    assert str(DeviceFailed(text, text, text)).count(cleaned) == 3


# What writes


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


def test_nothing_is_written_through_a_link(tmp_path, package, victim):
    for name in (MANIFEST + ".new", "new.json.new", "new.npy.new"):
        (package.folder / name).symlink_to(victim)
        (tmp_path / name).symlink_to(victim)
    package.add_timing(Timing({"name": "board"}, 1, {"median": 3.0}))
    assert len(Package(package.folder).manifest.timings) == 1
    for name, write in {
        "new.json": lambda p: write_output(p, b"{}"),
        "new.npy": lambda p: write_array(p, np.ones(3)),
    }.items():
        write(tmp_path / name)
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(victim)
        write(tmp_path / name)
        assert not (tmp_path / name).is_symlink()
    assert not list(tmp_path.glob(".*.new")) and not list(package.folder.glob(".*.new"))


@pytest.mark.parametrize("name", [JOURNAL, LOCK])
def test_nothing_is_appended_through_a_link(tmp_path, victim, name):
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    if name == JOURNAL:
        with pytest.raises(BadInput, match="cannot write"):
            append_line(folder / name, b"{}")
    else:
        with pytest.raises(BadInput, match="cannot write"), RecordFolder(folder).ours():
            pass


WRITERS = {
    "file": "replacing(Path('made'))",
    "folder": "draft_of(Path('made'))",
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_killed_run_has_left_is_removed_by_the_next(kind, tmp_path):
    """And nothing else: not what a living run writes, what is young, or what only looks alike."""
    alike = tmp_path / ".made.20260101-backup.new"
    alike.mkdir()
    program = f"""
from pathlib import Path
from tvm_shufflenet.support.files import draft_of, replacing
with {WRITERS[kind]}:
    print("writing", flush=True)
    input()
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout.readline() == "writing\n"
    runs[0].kill()
    runs[0].wait()

    def left() -> set[Path]:
        return set(tmp_path.iterdir()) - {alike, tmp_path / "made"}

    def write() -> None:
        with replacing(tmp_path / "made") if kind == "file" else draft_of(tmp_path / "made"):
            pass

    write()
    assert len(left()) == 2, "both are young"
    for path in (*left(), alike):
        os.utime(path, (0, time.time() - 2 * YOUNG_S))
    write()
    assert len(left()) == 1 and alike.is_dir()
    runs[1].communicate("\n")
    assert runs[1].returncode == 0
    assert left() == set()


def test_lines_are_replaced_beside_a_link(tmp_path, victim):
    (tmp_path / "lines").write_bytes(b"old\n")
    (tmp_path / "lines.new").symlink_to(victim)
    replace_lines(tmp_path / "lines", [b"new"])
    assert (tmp_path / "lines").read_bytes() == b"new\n" and (tmp_path / "lines~").read_bytes() == b"old\n"


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file", sync=True) as file:
        file.write(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_output(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_pipe_that_the_user_names_is_written_to_and_stays(tmp_path):
    """As root, ``--json /dev/stdout`` would otherwise put a file in the place of the system's device."""
    path = fifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        write_output(path, b"nobody reads")
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        (tmp_path / "link").symlink_to(path)
        write_output(tmp_path / "link", b"facts")
        assert reader.read() == b"facts" and path.is_fifo() and (tmp_path / "link").is_symlink()


# Archives


def tar_of(*parts: bytes) -> bytes:
    return zstandard.compress(b"".join(parts) + bytes(1024))


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


KINDS = [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"X"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_cannot_be_larger_than_a_name(tmp_path, kind):
    """tarfile reads it whole: 300 MB of it here, of 30 KB of archive, in a process that may have 400 MB more."""
    compressor = zstandard.ZstdCompressor().compressobj()
    content = compressor.compress(header("long", kind, 300 << 20))
    content += b"".join(compressor.compress(bytes(1 << 20)) for _ in range(300))
    path = tmp_path / "bomb.tar.zst"
    path.write_bytes(content + compressor.compress(bytes(1024)) + compressor.flush())
    with pytest.raises(PackageInvalid, match="a header longer than any name"):
        Package(path)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_headers_cannot_be_chained_for_ever(tmp_path, kind):
    one = header("long", kind, 512) + b"12 path=xxx\n".ljust(512, b"\0")
    path = tmp_path / "chain.tar.zst"
    path.write_bytes(tar_of(one * 30_000))
    with pytest.raises(PackageInvalid, match="cannot be read as a package"):
        Package(path)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.REGTYPE])
def test_entries_count(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("tvm_shufflenet.packages.archive.MOST_HEADERS", 1000)
    path = tmp_path / "many.tar.zst"
    path.write_bytes(tar_of(*(header(f"f{number}", kind, 0) for number in range(1100))))
    with pytest.raises(PackageInvalid, match="more than 1000 headers"):
        Package(path)


def test_sparse_files_are_refused_before_their_headers_are_read(tmp_path):
    sparse = bytearray(header("s", tarfile.GNUTYPE_SPARSE, 0))
    sparse[482] = 1  # another header follows, and after that one more ...
    sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + 8 * 32 + sum(sparse[156:]))
    path = tmp_path / "sparse.tar.zst"
    path.write_bytes(tar_of(bytes(sparse), (bytes(504) + b"\1" + bytes(7)) * 50_000))
    with pytest.raises(PackageInvalid, match="sparse file"):
        Package(path)


def test_headers_count_towards_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("tvm_shufflenet.packages.archive.LARGEST_BYTES", 1 << 20)
    path = tmp_path / "headers.tar.zst"
    path.write_bytes(tar_of((header("g", tarfile.XGLTYPE, 60_000) + bytes(60_416)) * 30))
    with pytest.raises(PackageInvalid, match="unpacks to more than"):
        Package(path)


def test_a_window_of_gigabytes_is_refused(tmp_path):
    """zstd --long=31, by hand: a frame whose decoder would have to keep 2 GB."""
    path = tmp_path / "window.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00")
    with pytest.raises(PackageInvalid, match="cannot be read as a package"):
        Package(path)


def test_an_archive_that_changes_meanwhile_is_not_unpacked(tmp_path, monkeypatch):
    library = tmp_path / "built.so"
    library.write_bytes(ELF + bytes(1000))
    path = written(tmp_path / "tiny.tar.zst", library).path
    from tvm_shufflenet.packages import package as reading

    def swapped(archive, wanted):
        found = survey(archive, wanted)
        content, files = io.BytesIO(), members(archive)
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(b"x" * len(data) if name == "tiny.so" else data))
        archive.write_bytes(zstandard.compress(content.getvalue()))
        return found

    survey = reading.survey
    monkeypatch.setattr(reading, "survey", swapped)
    with pytest.raises(PackageInvalid, match="changed while it was read"):
        Package(path)


# Reproducers


def finding(kind: str, text: str = "wrong") -> bytes:
    facts = {"schema": 1, "kind": kind, "name": text, "what": text, "device": "local", "target": "arm64",
             "target_config": {"kind": "llvm"}, "machine": "aarch64", "tolerance": 1e-4, "versions": {},
             "replay": ""}  # fmt: skip
    return json.dumps(facts).encode()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("operator", "scheduled.json"),
        ("network", "input.npy"),
        ("network", "library.so"),
    ],
)
def test_a_fifo_in_place_of_a_reproducer_s_file_does_not_hold_replay(tmp_path, kind, name):
    (tmp_path / "finding.json").write_bytes(finding(kind))
    (tmp_path / "workload.json").write_text("{}")
    for array in ("input", "expected"):
        np.save(tmp_path / f"{array}.npy", np.ones(3, "float32"))
    fifo(tmp_path / name)
    with pytest.raises(BadInput, match=r"is not whole; .*is a FIFO"):
        replay(tmp_path, None)


def test_a_reproducer_shows_nothing_that_a_terminal_obeys(tmp_path):
    (tmp_path / "finding.json").write_bytes(finding("network", "\x1b[2Jconv\x07"))
    found = read_reproducer(tmp_path)
    assert (found.name, found.what) == ("conv?", "conv?")
