"""Describes an operator to the network's author: its shape and the names of its layers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..graph.layers import kind_of
from .manifest import OperatorEntry

Shapes = Sequence[Sequence[int]]
INDICES = re.compile(r"\d+")


def shape_text(name: str, shapes: Shapes) -> str:
    """Such as ``240->60 1x1 g3 28x28``: channels, window, groups, stride and the plane of the result.

    ``shapes`` are those of the tensors that a call takes, the result's last. What is no convolution, pooling or matrix
    product of ours is ``1x60x28x28 -> 1x60x28x28``.
    """
    describe = {
        "pointwise": _pointwise, "convolution": _convolution, "depthwise": _depthwise, "pooling": _pooling,
        "dense": _dense,
    }.get(kind_of(name), _plain)  # fmt: skip
    try:
        return describe(shapes)
    except (IndexError, ValueError, ZeroDivisionError):  # another operator of that name
        return _plain(shapes)


def entry_text(entry: OperatorEntry) -> str:
    return shape_text(entry.name, [argument.shape for argument in entry.arguments or ()])


def _pointwise(shapes: Shapes) -> str:
    data, (blocks, _, inputs, _), (outputs,), result = shapes[0], shapes[1], shapes[2], shapes[-1]
    # One without groups may be cut into blocks, as many as the shuffle behind it has groups.
    groups = blocks if blocks * inputs <= data[1] else 1
    return _joined(f"{groups * inputs}->{outputs}", "1x1", groups, data, result)


def _convolution(shapes: Shapes) -> str:
    data, (groups, _, inputs, height, width, _), (outputs,), result = shapes[0], shapes[1], shapes[2], shapes[-1]
    return _joined(f"{groups * inputs}->{outputs}", f"{height}x{width}", groups, data, result)


def _depthwise(shapes: Shapes) -> str:
    data, (channels, height, width), result = shapes[0], shapes[1], shapes[-1]
    return _joined(str(channels), f"{height}x{width} dw", 1, data, result)


def _pooling(shapes: Shapes) -> str:
    data, result = shapes[0], shapes[-1]
    return _joined(str(data[1]), "pool", 1, data, result)


def _dense(shapes: Shapes) -> str:
    data, (outputs,) = shapes[0], shapes[2]
    plane = f" {_plane(data)}" if len(data) == 4 and data[2] * data[3] > 1 else ""
    return f"{data[1]}->{outputs} dense{plane}"


def _joined(channels: str, window: str, groups: int, data: Sequence[int], result: Sequence[int]) -> str:
    stride = round(data[2] / result[2])
    words = [channels, window, f"g{groups}" if groups > 1 else "", f"s{stride}" if stride > 1 else "", _plane(result)]
    batch = [f"n{data[0]}"] if data[0] > 1 else []
    return " ".join([*filter(None, words), *batch])


def _plane(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[3]}"


def _plain(shapes: Shapes) -> str:
    big = [shape for shape in shapes if math.prod(shape) > 1] or shapes
    ends = big if len(big) < 2 else (big[0], big[-1])
    return " -> ".join("x".join(map(str, shape)) for shape in ends)


def layers_text(layers: Iterable[str]) -> str:
    """``stage2.1.gconv1, stage2.2.gconv1, stage2.3.gconv1`` as ``stage2.1-3.gconv1``, where one number differs."""
    return ", ".join(_merged(list(layers)))


def _merged(layers: list[str]) -> list[str]:
    for place in range(max((len(INDICES.findall(name)) for name in layers), default=0)):
        found = []
        for _, group in groupby(layers, key=lambda name, at=place: _without(name, at)):
            found += _ranges(list(group), place)
        layers = found
    return layers


def _spans(name: str) -> list[tuple[int, int]]:
    return [match.span() for match in INDICES.finditer(name)]


def _without(name: str, place: int) -> tuple:
    spans = _spans(name)
    if place >= len(spans) or "-" in name:
        return (name,)
    begin, end = spans[place]
    return name[:begin], name[end:]


def _ranges(group: list[str], place: int) -> list[str]:
    """Names that differ in one number, those of numbers in a row as one."""
    if len(group) < 2:
        return group
    begin = _spans(group[0])[place][0]
    numbers = [int(name[slice(*_spans(name)[place])]) for name in group]
    rest = group[0][_spans(group[0])[place][1] :]
    found = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        row = [number for _, number in run]
        found.append(f"{group[0][:begin]}{row[0]}{f'-{row[-1]}' if len(row) > 1 else ''}{rest}")
    return found
