"""Reads class names from common file formats."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput
from ..support.files import JSON_DEPTH, nests_deeper, read_file
from ..text import clean

# What TensorFlow's ImageNet files put in front of the thousand.
BACKGROUND = ("background", "dummy")
LARGEST_BYTES = 16 << 20  # a thousand names take 30 KB


def read_labels(path: Path, classes: int) -> list[str]:
    """One name for each of ``classes``. Raises BadInput where the file has another number of them.

    A text file has a name on each line. A JSON file (or a Python literal) is a list of names, a dict of names by class
    index, or a dict of indices by name; a name may be a pair as in ImageNet's class index, ``["n01440764", "tench"]``.
    A file of 1001 names for 1000 classes may start with "background" or "dummy", which is dropped.
    """
    try:
        content = read_file(path, LARGEST_BYTES)
        text = content.decode("utf-8-sig").replace("\r\n", "\n").strip("\r\n")
        if nests_deeper(content, JSON_DEPTH):
            raise ValueError(f"it nests more than {JSON_DEPTH} deep")
    except (OSError, ValueError) as exc:
        raise BadInput(f"cannot read labels from {path}", str(exc), "give a text file, one class name a line") from exc
    labels = _from_literal(text, path) if text.lstrip().startswith(("{", "[")) else [*map(str.strip, text.splitlines())]
    if len(labels) == classes + 1 and labels[0].lower() in BACKGROUND:
        labels = labels[1:]
    if len(labels) != classes:
        raise BadInput(
            f"{path} has {len(labels)} labels, the network has {classes} classes",
            "labels of another data set",
            "give a file with one name for each class",
        )
    return [*map(clean, labels)]


def _from_literal(text: str, path: Path) -> list[str]:
    try:
        try:
            found = json.loads(text)
        except ValueError:
            found = ast.literal_eval(text)  # {0: 'tench', ...} as Python prints it
        if isinstance(found, dict):
            found = _by_index(found)
        return [_name(label) for label in found]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as exc:
        raise BadInput(
            f"cannot read labels from {path}",
            "JSON of another form, or damaged",
            'write a list of names, or {"0": "first name", ...}',
        ) from exc


def _by_index(found: dict) -> list:
    """The values of {index: name}, or the keys of {name: index}, in order. Raises ValueError for gaps."""
    if found and all(type(index) is int for index in found.values()):
        found = {index: name for name, index in found.items()}
    by_index = {int(index): name for index, name in found.items()}
    if sorted(by_index) != list(range(len(found))):
        raise ValueError("the indices are not 0, 1, 2, ...")
    return [by_index[index] for index in range(len(found))]


def _name(label: object) -> str:
    """``tench`` of "tench" or ["n01440764", "tench"]. Raises TypeError for anything else."""
    if isinstance(label, Sequence) and not isinstance(label, str) and label:
        label = label[-1]
    if not isinstance(label, str):
        raise TypeError("a label is no text")
    return label
