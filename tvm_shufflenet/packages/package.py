"""A package: a folder with the library, its manifest, and PyTorch's outputs to verify it against.

<model>.so        the library
answers0.npy      PyTorch's first output for the reference inputs, which ``reference_inputs`` draws from a seed, and for
                  those that follow from them (probes.py), one after the other; answers1.npy has the second output
licences/         the licence and notice texts of what is in it (licences.py)
sbom.cdx.json     what it is made of and with, for tools that keep inventories (sbom.py)
manifest.json     everything else; written last, so that a folder without one is no package

With a standalone library (docs/standalone.md) also lib<model>.so, its header, wrappers, examples and benchmark. All
of it in one ``.tar.zst`` is a package too (archive.py). docs/package.md describes both.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..errors import PackageInvalid
from ..library.link import elf_machine_of
from ..licences.linked import without_folders
from ..licences.sbom import SBOM, bill
from ..licences.texts import licences_of, texts_for, write_texts
from ..precision import PRECISIONS
from ..signature import Tensors, TensorSpec
from ..support.elf import MAGIC, is_elf
from ..support.files import draft_of, open_file
from ..support.files import sha256_of as sha256
from ..verification.answers import Answer, Answers
from ..verification.outcome import Verification
from ..verification.probes import PROBES, reference_inputs
from ..verification.probes import REFERENCE as REFERENCE_INPUTS
from .archive import HEAD_BYTES, LARGEST_BYTES, is_archive, pack, safe_name, survey, unpack
from .manifest import MANIFEST, Manifest, Probe, Timing, decode_manifest, no_package, read_manifest, write_manifest

REFERENCE, ANSWERS = "reference.npy", "answers.npy"  # of the only output, in packages of before schema 4


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
        self.manifest = read_manifest(self.folder)
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
            raise no_package(self.path)
        self.manifest = decode_manifest(self.path / MANIFEST, text)
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
    def reference(self) -> Tensors:
        """PyTorch's outputs for the reference inputs."""
        return self.answers.reference.expected

    @property
    def inputs(self) -> Tensors:
        """The reference inputs."""
        return reference_inputs(self.manifest.inputs, self.manifest.seed)

    @property
    def answers(self) -> Answers:
        """PyTorch's answers that the package holds. Raises PackageInvalid where they are not what its manifest says."""
        manifest = self.manifest
        stacks = {spec.name: self._stack(index, spec) for index, spec in enumerate(manifest.outputs)}
        told = [(REFERENCE_INPUTS, manifest.tolerances), *((probe.name, probe.tolerances) for probe in manifest.probes)]
        each = [
            Answer(name, {output: stack[index] for output, stack in stacks.items()}, tolerances)
            for index, (name, tolerances) in enumerate(told)
            if name in PROBES  # a later version may have further probes
        ]
        names = manifest.signature.output_names
        roundings, sensitivities = (
            {name: known.get(name) for name in names} for known in (manifest.roundings, manifest.sensitivities)
        )
        return Answers(self.inputs, tuple(each), roundings, sensitivities, PRECISIONS[manifest.precision])

    def _stack(self, index: int, spec: TensorSpec) -> np.ndarray:
        """PyTorch's output for the reference inputs, then for each probe."""
        probes = len(self.manifest.probes)
        if answers_file(index) in self.manifest.hashes:
            return self._tensors(answers_file(index), spec, (1 + probes, *spec.shape))
        parts = [self._tensors(REFERENCE, spec, spec.shape)[np.newaxis]]
        if probes:
            parts.append(self._tensors(ANSWERS, spec, (probes, *spec.shape)))
        return np.concatenate(parts)

    def _tensors(self, name: str, spec: TensorSpec, shape: tuple[int | str, ...]) -> np.ndarray:
        """A file of numbers, which must be of ``shape`` and of the output's dtype."""
        try:
            with open_file(self.folder / name) as file:  # numpy.load would also open archives
                found = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, MemoryError) as exc:
            what = f"{self.path / name} is no tensor: {exc}"
            raise PackageInvalid(what, "it is damaged", "compile the package again") from exc
        if found.dtype != spec.dtype or found.shape != shape:
            what = f"{self.path / name} is {found.dtype} {found.shape}, the manifest says {spec.dtype} {shape}"
            raise PackageInvalid(what, "one of them was replaced", "compile the package again")
        return found

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
        write_manifest(self.folder, self.manifest)
        if self._unpacked is not None:
            pack(self.folder, (MANIFEST, *sorted(self.manifest.hashes)), self.path)


def answers_file(index: int) -> str:
    """PyTorch's answers for output number ``index``."""
    return f"answers{index}.npy"


def write_package(
    path: Path, library: Path, answers: Sequence[Answer], manifest: Manifest, more: Mapping[str, Path] | None = None
) -> Package:
    """Write a package beside ``path`` and swap it in whole: a folder, or an archive where the name is one's.

    ``answers`` are PyTorch's, that to the reference inputs first. ``more`` are further files by their names in the
    package. ``manifest.hashes``, ``licences``, ``tolerances`` and ``probes`` are filled in here.
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
        stacks = [answers_file(index) for index in range(len(manifest.outputs))]
        for stack, spec in zip(stacks, manifest.outputs, strict=True):
            np.save(draft / stack, np.stack([answer.expected[spec.name] for answer in answers]))
        texts = texts_for(files, manifest.linker)
        write_texts(draft, texts)
        hashes = {name: sha256(draft / name) for name in (*files, *stacks, *texts)}
        licences = licences_of(sorted([*files, *stacks, SBOM]), manifest.linker, texts)
        (draft / SBOM).write_bytes(bill(manifest.model, hashes, licences, manifest.tvm, manifest.ffi, manifest.linker))
        hashes[SBOM] = sha256(draft / SBOM)
        first, *others = answers
        manifest = msgspec.structs.replace(
            manifest,
            linker=without_folders(manifest.linker),
            hashes=hashes,
            licences=licences,
            tolerances=dict(first.tolerances),
            probes=tuple(Probe(answer.probe, dict(answer.tolerances)) for answer in others),
        )
        write_manifest(draft, manifest)
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
    answers = (REFERENCE,) if REFERENCE in manifest.hashes else map(answers_file, range(len(manifest.outputs)))
    for name in dict.fromkeys((manifest.library, *answers, *manifest.hashes)):
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
