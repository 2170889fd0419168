"""The geometry of a sliding window, and a padded copy of image rows with columns grouped by phase.

With a stride of 2 a vector of neighbouring outputs reads every other column. The copy therefore stores even and odd
columns apart (in general: column c in phase c mod stride), so that each tap of the window reads neighbours in memory.
The copy is scratch: a schedule places it where it is used, one plane or a few rows at a time, so it stays in L1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import ir, tirx
from tvm.script.ir_builder import tirx as T

from .base import PADDED, Layout
from .building import cast

# Of a vector, and how many lanes it has.
Convert = Callable[[ir.Expr, int], ir.Expr]


def unchanged(vector: ir.Expr, _lanes: int) -> ir.Expr:
    return vector


def converted(dtype: str) -> Convert:
    """Vectors as those of ``dtype``."""

    def convert(vector: ir.Expr, lanes: int) -> ir.Expr:
        return cast(vector, dtype if lanes == 1 else f"{dtype}x{lanes}")

    return convert


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


@dataclass(frozen=True)
class Sliding:
    """A ``kernel`` (R, S) window over ``height`` x ``width``; ``padding`` is (top, left, bottom, right)."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    layout: Layout

    @property
    def out_height(self) -> int:
        return (self.padded_height - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        return (self.width + self.padding[1] + self.padding[3] - self.kernel[1]) // self.stride[1] + 1

    @property
    def rounded_width(self) -> int:
        """Columns of accumulators; what is computed in those beyond ``out_width`` is dropped."""
        narrow = max(self.layout.narrowest, 1 << (self.out_width - 1).bit_length())  # a power of two
        return round_up(self.out_width, min(self.layout.columns, narrow))

    @property
    def padded_height(self) -> int:
        return self.height + self.padding[0] + self.padding[2]

    @property
    def phases(self) -> int:
        return self.stride[1]

    def length(self, phase: int) -> int:
        """Columns of a phase that results which are kept read."""
        return -(-((self.out_width - 1) * self.phases + self.kernel[1] - phase) // self.phases)

    @property
    def pitch(self) -> int:
        """Columns of one phase in the copy, those included that only dropped results read and whole vectors fill."""
        last_read = self.rounded_width - 1 + (self.kernel[1] - 1) // self.phases
        return max(last_read + 1, vector_over(self.length(0), self.layout.copied))

    def scratch_shape(self, batch: int, channels: int) -> tuple[int, ...]:
        return batch, channels, self.padded_height, self.phases, self.pitch

    def place(self, n, c, h, w, r, s) -> tuple:
        """Where the copy holds what tap (r, s) of the window at output (h, w) reads."""
        return n, c, h * self.stride[0] + r, s % self.phases, w + s // self.phases

    def pad(self, data, scratch, value: ir.Expr, convert: Convert = unchanged) -> None:
        """Emit the block ``padded``: rows of ``data`` (N, C, H, W), converted, into ``scratch``; ``value`` around them.

        ``convert`` is applied to vectors of any number of lanes.
        """
        batch, channels, rows, phases, pitch = (int(extent) for extent in scratch.shape)
        top = self.padding[0]
        # The two loops of extent 1 are there for compute_at, which wants each written dimension to have an iterator.
        with T.grid(batch, channels, rows, 1, 1) as loops, T.sblock(PADDED):
            n, c, h, f, j = T.axis.remap("SSSSS", loops)
            T.reads(data[n, c, h - top, 0 : self.width])
            T.writes(scratch[n, c, h, f * phases : f * phases + phases, j * pitch : j * pitch + pitch])
            if not self.padding[0] and not self.padding[2]:
                self._copy_row(data, scratch, n, c, h, value, convert)
                return
            with T.If(tirx.all(h >= top, h < self.height + top)):
                with T.Then():
                    self._copy_row(data, scratch, n, c, h, value, convert)
                with T.Else():
                    for phase in range(phases):
                        _fill(scratch, (n, c, h, phase), pitch, self.layout.copied, value)

    def _copy_row(self, data, scratch, n, c, h, value, convert: Convert) -> None:
        """One row with what surrounds it, in whole vectors: all phases of some columns, then of the next."""
        left, phases, row = self.padding[1], self.phases, (n, c, h - self.padding[0])
        for start in range(0, self.length(0), self.layout.copied):
            columns = {}
            for phase in range(phases):
                lanes = self._vector_at(start, phase)
                kept = range(start, min(start + lanes, self.length(phase)))
                found = [place * phases + phase - left for place in kept]
                columns[phase] = [column if 0 <= column < self.width else None for column in found]
                columns[phase] += [None] * (lanes - len(found))
            inside = [column for found in columns.values() for column in found if column is not None]
            run = _Run(data, row, min(inside), max(inside) + 1, convert) if inside else None
            for phase, found in columns.items():
                if found:
                    vector = run.pick(found, value) if run else _all(value, len(found))
                    _store(scratch, (n, c, h, phase), start, len(found), vector)

    def _vector_at(self, start: int, phase: int) -> int:
        """Columns of a phase that are moved at once from ``start`` on."""
        copied, left = self.layout.copied, self.length(phase) - start
        return vector_over(min(copied, left), copied) if left > 0 else 0


class _Run:
    """Columns ``start`` to ``end`` of a row, loaded as one vector or as two that overlap."""

    def __init__(self, buffer, row: tuple, start: int, end: int, convert: Convert):
        size = end - start
        self.lanes = power_of_two_below(size)
        self.starts = [start] if self.lanes == size else [start, end - self.lanes]
        self.vectors = [convert(_load(buffer, row, at, self.lanes), self.lanes) for at in self.starts]
        if self.lanes == 1:  # a shuffle takes no scalars
            self.lanes, self.vectors = 2, [T.broadcast(self.vectors[0], 2)]

    def pick(self, columns: list[int | None], value):
        """A vector of ``columns``, ``value`` where that is None."""
        picks = [self._lane(column) for column in columns]
        if picks == list(range(self.lanes)):
            return self.vectors[0]
        vectors = [*self.vectors, _all(value, max(self.lanes, len(columns)))] if None in columns else self.vectors
        return tirx.Shuffle(vectors, [tirx.const(pick, "int32") for pick in picks])

    def _lane(self, column: int | None) -> int:
        """Where a column is in the vectors one after the other; the value around the image comes behind them."""
        if column is None:
            return len(self.vectors) * self.lanes
        second = column - self.starts[0] >= self.lanes
        return column - self.starts[second] + second * self.lanes


def power_of_two_below(value: int) -> int:
    """The largest power of two up to ``value``."""
    return 1 << value.bit_length() - 1


def vector_over(count: int, widest: int) -> int:
    """Columns that ``count`` of them take when they are stored in whole vectors, the ``widest`` first."""
    whole, rest = divmod(count, widest)
    return whole * widest + (1 << (rest - 1).bit_length() if rest else 0)


def _all(value, lanes: int):
    return value if lanes == 1 else T.broadcast(value, lanes)


def _fill(scratch, row: tuple, end: int, widest: int, value) -> None:
    """``scratch[row, :end] = value``, at most ``widest`` columns at once."""
    start = 0
    while start < end:
        lanes = power_of_two_below(min(end - start, widest))
        _store(scratch, row, start, lanes, _all(value, lanes))
        start += lanes


def _load(buffer, row: tuple, start: int, lanes: int):
    return buffer[(*row, start)] if lanes == 1 else buffer[(*row, tirx.Ramp(start, 1, lanes))]


def _store(buffer, row: tuple, start, lanes: int, value) -> None:
    T.buffer_store(buffer, value, [*row, start if lanes == 1 else T.ramp(start, 1, lanes)])
