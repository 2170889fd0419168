"""What is fuzzed in Python: each target takes bytes, and may raise nothing but what its users are promised.

    manifest    a package's manifest: opened, inspected, or PackageInvalid
    archive     a package in one file: the same, and nothing is written beside it
    records     the four files of a folder of records: read, summarised, verified, searched, merged, pruned
    cli         a command line: argparse's refusal, or one of the exit codes and one message

Inputs are made of parts where that helps: mutations then change one part and leave the others whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from tvm_shufflenet.errors import BadInput, DeployError, PackageInvalid
from tvm_shufflenet.packages.manifest import MANIFEST, SCHEMA, Manifest
from tvm_shufflenet.packages.package import Package, write_package
from tvm_shufflenet.report.inspection import facts_of, print_inspection
from tvm_shufflenet.verification.answers import Answer
from tvm_shufflenet.verification.probes import REFERENCE

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44)  # the header of an arm64 library
SEPARATOR = b"\0"


@cache
def scratch() -> Path:
    """A folder of this process. libFuzzer ends without a word to Python, so who starts it removes it (TMPDIR)."""
    return Path(tempfile.mkdtemp(prefix="tvm-shufflenet-fuzz-"))


# Packages


@cache
def package_folder() -> Path:
    """A small whole package; its files never change, so the hashes of a manifest that was mutated elsewhere match."""
    folder = scratch() / "package"
    library = scratch() / "tiny.so"
    library.write_bytes(ELF)
    facts = {
        "schema": SCHEMA, "plan": "a plan", "model": "tiny", "seed": 0,
        "inputs": [{"name": "data", "shape": [1, 3, 8, 8]}], "outputs": [{"name": "output0", "shape": [1, 2]}],
        "target": "arm64", "target_config": {}, "machine": "aarch64", "tuned": True, "records": None, "tvm": "0",
        "ffi": "0", "linker": ["zig", "cc"], "library": "tiny.so", "activation_bytes": 1, "weight_bytes": 2,
        "tolerances": {"output0": 1e-4}, "hashes": {},
        "operators": [{"name": "dense", "occurrences": 1, "schedule": "record", "multiply_adds": 4,
                       "arguments": [{"shape": [1, 2], "dtype": "float32"}]}],
        "timings": [{"device": {"name": "board"}, "threads": 1, "latency_us": {"median": 3.0, "kind": "measured"}}],
        "verified": {"by": "local", "max_abs_err": 1e-7, "tolerance": 1e-4, "operators": 1},
    }  # fmt: skip
    answer = Answer(REFERENCE, {"output0": np.ones((1, 2), "float32")}, {"output0": 1e-4})
    write_package(folder, library, [answer], msgspec.convert(facts, Manifest))
    return folder


def manifest(data: bytes) -> None:
    (package_folder() / MANIFEST).write_bytes(data)
    _open(package_folder())


def archive(data: bytes) -> None:
    """The first byte says whether the rest is the archive or a tar that has yet to become one."""
    import zstandard

    content = data[1:] if data[:1] == b"\1" else zstandard.compress(data[1:], 1)
    folder = scratch() / "archive"
    folder.mkdir(exist_ok=True)
    (folder / "tiny.tar.zst").write_bytes(content)
    _open(folder / "tiny.tar.zst")
    assert [path.name for path in folder.iterdir()] == ["tiny.tar.zst"]


def _open(path: Path) -> None:
    try:
        package = Package(path)
    except PackageInvalid as exc:
        _tell(exc)
        return
    facts = facts_of(package)
    json.dumps(facts)
    print_inspection(Console(file=io.StringIO()), facts, package)
    for refuse in (package.check_runnable, lambda: package.check_machine("aarch64", "board")):
        with contextlib.suppress(PackageInvalid):
            refuse()


def _tell(error: DeployError) -> None:
    """A message is one short paragraph that can be printed."""
    assert str(error) and str(error).encode("utf-8", "replace")


# Records


@cache
def _records_target():
    from tvm_shufflenet.hardware.targets import find_target

    return find_target("arm64").tvm()


@cache
def small_workload():
    import tvm

    from tvm_shufflenet.operators import registry
    from tvm_shufflenet.operators.pointwise import Pointwise

    kernel = registry.laid_out(Pointwise(1, 16, 4, 4, 16, 8, groups=2, relu=True), machine())
    return tvm.IRModule({"main": kernel.function()})


@cache
def machine():
    from tvm_shufflenet.hardware.isa import NEON
    from tvm_shufflenet.hardware.machine import unknown

    return unknown(NEON)


RECORD_FILES = ("database_workload.json", "database_tuning_record.json", "trials.jsonl", "best.jsonl", "choices.jsonl")


def records(data: bytes) -> None:
    """The content of each file, separated by a zero byte."""
    from tvm_shufflenet.graph.tasks import argument_shapes
    from tvm_shufflenet.schedules.nearest import near_trace
    from tvm_shufflenet.tuning.records import upkeep
    from tvm_shufflenet.tuning.records.store import RecordStore

    folder, merged = scratch() / "records", scratch() / "merged"
    for each in (folder, merged):
        shutil.rmtree(each, ignore_errors=True)
    folder.mkdir()
    for name, content in zip(RECORD_FILES, data.split(SEPARATOR), strict=False):
        (folder / name).write_bytes(content)
    with _promised(BadInput):
        opened = upkeep.open_folder(folder)
        msgspec.json.encode(upkeep.summary(opened))
        msgspec.json.encode(list(upkeep.fastest(opened)))
        _ = upkeep.failures(opened), [str(line) for line in upkeep.verify(opened)]
    with _promised(BadInput):
        store = RecordStore(folder, _records_target())
        store.meet([small_workload()])
        store.database("emulated:cortex-a72", network="n", own=store.uses_own("n", "emulated:cortex-a72"))
        near_trace(small_workload(), argument_shapes(small_workload()), machine(), store.neighbours())
        _ = store.skipped, store.sources, store.other_targets, store.refusal
        _ = store.stand_in(small_workload(), "emulated:cortex-a72")
    with _promised(BadInput):
        upkeep.merge([folder], merged)
    with _promised(BadInput):
        upkeep.prune(folder, 1)


@contextlib.contextmanager
def _promised(*errors: type[DeployError]):
    try:
        yield
    except errors as exc:
        _tell(exc)


# Command lines

# These do nothing outside the folder that they are started in, take no time and need no device.
QUICK = ("targets", "inspect", "records", "replay", "deploy")
NAMES = (
    "models", "targets", "doctor", "tune", "compile", "run", "bench", "profile", "inspect", "compare", "reproduce",
    "deploy", "replay", "records", "list", "best", "merge", "prune", "verify", "serve",
)  # fmt: skip


def cli(data: bytes) -> None:
    """Words separated by zero bytes."""
    from tvm_shufflenet.cli import main as command_line

    words = [word.decode("utf-8", "surrogateescape") for word in data.split(SEPARATOR)[:16]]
    with _elsewhere(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            options = command_line.parser().parse_args(words)
        except SystemExit as exc:
            assert exc.code in (0, 2)
            return
        with _promised(DeployError):
            _find(options)
        if options.name in QUICK and not any("/" in word or ".." in word for word in words):
            with _promised(DeployError):  # which --debug lets through
                code = command_line.main(words)
                assert code in (0, 2, 3, 4, 5, 6, 7), code
            assert "Traceback" not in said.getvalue()


def _find(options) -> None:
    """What every command looks up before it does anything."""
    from tvm_shufflenet.devices import find_device
    from tvm_shufflenet.hardware.targets import targets
    from tvm_shufflenet.transport import find_remote

    if getattr(options, "device", None):
        find_device(options.device, targets()["arm64"], getattr(options, "threads", 1), match=False)
    if getattr(options, "to", None):
        find_remote(options.to, "tiny", options.ssh_option)


@contextlib.contextmanager
def _elsewhere():
    """A folder with a package and records in it, as the working one."""
    folder, before = scratch() / "cwd", Path.cwd()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(package_folder(), folder / "package")
    (folder / "logs").mkdir()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


# Mutations that keep the form

INTERESTING = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 1e308, -0.0, 1e-320, "", "a", "../x", "/etc/passwd",
    "\0", "\ud800", "x" * 5000, [], {}, [[]], {"": None}, [0] * 300, "NaN", "1", "float32",
)  # fmt: skip


def mutated_json(data: bytes, seed: int) -> bytes | None:
    """A JSON text with one value changed, dropped, doubled or exchanged; None where it is no JSON."""
    chance = random.Random(seed)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places = list(_places(value))
    if not places:
        return json.dumps(chance.choice(INTERESTING)).encode()
    container, key = chance.choice(places)
    how = chance.randrange(4)
    if how == 0:
        del container[key]
    elif how == 1:
        other, at = chance.choice(places)
        container[key] = json.loads(json.dumps(other[at]))
    else:
        container[key] = chance.choice(INTERESTING)
    return json.dumps(value).encode()


def _places(value):
    """Every container with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from _places(child)


def mutated_lines(data: bytes, seed: int) -> bytes | None:
    """One line of one file of records, changed as JSON, dropped, doubled, or moved."""
    chance = random.Random(seed)
    files = [part.split(b"\n") for part in data.split(SEPARATOR)]
    lines = chance.choice(files)
    at, how = chance.randrange(len(lines)), chance.randrange(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(chance.randrange(len(lines)), lines[at])
    else:
        changed = mutated_json(lines[at], seed)
        if changed is None:
            return None
        lines[at] = changed
    return SEPARATOR.join(b"\n".join(each) for each in files)


@cache
def _vocabulary() -> list[str]:
    """Every option, and values that mean something to some of them."""
    import re

    from tvm_shufflenet.cli.main import parser

    found, parsers = {*NAMES}, [parser()]
    while parsers:
        for action in parsers.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
            elif action.choices:
                found.update(map(str, action.choices))
    values = (
        "arm64", "local", "emulated", "emulated:cortex-a53", "rpc://h:1", "tracker://h:1/k", "adb", "adb:x/5037",
        "ssh://u@h:22/d", "package", "logs", "1", "-1", "1,3,8,8", "1e9", "5%", "-", "x.json", "x.tar.zst", "all",
        "table8", "k=v", "0,2-3", "shufflenet_v2_x0_5",
    )  # fmt: skip
    return sorted(word for word in found | {*values} if not re.search(r"\0", word))


def mutated_words(data: bytes, seed: int) -> bytes | None:
    """A command line with one word changed, added or dropped."""
    chance = random.Random(seed)
    words = data.split(SEPARATOR)
    at, how, word = chance.randrange(len(words)), chance.randrange(4), chance.choice(_vocabulary()).encode()
    if how == 0:
        del words[at]
    elif how == 1:
        words[at] = word
    else:
        words.insert(at + 1, word)
    return SEPARATOR.join(words)


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[bytes, int], bytes | None] | None]] = {
    "manifest": (manifest, mutated_json),
    "archive": (archive, None),
    "records": (records, mutated_lines),
    "cli": (cli, mutated_words),
}
