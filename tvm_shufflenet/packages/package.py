"""A package: a folder with the library, what is known about it, and PyTorch's answer to check it against.

<model>.so        the library
reference.npy     PyTorch's output for the reference input, which ``reference_input`` draws from a seed
answers.npy       its outputs for the inputs that follow from that one (probes.py), one after the other
licences/         the licence and notice texts of what is in it (licences.py)
sbom.cdx.json     what it is made of and with, for tools that keep inventories (sbom.py)
manifest.json     everything else; written last, so that a folder without one is no package

With a standalone library (docs/standalone.md) also lib<model>.so, its header, wrappers, examples and benchmark. All
of it in one ``.tar.zst`` is a package too (archive.py). docs/package.md describes both.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from ..errors import PackageInvalid
from ..library.link import elf_machine_of
from ..licences.linked import without_folders
from ..licences.sbom import SBOM, bill
from ..licences.texts import Licence, licences_of, texts_for, write_texts
from ..support.elf import MAGIC, is_elf
from ..support.files import Malformed, draft_of, open_file, parse_json, read_file, replacing
from ..support.files import sha256_of as sha256
from ..text import clean
from ..verification.answers import Answer, Answers
from ..verification.outcome import NEVER_VERIFIED, Verification
from ..verification.probes import PROBES
from ..verification.probes import REFERENCE as REFERENCE_INPUT
from .archive import HEAD_BYTES, LARGEST_BYTES, MANIFEST_BYTES, is_archive, pack, safe_name, survey, unpack

MANIFEST = "manifest.json"
REFERENCE, ANSWERS = "reference.npy", "answers.npy"
SCHEMA = 3
READABLE = (1, 2, 3)  # 1 lacks what an operator takes and multiplies, 2 the licences
MOST_ELEMENTS, MOST_DIMENSIONS = 1 << 30, 16  # of a tensor that is drawn to check a library with


class Argument(msgspec.Struct, frozen=True):
    """A tensor that an operator reads or writes."""

    shape: tuple[int, ...]
    dtype: str


class OperatorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One distinct operator: ``schedule`` is ``record``, ``near record`` (of a workload nearly the same), ``template``
    (its default) or ``none`` (TVM's plain loops).

    A record was ``tuned_for`` a CPU, perhaps another than the target's: a shipped record of one like it.
    ``multiply_adds`` and ``arguments`` are those of one call, None in packages of schema 1. ``layers`` are the names of
    the model's layers whose weights it holds, where they are known.
    """

    name: str
    occurrences: int
    schedule: str
    record_us: float | None = None
    tuned_for: str | None = None
    multiply_adds: int | None = None
    arguments: tuple[Argument, ...] | None = None
    layers: tuple[str, ...] = ()


class Standalone(msgspec.Struct, frozen=True):
    """A library that needs no runtime: the version of its C ``interface``, its ``files``, and the memory of an instance
    beside the weights: ``arena_bytes``, and ``workspace_bytes`` for each thread."""

    interface: int
    library: str
    bench: str
    files: tuple[str, ...]
    arena_bytes: int
    workspace_bytes: int


class OperatorTime(msgspec.Struct, frozen=True):
    """An operator's median latency, in microseconds."""

    name: str
    median_us: float


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Latencies of the package on one device, each with its kind of clock.

    One that was deployed to says which CPUs the threads were bound to (``affinity``), what the first inference took and
    what the process needed, and has its model, kernel, governor and cores in ``device``.
    """

    device: dict
    threads: int
    latency_us: dict
    affinity: str | None = None
    cold_us: float | None = None
    peak_memory_bytes: int | None = None
    operators: tuple[OperatorTime, ...] = ()

    @property
    def setting(self) -> tuple:
        return self.device, self.threads, self.affinity


class Probe(msgspec.Struct, frozen=True):
    """An input (probes.py) that PyTorch's answer is in the package for, and how far a library may be off it."""

    name: str
    tolerance: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What a package says of itself. Sizes in bytes, shapes NCHW, hashes SHA-256 by file name.

    ``probes`` are those beside the reference input. ``rounding`` is how far PyTorch's float32 is from its float64, and
    ``sensitivity`` how far its answers to two inputs are apart; packages of before have none of the three.
    """

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
    standalone: Standalone | None = None
    licences: tuple[Licence, ...] = ()
    verified: Verification = NEVER_VERIFIED
    probes: tuple[Probe, ...] = ()
    rounding: float | None = None
    sensitivity: float | None = None

    @property
    def operators_without_record(self) -> list[str]:
        return [operator.name for operator in self.operators if operator.schedule != "record"]


class Package:
    """A package that has been read and checked. Raises PackageInvalid where a file is missing, damaged or foreign.

    ``path`` is what was named, ``folder`` where the files are: an archive's are unpacked for as long as this object
    lives, once the whole of it was found to be in order.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._unpacked = None
        if is_archive(self.path) and self.path.is_file():
            self._open_archive()
        else:
            self._open_folder()

    def _open_folder(self) -> None:
        self.folder = self.path
        self.manifest = _read_manifest(self.folder)
        inside, left_bytes = self.folder.resolve(), LARGEST_BYTES

        @functools.cache
        def look(name: str) -> tuple[str, bytes] | None:
            nonlocal left_bytes
            path = self.folder / name
            try:
                if not path.resolve().is_relative_to(inside):
                    return None
                with open_file(path) as file:
                    left_bytes -= os.fstat(file.fileno()).st_size
                    if left_bytes < 0:
                        raise PackageInvalid(f"{self.path} is larger than {LARGEST_BYTES >> 20} MB")
                    head = file.read(HEAD_BYTES)
                return sha256(path), head
            except (OSError, RuntimeError):  # RuntimeError: links in a circle
                return None

        _check_files(self.path, self.manifest, look)

    def _open_archive(self) -> None:
        text, members = survey(self.path, MANIFEST)
        if text is None:
            raise _no_package(self.path)
        self.manifest = _decode(self.path / MANIFEST, text)
        strangers = members.keys() - self.manifest.hashes.keys() - {MANIFEST}
        if strangers:
            what = f"{self.path} holds {min(strangers)}, which its manifest does not name"
            raise PackageInvalid(what, "it was changed after it was compiled", "copy or compile it again")
        found = {name: (member.sha256, member.head) for name, member in members.items()}
        _check_files(self.path, self.manifest, found.get)
        self._unpacked = tempfile.TemporaryDirectory(prefix="tvm-shufflenet-")
        self.folder = Path(self._unpacked.name)
        unpack(self.path, self.folder, members)

    @property
    def library(self) -> Path:
        return self.folder / self.manifest.library

    @property
    def reference(self) -> np.ndarray:
        """PyTorch's output for the reference input."""
        return self.answers.reference.expected

    @property
    def answers(self) -> Answers:
        """PyTorch's answers that the package holds. Raises PackageInvalid where they are not what its manifest says."""
        manifest = self.manifest
        each = [Answer(REFERENCE_INPUT, self._tensors(REFERENCE, manifest.output_shape), manifest.tolerance)]
        if manifest.probes and ANSWERS in manifest.hashes:
            expected = self._tensors(ANSWERS, (len(manifest.probes), *manifest.output_shape))
            pairs = zip(manifest.probes, expected, strict=True)
            # A later version may have further probes.
            each += [Answer(probe.name, array, probe.tolerance) for probe, array in pairs if probe.name in PROBES]
        return Answers(tuple(each), manifest.rounding, manifest.sensitivity)

    def _tensors(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A file of float32 numbers, which must be of ``shape``."""
        try:
            with open_file(self.folder / name) as file:  # numpy.load would also open archives
                found = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, MemoryError) as exc:
            what = f"{self.path / name} is no tensor: {exc}"
            raise PackageInvalid(what, "it is damaged", "compile the package again") from exc
        if found.dtype != np.float32 or found.shape != tuple(shape):
            what = f"{self.path / name} is {found.dtype} {found.shape}, the manifest says float32 {tuple(shape)}"
            raise PackageInvalid(what, "one of them was replaced", "compile the package again")
        return found

    def reference_input(self) -> np.ndarray:
        return reference_input(self.manifest.input_shape, self.manifest.seed)

    def check_machine(self, machine: str, device: str) -> None:
        """Refuse before anything is uploaded. Raises PackageInvalid."""
        if machine != self.manifest.machine:
            raise PackageInvalid(
                f"{self.path} is built for {self.manifest.machine}, {device} is {machine}",
                f"it was compiled for target '{self.manifest.target}'",
                "compile it for the device's target, or name another --device",
            )

    def check_runnable(self) -> None:
        """Refuse what TVM's runtime cannot load. Raises PackageInvalid."""
        standalone = self.manifest.standalone
        if standalone is not None and standalone.library == self.manifest.library:
            raise PackageInvalid(
                f"{self.folder} holds no library for TVM's runtime",
                "it was compiled with --format standalone",
                f"run {standalone.bench} on the device, or compile it with --format both",
            )

    def add_timing(self, timing: Timing, verified: Verification | None = None) -> None:
        """Record a latency in the manifest, in place of an earlier one of the same device and threads; and that the
        library was ``verified`` then, where nobody had seen it run before."""
        kept = [t for t in self.manifest.timings if t.setting != timing.setting]
        if self.manifest.verified.ran or verified is None:
            verified = self.manifest.verified
        self.manifest = msgspec.structs.replace(self.manifest, timings=(*kept, timing), verified=verified)
        _write_manifest(self.folder, self.manifest)
        if self._unpacked is not None:
            pack(self.folder, (MANIFEST, *sorted(self.manifest.hashes)), self.path)


def reference_input(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The input every check uses: standard normal float32 of ``shape``, drawn from ``seed``."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def write_package(
    path: Path, library: Path, reference: np.ndarray, manifest: Manifest, more: Mapping[str, Path] | None = None
) -> Package:
    """Write a package beside ``path`` and swap it in whole: a folder, or an archive where the name is one's.

    ``more`` are further files by their names in the package. ``manifest.hashes`` and ``licences`` are filled in here.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not _may_replace(path):
        raise PackageInvalid(f"{path} exists and is no package", "", "name another -o PACKAGE")
    with draft_of(path) as draft:
        files = {manifest.library: library, **(more or {})}
        for name, source in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, draft / name)
            os.chmod(draft / name, 0o755 if _is_elf(source) or os.access(source, os.X_OK) else 0o644)
        np.save(draft / REFERENCE, reference)
        texts = texts_for(files, manifest.linker)
        write_texts(draft, texts)
        hashes = {name: sha256(draft / name) for name in (*files, REFERENCE, *texts)}
        licences = licences_of(sorted([*files, REFERENCE, SBOM]), manifest.linker, texts)
        (draft / SBOM).write_bytes(bill(manifest.model, hashes, licences, manifest.tvm, manifest.ffi, manifest.linker))
        hashes[SBOM] = sha256(draft / SBOM)
        anywhere = {"linker": without_folders(manifest.linker), "hashes": hashes, "licences": licences}
        _write_manifest(draft, msgspec.structs.replace(manifest, **anywhere))
        os.chmod(draft, 0o755)
        if is_archive(path):
            pack(draft, (MANIFEST, *sorted(hashes)), path)
        else:
            _swap(draft, path)
    return Package(path)


def _may_replace(path: Path) -> bool:
    """Whether what is there may go: an older package of the same form, or an empty folder for a folder."""
    if is_archive(path) != path.is_file():
        return False
    if not path.is_file():
        return (path / MANIFEST).exists() or not any(path.iterdir())
    try:
        return survey(path, MANIFEST)[0] is not None
    except PackageInvalid:
        return False


def _is_elf(path: Path) -> bool:
    with open(path, "rb") as file:
        return is_elf(file.read(len(MAGIC)))


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


def _check_files(path: Path, manifest: Manifest, look: Callable[[str], tuple[str, bytes] | None]) -> None:
    """Compare what a manifest says of its files with what ``look`` finds: a file's hash and how it begins, or None."""
    for name in dict.fromkeys((manifest.library, REFERENCE, *manifest.hashes)):
        found = look(name) if safe_name(name) and name != MANIFEST else None
        if found is None:
            raise PackageInvalid(f"{path} lacks {name}", "the copy is incomplete", "copy or compile it again")
        if found[0] != manifest.hashes.get(name):
            raise PackageInvalid(
                f"{path / name} has changed since it was compiled", "a damaged copy", "compile it again"
            )
    machine = elf_machine_of(look(manifest.library)[1], path / manifest.library)
    if machine != manifest.machine:
        raise PackageInvalid(
            f"{path / manifest.library} is built for {machine}, its manifest says {manifest.machine}",
            "the library was replaced",
            "compile it again",
        )


def _no_package(path: Path) -> PackageInvalid:
    return PackageInvalid(f"{path} is not a package", f"no {MANIFEST} in it", "tvm-shufflenet compile ... -o PACKAGE")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = read_file(path, MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise _no_package(folder) from exc
    except OSError as exc:
        raise PackageInvalid(f"{path} cannot be read: {exc}", "", "copy or compile the package again") from exc
    return _decode(path, text)


def _decode(path: Path, text: bytes) -> Manifest:
    """The manifest in ``text``, which was read from ``path``. Raises PackageInvalid for anything else."""
    try:
        facts = _cleaned(parse_json(text))
        schema = facts.get("schema")
        if schema not in READABLE:
            newer = isinstance(schema, int) and schema > SCHEMA
            raise PackageInvalid(
                f"{path} has schema {schema}, this version reads {', '.join(map(str, READABLE))}",
                "a newer version compiled it" if newer else "",
                "use that version, or compile it again with this one",
            )
        manifest = msgspec.convert(facts, Manifest)
        _check_values(manifest)
        return manifest
    except (Malformed, msgspec.ValidationError, AttributeError, ValueError) as exc:
        raise PackageInvalid(f"{path} cannot be read: {exc}", "it is damaged", "compile the package again") from exc


def _cleaned(value: object) -> object:
    """A JSON value whose texts can be printed. Names of files are not made others: safe_name refuses those."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    if isinstance(value, dict):
        return {name: _cleaned(each) for name, each in value.items()}
    return value


def _check_values(manifest: Manifest) -> None:
    """What types do not say. Raises ValueError."""
    for name, shape in (("input_shape", manifest.input_shape), ("output_shape", manifest.output_shape)):
        if len(shape) > MOST_DIMENSIONS or min(shape, default=0) < 0 or math.prod(shape) > MOST_ELEMENTS:
            raise ValueError(f"{name} is of no tensor that fits in memory")
    if not 0 <= manifest.seed < 1 << 64:
        raise ValueError("seed is none of a random generator")
    if not safe_name(manifest.model) or "/" in manifest.model:  # it names files, here and on devices
        raise ValueError("model is no name of a file")


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    with replacing(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
