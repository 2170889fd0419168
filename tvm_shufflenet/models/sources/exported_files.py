"""A network from a file of torch.export.save. Loading one never runs code that the file brings along."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ...errors import BadInput, ImportFailed, lines_of
from ...signature import TensorSpec, refuse_no_images, refuse_undeployable, refuse_unfixable, shape_text
from ..exporting import dim_range, signature_of, trace
from .exported_archive import clean_archive, written_by
from .exported_checks import Refused

# Without a path or an archive's first folder, what each kind of archive holds.
TORCHSCRIPT, CHECKPOINT, AOTINDUCTOR = "constants.pkl", "data.pkl", "data/aotinductor/"
OLD_PROGRAM = "serialized_exported_program.json"
EXPORT_AGAIN = "torch.export.save(torch.export.export(model.eval(), (example,)), FILE.pt2)"
FORCE_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(path: Path, input_shape: tuple[int, ...] | None) -> tuple[ExportedProgram, tuple[int, ...]]:
    """The program of a .pt2 file and its (N, C, H, W) input shape.

    Dynamic dimensions are fixed to ``input_shape``. Raises BadInput, ImportFailed.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}", "", "write --model FILE.pt2")
    program = _load(path)
    signature = signature_of(program)
    refuse_unfixable(signature, str(path))
    refuse_no_images(signature.inputs[0], str(path))
    if input_shape is None:
        refuse_undeployable(signature, str(path))
    elif signature.inputs[0].is_dynamic:
        return _fixed(program, path, signature.inputs[0], input_shape), input_shape
    shape = signature.inputs[0].shape
    if input_shape is not None and input_shape != shape:
        raise BadInput(
            f"{path} was exported for input {shape}, not {input_shape}",
            "",
            "leave --input-shape out, or export it for that shape or with dynamic_shapes",
        )
    return program, shape


def _load(path: Path) -> ExportedProgram:
    with _quiet_and_safe() as warned:
        try:
            return torch.export.load(clean_archive(path))
        except Exception as exc:
            # torch swallows the first error, warns of it, and raises another that refers to the warning.
            cause = next((record.exc_info[1] for record in warned if record.exc_info), exc)
            what, next_step = _diagnosis(path, cause)
            raise ImportFailed(f"cannot load {path}", what, next_step) from exc


@contextmanager
def _quiet_and_safe() -> Iterator[list[logging.LogRecord]]:
    """Collect what torch.export warns of, and keep it from unpickling anything but tensors."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    log, before = logging.getLogger("torch.export"), os.environ.get(FORCE_SAFE)
    propagates, handlers = log.propagate, log.handlers
    log.propagate, log.handlers = False, [handler]
    os.environ[FORCE_SAFE] = "1"  # torch.export.load has no argument for it, and asks for weights_only=False itself
    try:
        yield records
    finally:
        log.propagate, log.handlers = propagates, handlers
        if before is None:
            del os.environ[FORCE_SAFE]
        else:
            os.environ[FORCE_SAFE] = before


def _diagnosis(path: Path, exc: Exception) -> tuple[str, str]:
    """What a file that does not load is, and the next step."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return str(error), "make it readable"
    if not start:
        return "it is empty", f"export the model again: {EXPORT_AGAIN}"
    if not zipfile.is_zipfile(path):
        if start.startswith(b"PK"):
            return "it is cut short", "copy or export it again"
        if start.startswith(b"\x80"):
            return "a pickle as torch.save once wrote it, no exported program", EXPORT_AGAIN
        return "it is no file of torch.export.save", EXPORT_AGAIN
    try:
        with zipfile.ZipFile(path) as archive:
            return _archive(archive, exc)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError):
        return "it is damaged", "copy or export it again"


def _archive(archive: zipfile.ZipFile, exc: Exception) -> tuple[str, str]:
    names = {name.split("/", 1)[-1]: name for name in archive.namelist()}
    programs = [name for name in names if name.startswith("models/") and name.endswith(".json")]
    if any(name.startswith(AOTINDUCTOR) for name in names):
        return "a library that AOTInductor compiled for one kind of machine, no program", EXPORT_AGAIN
    if TORCHSCRIPT in names:
        return "a TorchScript archive, no exported program", EXPORT_AGAIN
    if CHECKPOINT in names and not programs:
        return "a checkpoint of torch.save, no exported program", "name it with --weights beside the network's --model"
    if OLD_PROGRAM in names:
        writer = f"a torch before 2.8{_old_schema(archive, names)}"
        return f"written by {writer}, this is torch {torch.__version__}", EXPORT_AGAIN
    return _version(archive, exc), EXPORT_AGAIN


def _old_schema(archive: zipfile.ZipFile, names: dict[str, str]) -> str:
    if "version" not in names:
        return ""
    with archive.open(names["version"]) as file:
        return f" (schema {ascii(file.read(20).decode(errors='replace'))[1:-1]})"


def _version(archive: zipfile.ZipFile, exc: Exception) -> str:
    """Why an exported program does not load: another torch version where it is one, else our or torch's own words."""
    from torch._export.serde.schema import SCHEMA_VERSION

    written, reason = written_by(archive), ascii(lines_of(exc)[0][:300])[1:-1]
    if not isinstance(exc, Refused):
        reason += f" ({type(exc).__name__})"
    same = written is not None and written.torch_version == torch.__version__
    if written is None or (same and written.schema_version.major == SCHEMA_VERSION[0]):
        return reason
    ours, theirs = ".".join(map(str, SCHEMA_VERSION)), written.schema_version
    return (
        f"written by torch {ascii(written.torch_version)[1:-1]} (schema {theirs.major}.{theirs.minor}), this is torch "
        f"{torch.__version__} (schema {ours}): {reason}"
    )


def _fixed(program: ExportedProgram, path: Path, spec: TensorSpec, wanted: tuple[int, ...]) -> ExportedProgram:
    """``program`` exported anew for the shape ``wanted``. Raises BadInput where it is none of the allowed ones."""
    given = next(node.meta["val"] for node in program.graph.nodes if node.name == spec.name)
    allowed = [dim_range(program, dim) for dim in given.shape]
    if len(wanted) != len(allowed) or any(
        not low <= dim <= high for dim, (low, high) in zip(wanted, allowed, strict=True)
    ):
        raise BadInput(
            f"{path} takes inputs of shape {shape_text(spec)}, not {wanted}",
            "",
            "give an --input-shape among those, or export it again",
        )
    try:
        return trace(program.module(), wanted)
    except Exception as exc:
        raise ImportFailed(
            f"{path} cannot be fixed to input {wanted}: {lines_of(exc)[0][:300]}",
            "what it was exported for excludes that shape",
            "export it for that shape",
        ) from exc
