"""Validates the archive written by torch.export.save before torch reads it.

torch loads what it finds in such an archive: pickles, script objects, libraries that AOTInductor compiled. Here only
what a network needs is taken out of it, checked (exported_checks.py), and put into a new archive, which torch reads.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Annotated

import msgspec
import torch

from ...support.files import open_file
from .exported_checks import LARGEST_JSON, Refused, check_operators, read_json
from .exported_schema import DTYPE_BYTES, ExportedProgram, Payload, PayloadConfig, SchemaVersion

LARGEST_BYTES = 4 * 2**30
MOST_FILES = 50_000
MODEL = "model"  # as torch.export.save calls it; torch's loader of programs takes no other
PROGRAM, SAMPLE = f"models/{MODEL}.json", f"data/sample_inputs/{MODEL}.pt"
FORMAT, VERSION, BYTE_ORDER = "archive_format", "archive_version", "byteorder"
READER = ".data/version", b"6\n"  # of torch's archives of whatever kind
# Where the tensors of each kind are, and what says which is which.
PAYLOADS = {
    "data/weights/": f"data/weights/{MODEL}_weights_config.json",
    "data/constants/": f"data/constants/{MODEL}_constants_config.json",
}
KNOWN = re.compile(
    rf"{PROGRAM}|{SAMPLE}|{FORMAT}|{VERSION}|{BYTE_ORDER}|{'|'.join(PAYLOADS.values())}"
    r"|data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}"
    r"|\.data/(version|serialization_id)|\.format_version|\.storage_alignment|extra/[^\x00-\x1f\x7f]{1,500}"
)
# What the pickle of a tuple of tensors names. It is never unpickled: one that names more is refused, so that nobody
# takes the file for a harmless one.
TENSORS_ONLY = re.compile(
    r"collections OrderedDict|torch (Size|Tensor|device|\w+Storage|u?int\d+|b?float\d+\w*|bool)"
    r"|torch\._utils _rebuild_\w+|torch\.storage UntypedStorage|torch\._tensor _rebuild_from_type_v2"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout|_codecs encode"
    r"|torch\._export\.serde\.serialize _reconstruct_fake_tensor"
)
# Of ATen's own operators those that TVM imports and that no table of torch's calls reducible.
ALSO_KNOWN = {
    "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "_native_batch_norm_legit_functional",
    "_upsample_bilinear2d_aa", "bernoulli", "bucketize", "copy", "cumprod", "empty_permuted", "exponential",
    "hamming_window", "lift_fresh_copy", "linalg_vector_norm", "masked_select", "max", "median", "min", "randn_like",
    "round", "sym_constrain_range_for_size", "sym_size", "sym_stride", "sym_numel",
}  # fmt: skip
# They change a tensor's memory, not its elements.
NEVER_KNOWN = {"resize_", "resize_as_", "set_data"}


def clean_archive(path: Path) -> io.BytesIO:
    """A new archive of what the one at ``path`` holds of a network. Raises Refused, OSError, zipfile.BadZipFile."""
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        files = _files(archive)
        _check_format(files)
        program = read_json(ExportedProgram, PROGRAM, files.read(PROGRAM))
        check_operators(program, is_core)
        _check_pickle(files.read(SAMPLE))
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as clean:
            _write(clean, *READER)
            _write(clean, FORMAT, b"pt2")
            _write(clean, VERSION, files.read(VERSION))
            _write(clean, BYTE_ORDER, b"little")
            _write(clean, PROGRAM, msgspec.json.encode(program))
            _write(clean, SAMPLE, _sample(program))
            for folder, config_name in PAYLOADS.items():
                _copy_payloads(files, clean, folder, config_name)
    content.seek(0)
    return content


def _write(clean: zipfile.ZipFile, name: str, content: bytes) -> None:
    clean.writestr(f"{MODEL}/{name}", content)


class _Files:
    """The files of an archive by their names within its one folder."""

    def __init__(self, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]):
        self.archive, self.entries = archive, entries

    def read(self, name: str) -> bytes:
        """Raises Refused."""
        if name not in self.entries:
            raise Refused(f"it holds no {name}")
        try:
            return self.archive.read(self.entries[name])
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
            raise Refused(f"{name} is damaged") from exc


def _files(archive: zipfile.ZipFile) -> _Files:
    """Every file is one that torch writes, stored as it is, once, and all fit into the archive. Raises Refused."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise Refused(f"it holds {len(entries)} files")
    found: dict[str, zipfile.ZipInfo] = {}
    folders = {entry.filename.partition("/")[0] for entry in entries}
    for entry in entries:
        name = entry.filename.partition("/")[2]
        if entry.orig_filename != entry.filename or len(folders) != 1 or not KNOWN.fullmatch(name) or ".." in name:
            raise Refused(f"it holds {entry.filename[-80:]!a}, which is no part of an exported program")
        if name in found:
            raise Refused(f"it holds {name[-80:]!a} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Refused(f"{name[-80:]!a} is compressed or encrypted, as torch never writes it")
        found[name] = entry
    # What is stored takes its size. Files that lie one in another would make more of the archive than it is.
    total = sum(max(entry.file_size, entry.compress_size) for entry in entries)
    if total > LARGEST_BYTES:
        raise Refused(f"it says that it holds {total / 2**30:.3g} GB")
    archive.fp.seek(0, io.SEEK_END)
    if total > archive.fp.tell():
        raise Refused("its files overlap, or are larger than the archive")
    return _Files(archive, found)


def _check_format(files: _Files) -> None:
    if files.read(FORMAT) != b"pt2":
        raise Refused("it is no archive of torch.export.save")
    from torch.export.pt2_archive.constants import ARCHIVE_VERSION_VALUE

    version = files.read(VERSION)[:20].decode(errors="replace")
    if version != ARCHIVE_VERSION_VALUE:
        raise Refused(f"it has archive version {ascii(version)[1:-1]}, this torch reads {ARCHIVE_VERSION_VALUE}")
    if BYTE_ORDER in files.entries and files.read(BYTE_ORDER) != b"little":
        raise Refused("its tensors are of the other byte order")


def _copy_payloads(files: _Files, clean: zipfile.ZipFile, folder: str, config_name: str) -> None:
    """The tensors that a config names, each of bytes that are there. Raises Refused."""
    config = read_json(PayloadConfig, config_name, files.read(config_name))
    by_file: dict[str, list[Payload]] = {}
    for payload in config.config.values():
        by_file.setdefault(payload.path_name, []).append(payload)
    # Tensors may share bytes, and may repeat them; as constants of a library they no longer do.
    if sum(payload.tensor_meta.bytes for payload in config.config.values()) > LARGEST_BYTES:
        raise Refused(f"the tensors of {config_name} take more than {LARGEST_BYTES >> 30} GB")
    for path_name, payloads in by_file.items():
        content = files.read(folder + path_name)
        dtypes = {payload.tensor_meta.dtype for payload in payloads}
        if len(dtypes) != 1 or len(content) % DTYPE_BYTES[dtypes.pop()]:
            raise Refused(f"{folder}{path_name} holds no whole number of elements of one type")
        if max(payload.end for payload in payloads) > len(content):
            raise Refused(f"a tensor reads beyond the end of {folder}{path_name}")
        _write(clean, folder + path_name, content)
    _write(clean, config_name, msgspec.json.encode(config))


def is_core(name: str, overload: str) -> bool:
    """Whether an operator of ATen computes tensors from tensors: torch calls it one of its core, or reduces it to them.

    Others read files, print, or are for torch's own use.
    """
    if name in ALSO_KNOWN:
        return True
    if name in NEVER_KNOWN:
        return False
    found = [_aten(name, overload)]
    if name.endswith("_") and not name.endswith("__"):
        found.append(_aten(name.removesuffix("_"), overload))  # in place: what is the same beside that
        if name.removesuffix("_") in ALSO_KNOWN:
            return found[0] is not None
    return found[0] is not None and any(op is not None and _reduces(op) for op in found)


def _aten(name: str, overload: str) -> torch._ops.OpOverload | None:
    packet = getattr(torch.ops.aten, name, None)
    op = getattr(packet, overload, None) if isinstance(packet, torch._ops.OpOverloadPacket) else None
    return op if isinstance(op, torch._ops.OpOverload) else None


def _reduces(op: torch._ops.OpOverload) -> bool:
    if torch.Tag.core in op.tags:
        return True
    try:
        if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd"):
            return True
    except RuntimeError:  # TorchScript's alone: strings, files
        return False
    from torch._decomp import decomposition_table

    return op in decomposition_table


def _sample(program: ExportedProgram) -> bytes:
    """Zeros as the program takes them, in place of what its author ran it on: torch asks how they are nested."""
    from torch.utils._pytree import tree_unflatten, treespec_loads

    module = program.graph_module
    leaves = [_sample_of(spec, module.graph) for spec in module.signature.input_specs if spec.kind.endswith("_input")]
    spec = treespec_loads(module.module_call_graph[0].signature.in_spec)
    if spec.num_leaves != len(leaves):
        raise Refused(f"it takes {len(leaves)} inputs, and says that it takes {spec.num_leaves}")
    content = io.BytesIO()
    torch.save(tree_unflatten(leaves, spec), content)
    return content.getvalue()


def _sample_of(spec, graph) -> object:
    if spec.kind == "constant_input":
        return None if spec.value.value.kind == "as_none" else spec.value.value.value
    argument = spec.value.arg
    if argument.kind != "as_tensor":
        return 1
    meta = graph.tensor_values.get(argument.as_tensor.name)
    if meta is None:
        raise Refused(f"its input {argument.as_tensor.name!a} is no tensor of its own")
    from torch._export.serde.serialize import deserialize_scalar_type

    shape = [1 if dim.size is None else dim.size for dim in meta.sizes]
    return torch.zeros((), dtype=deserialize_scalar_type(meta.dtype)).expand(shape)


def _check_pickle(content: bytes) -> None:
    """Raises Refused where the sample inputs are more than tensors."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickles = [each for each in archive.infolist() if each.filename.endswith("data.pkl")]
            if any(each.compress_type != zipfile.ZIP_STORED for each in pickles) or len(pickles) != 1:
                raise Refused(f"{SAMPLE} is no file of torch.save")
            for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
                if opcode.name == "GLOBAL":
                    plain = TENSORS_ONLY.fullmatch(argument) is not None
                else:
                    plain = opcode.name not in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
                if not plain:
                    raise Refused("it holds pickled objects beside its tensors, which could run code")
    except Refused:
        raise
    except Exception as exc:  # whatever zipfile and pickletools make of bytes by anybody
        raise Refused(f"{SAMPLE} is damaged") from exc


class Written(msgspec.Struct):
    """What the program of an archive says of the torch that wrote it."""

    schema_version: SchemaVersion
    torch_version: Annotated[str, msgspec.Meta(max_length=100)] = "unknown"


def written_by(archive: zipfile.ZipFile) -> Written | None:
    """None where there is no program, or where it does not say."""
    entry = next((each for each in archive.infolist() if re.search(r"(^|/)models/[^/]*\.json\Z", each.filename)), None)
    if entry is None:
        return None
    with archive.open(entry) as file:
        content = file.read(LARGEST_JSON + 1)
    try:
        return read_json(Written, PROGRAM, content)
    except Refused:
        return None
