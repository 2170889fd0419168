"""A small package whose library is an ELF header and noise."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import zstandard

from helpers.tensors import OUTPUT, signature
from tvm_shufflenet.packages.manifest import MANIFEST, SCHEMA, Manifest
from tvm_shufflenet.packages.package import ANSWERS, REFERENCE, Package, answers_file, write_package
from tvm_shufflenet.verification.answers import Answer
from tvm_shufflenet.verification.probes import PROBES

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44)  # the header of an arm64 library


def manifest(shape: tuple[int, ...] = (1, 3, 8, 8), output: tuple[int, ...] = (1, 2), **changes) -> Manifest:
    takes = signature(shape, output)
    facts = {
        "schema": SCHEMA, "plan": "a plan", "model": "tiny", "inputs": takes.inputs, "outputs": takes.outputs,
        "seed": 0, "target": "arm64", "target_config": {}, "machine": "aarch64", "tuned": False, "records": None,
        "tvm": "0", "ffi": "0", "linker": ("/somewhere/zig", "cc"), "library": "tiny.so", "operators": (),
        "activation_bytes": 1, "weight_bytes": 2, "tolerances": {OUTPUT: 1e-4}, "hashes": {},
    }  # fmt: skip
    return Manifest(**facts | changes)


def answers(*expected: np.ndarray) -> list[Answer]:
    """PyTorch's, to the reference inputs and those that follow."""
    return [Answer(name, {OUTPUT: each}, {OUTPUT: 1e-4}) for name, each in zip(PROBES, expected, strict=False)]


def written(path: Path, library: Path) -> Package:
    bench = library.with_name("tiny_bench")
    bench.write_bytes(b"#!/bin/sh\n")
    bench.chmod(0o755)
    more = {"tiny_bench": bench, "examples/run.c": library.with_name("tiny_bench")}
    return write_package(path, library, answers(np.ones((1, 2), "float32")), manifest(), more)


def members(archive: Path) -> dict[str, bytes]:
    content = zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def as_before_schema_4(folder: Path, schema: int) -> None:
    """What versions wrote that knew one input and one output, without names; in schema 1, for one input only."""
    manifest, (first, *others) = json.loads((folder / MANIFEST).read_bytes()), np.load(folder / answers_file(0))
    (folder / answers_file(0)).unlink()
    files = {REFERENCE: first} | ({ANSWERS: np.stack(others)} if schema == 3 else {})
    del manifest["hashes"][answers_file(0)]
    for name, array in files.items():
        np.save(folder / name, array)
        manifest["hashes"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for of in ("input", "output"):
        manifest[f"{of}_shape"] = manifest.pop(f"{of}s")[0]["shape"]
    for one, by_output in (("tolerance", "tolerances"), ("rounding", "roundings"), ("sensitivity", "sensitivities")):
        manifest[one] = manifest.pop(by_output)[OUTPUT]
    manifest["probes"] = [
        {"name": probe["name"], "tolerance": probe["tolerances"][OUTPUT]} for probe in manifest["probes"]
    ]
    if schema == 1:
        del manifest["probes"], manifest["rounding"], manifest["sensitivity"], manifest["licences"]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"schema": schema}))
