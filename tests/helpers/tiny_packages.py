"""A small package whose library is an ELF header and noise."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import zstandard

from tvm_shufflenet.packages.manifest import SCHEMA, Manifest
from tvm_shufflenet.packages.package import Package, write_package

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44)  # the header of an arm64 library


def manifest(**changes) -> Manifest:
    facts = {
        "schema": SCHEMA, "plan": "a plan", "model": "tiny", "input_shape": (1, 3, 8, 8), "output_shape": (1, 2),
        "seed": 0, "target": "arm64", "target_config": {}, "machine": "aarch64", "tuned": False, "records": None,
        "tvm": "0", "ffi": "0", "linker": ("/somewhere/zig", "cc"), "library": "tiny.so", "operators": (),
        "activation_bytes": 1, "weight_bytes": 2, "tolerance": 1e-4, "hashes": {},
    }  # fmt: skip
    return Manifest(**facts | changes)


def written(path: Path, library: Path) -> Package:
    bench = library.with_name("tiny_bench")
    bench.write_bytes(b"#!/bin/sh\n")
    bench.chmod(0o755)
    more = {"tiny_bench": bench, "examples/run.c": library.with_name("tiny_bench")}
    return write_package(path, library, np.ones((1, 2), "float32"), manifest(), more)


def members(archive: Path) -> dict[str, bytes]:
    content = zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}
