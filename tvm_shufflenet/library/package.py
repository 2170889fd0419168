"""A package: a folder with the library, what is known about it, and PyTorch's answer to check it against.

<model>.so        the library
reference.npy     PyTorch's output for the reference input, which ``reference_input`` draws from a seed
manifest.json     everything else; written last, so that a folder without one is no package
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from ..errors import PackageInvalid
from .link import elf_machine

MANIFEST = "manifest.json"
REFERENCE = "reference.npy"
SCHEMA = 2
READABLE = (1, 2)  # 1 lacks what an operator takes and multiplies


class Argument(msgspec.Struct, frozen=True):
    """A tensor that an operator reads or writes."""

    shape: tuple[int, ...]
    dtype: str


class OperatorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One distinct operator: ``schedule`` is ``record``, ``near record`` (of a workload nearly the same), ``template``
    (its default) or ``none`` (TVM's plain loops).

    A record was ``tuned_for`` a CPU, perhaps another than the target's: a shipped record of one like it.
    ``multiply_adds`` and ``arguments`` are those of one call, None in packages of schema 1.
    """

    name: str
    occurrences: int
    schedule: str
    record_us: float | None = None
    tuned_for: str | None = None
    multiply_adds: int | None = None
    arguments: tuple[Argument, ...] | None = None


class Timing(msgspec.Struct, frozen=True):
    """Latencies of the package on one device, each with its kind of clock."""

    device: dict
    threads: int
    latency_us: dict


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What a package says of itself. Sizes in bytes, shapes NCHW, hashes SHA-256 by file name."""

    schema: int
    plan: str
    model: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    seed: int
    target: str
    target_config: dict
    machine: str
    tuned: bool
    records: str | None
    tvm: str
    ffi: str
    linker: tuple[str, ...]
    library: str
    operators: tuple[OperatorEntry, ...]
    activation_bytes: int
    weight_bytes: int
    tolerance: float
    hashes: dict[str, str]
    timings: tuple[Timing, ...] = ()

    @property
    def operators_without_record(self) -> list[str]:
        return [operator.name for operator in self.operators if operator.schedule != "record"]


class Package:
    """A package that has been read and checked. Raises PackageInvalid where a file is missing, damaged or foreign."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        for name in dict.fromkeys((self.manifest.library, REFERENCE, *self.manifest.hashes)):
            path, expected = self.folder / name, self.manifest.hashes.get(name)
            if Path(name).name != name or not path.is_file():
                raise PackageInvalid(
                    f"{self.folder} lacks {name}", "the copy is incomplete", "copy or compile it again"
                )
            if sha256(path) != expected:
                raise PackageInvalid(f"{path} has changed since it was compiled", "a damaged copy", "compile it again")
        found = elf_machine(self.library)
        if found != self.manifest.machine:
            raise PackageInvalid(
                f"{self.library} is built for {found}, its manifest says {self.manifest.machine}",
                "the library was replaced",
                "compile it again",
            )

    @property
    def library(self) -> Path:
        return self.folder / self.manifest.library

    @property
    def reference(self) -> np.ndarray:
        """PyTorch's output for the reference input."""
        return np.load(self.folder / REFERENCE, allow_pickle=False)

    def reference_input(self) -> np.ndarray:
        return reference_input(self.manifest.input_shape, self.manifest.seed)

    def check_machine(self, machine: str, device: str) -> None:
        """Refuse before anything is uploaded. Raises PackageInvalid."""
        if machine != self.manifest.machine:
            raise PackageInvalid(
                f"{self.folder} is built for {self.manifest.machine}, {device} is {machine}",
                f"it was compiled for target '{self.manifest.target}'",
                "compile it for the device's target, or name another --device",
            )

    def add_timing(self, timing: Timing) -> None:
        """Record a latency in the manifest, in place of an earlier one of the same device and threads."""
        kept = [t for t in self.manifest.timings if (t.device, t.threads) != (timing.device, timing.threads)]
        self.manifest = msgspec.structs.replace(self.manifest, timings=(*kept, timing))
        _write_manifest(self.folder, self.manifest)


def reference_input(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The input every check uses: standard normal float32 of ``shape``, drawn from ``seed``."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def write_package(folder: Path, library: Path, reference: np.ndarray, manifest: Manifest) -> Package:
    """Write a package beside ``folder`` and swap it in whole; ``manifest.hashes`` are filled in here."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / MANIFEST).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PackageInvalid(f"{folder} exists and is no package", "", "name another -o folder")
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copyfile(library, draft / manifest.library)
        os.chmod(draft / manifest.library, 0o755)
        np.save(draft / REFERENCE, reference)
        hashes = {name: sha256(draft / name) for name in (manifest.library, REFERENCE)}
        _write_manifest(draft, msgspec.structs.replace(manifest, hashes=hashes))
        os.chmod(draft, 0o755)
        _swap(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Package(folder)


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` in the place of ``folder``; an older package there goes only once the new one is in place."""
    older = draft.with_name(draft.name + "-older")
    if folder.exists():
        folder.rename(older)
    try:
        draft.rename(folder)
    except BaseException:
        if older.exists():
            older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise PackageInvalid(
            f"{folder} is not a package", f"no {MANIFEST} in it", "tvm-shufflenet compile ... -o PACKAGE"
        ) from exc
    try:
        schema = msgspec.json.decode(text).get("schema")
        if schema not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise PackageInvalid(
                f"{path} has schema {schema}, this version reads {known}", "", "use a matching version"
            )
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError) as exc:
        raise PackageInvalid(f"{path} cannot be read: {exc}", "it is damaged", "compile the package again") from exc


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    temporary = folder / (MANIFEST + ".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    temporary.replace(folder / MANIFEST)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
