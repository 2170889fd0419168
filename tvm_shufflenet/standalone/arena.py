"""Assigns offsets to tensors in the single block of memory that an instance allocates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass(frozen=True)
class Range:
    """``bytes`` that are in use from step ``first`` to step ``last``, both included."""

    bytes: int
    first: int
    last: int

    def overlaps(self, other: Range) -> bool:
        """Whether both are in use at some step."""
        return self.first <= other.last and other.first <= self.last


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(ranges: Sequence[Range]) -> tuple[list[int], int]:
    """An aligned offset for each range, such that no two in use at once overlap, and the size of the whole.

    The largest first, each at the lowest offset that is free: Pisarchyk and Lee, Efficient Memory Management for Deep
    Neural Net Inference (arXiv:2001.03288), greedy by size.
    """
    offsets: dict[int, int] = {}
    for index in sorted(range(len(ranges)), key=lambda index: (-ranges[index].bytes, index)):
        taken = sorted(
            (offset, offset + aligned(ranges[other].bytes))
            for other, offset in offsets.items()
            if ranges[index].overlaps(ranges[other])
        )
        offset = 0
        for start, end in taken:
            if offset + aligned(ranges[index].bytes) <= start:
                break
            offset = max(offset, end)
        offsets[index] = offset
    total = max((offset + aligned(ranges[index].bytes) for index, offset in offsets.items()), default=0)
    return [offsets[index] for index in range(len(ranges))], total
