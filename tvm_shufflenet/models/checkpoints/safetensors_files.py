"""The tensors of a .safetensors file: the length of a header as 8 bytes, the header as JSON, the data. Nothing in it is
code, and everything that the header says is checked before a byte of the data is read.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import BinaryIO

import torch

from ...errors import BadInput

SUFFIX = ".safetensors"
LENGTH_BYTES = 8
MOST_HEADER_BYTES = 10_000_000  # a hundred bytes for each of a hundred thousand tensors
MOST_AXES, MOST_ELEMENTS = 16, 2**40
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(path: Path) -> bool:
    """Whether the file is one, by its name or by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(LENGTH_BYTES + 1)
    return path.suffix == SUFFIX or (start[LENGTH_BYTES:] == b"{" and _length(start) <= MOST_HEADER_BYTES)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name. Raises BadInput for a file that contradicts itself, OSError."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            header, begin = _header(file, size)
            places = [_place(name, entry) for name, entry in header.items() if name != "__metadata__"]
            places.sort(key=lambda place: (place[3], place[4]))
            _check_layout(places, size - begin)
        except (ValueError, RecursionError) as exc:
            reason = "its header is nested too deep" if isinstance(exc, RecursionError) else str(exc)[:200]
            raise BadInput(
                f"{path} is no safetensors file that can be read: {reason}",
                "it was cut short or damaged, or it is another kind of file",
                "get it again, or save it again with safetensors.torch.save_file",
            ) from exc
        file.seek(begin)  # the tensors follow each other
        return {name: _read(file, *what) for name, *what in places}


def _length(start: bytes) -> int:
    return int.from_bytes(start[:LENGTH_BYTES], "little")


def _header(file: BinaryIO, size: int) -> tuple[dict, int]:
    """The header, and where the data begin. Raises ValueError, RecursionError."""
    start = file.read(LENGTH_BYTES)
    length = _length(start)
    if len(start) < LENGTH_BYTES or length > size - LENGTH_BYTES:
        raise ValueError(f"its header of {length} bytes is longer than the file")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, {MOST_HEADER_BYTES} are allowed")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, LENGTH_BYTES + length


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names something twice")
    return found


def _place(name: str, entry: object) -> tuple[str, torch.dtype, list[int], int, int]:
    """Name, dtype, shape, and the offsets of a tensor's first byte and of the byte behind its last."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"it does not say dtype, shape and data_offsets of '{name[:80]}'")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"'{name[:80]}' is of {str(dtype)[:20]}; known are {', '.join(DTYPES)}")
    if not _naturals(shape) or len(shape) > MOST_AXES or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"shape or data_offsets of '{name[:80]}' are no lists of natural numbers")
    if math.prod(max(1, extent) for extent in shape) > MOST_ELEMENTS:
        raise ValueError(f"the shape of '{name[:80]}' is too large")
    if math.prod(shape) * DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"shape and data_offsets of '{name[:80]}' contradict each other")
    return name, DTYPES[dtype], shape, *offsets


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(places: list[tuple[str, torch.dtype, list[int], int, int]], data_bytes: int) -> None:
    """As the format wants it: no overlap, no gap, nothing behind the last tensor. Raises ValueError."""
    end = 0
    for name, _, _, begin, after in places:
        if begin != end:
            raise ValueError(f"the data of '{name[:80]}' overlap another tensor's, or leave a gap")
        end = after
    if end != data_bytes:
        raise ValueError(f"it has {data_bytes} bytes of data, its header speaks of {end}")


def _read(file: BinaryIO, dtype: torch.dtype, shape: list[int], begin: int, after: int) -> torch.Tensor:
    if begin == after:
        return torch.empty(shape, dtype=dtype)
    data = bytearray(after - begin)
    if file.readinto(data) != len(data):
        raise OSError("the file became shorter while it was read")
    return torch.frombuffer(data, dtype=dtype).reshape(shape)
