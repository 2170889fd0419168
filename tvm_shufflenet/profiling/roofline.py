"""The roofline of a profile: each operator's rate against what the bytes it moves allow.

On an emulated core the bytes are the cache lines that went to and from memory, and the roofs are those of the core's
model. On a device with a clock of its own bytes are not counted and the roofs are unknown: then every tensor counts
once, as if it were moved once, and there are dots without a roof.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..hardware.boards import Board
from ..packages.manifest import OperatorEntry
from ..precision import FLOAT32, PRECISIONS, Precision
from .result import OperatorCost, Profile


@dataclass(frozen=True)
class Dot:
    """One operator: multiply-adds a byte (infinite where nothing went to memory), and 10^9 multiply-adds a second."""

    operator: str
    macs_per_byte: float
    gmacs_per_second: float
    time_us: float
    bound: str | None


@dataclass(frozen=True)
class Roofs:
    """``peak`` is in 10^9 multiply-adds a second, the bandwidths in 10^9 bytes a second, of all cores together."""

    peak: float
    memory: float
    l2: float

    def at(self, macs_per_byte: float) -> float:
        """What is possible with so many multiply-adds for each byte to or from memory."""
        return min(self.peak, self.memory * macs_per_byte)

    @property
    def ridge(self) -> float:
        """Multiply-adds a byte from which on memory no longer limits."""
        return self.peak / self.memory


@dataclass(frozen=True)
class Roofline:
    """``silent`` operators multiply nothing, such as pooling for the largest: they have no place here."""

    dots: tuple[Dot, ...]
    silent: tuple[str, ...]
    roofs: Roofs | None


def roofline(profile: Profile) -> Roofline:
    rows = [row for row in profile.operators if row.multiply_adds and row.time_us]
    silent = tuple(row.entry.name for row in profile.operators if row not in rows)
    board = profile.device.board if profile.peak else None
    precision = PRECISIONS[profile.manifest.precision]
    return Roofline(tuple(map(_dot, rows)), silent, board and roofs_of(board, profile.threads, precision))


def limit_us(operators: Iterable[OperatorEntry], board: Board, threads: int = 1) -> float:
    """What the operators take at least: each its multiply-adds at the core's peak, or as long as memory needs for what
    its tensors hold beyond the second cache, whichever is longer."""
    roofs, seconds = roofs_of(board, threads), 0.0
    for entry in operators:
        moved = max(0, tensor_bytes(entry) - board.core.l2.bytes)
        work = entry.multiply_adds or 0
        seconds += entry.occurrences * max(work / roofs.peak, moved / roofs.memory) / 1e9
    return 1e6 * seconds


def roofs_of(board: Board, threads: int = 1, precision: Precision = FLOAT32) -> Roofs:
    """Of the core's model: one memory for all cores, an L2 port for each."""
    peak = board.core.macs_per_cycle(precision) * board.clock_ghz * threads
    l2 = board.core.l1d.line_bytes / board.core.l2_latency * board.clock_ghz * threads
    return Roofs(peak, board.core.l2.line_bytes / board.dram_line_ns, l2)


def _dot(row: OperatorCost) -> Dot:
    moved = row.work.l2_bytes if row.work else row.entry.occurrences * tensor_bytes(row.entry)
    intensity = row.multiply_adds / moved if moved else math.inf
    bound = row.work.bound if row.work else None
    return Dot(row.entry.name, intensity, row.gmacs_per_second, row.time_us, bound)


def tensor_bytes(entry: OperatorEntry) -> int:
    """Of all that an operator reads and writes in a call, each tensor once."""
    return sum(math.prod(argument.shape) * np.dtype(argument.dtype).itemsize for argument in entry.arguments or ())
