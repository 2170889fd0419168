"""Shared by the templates of depthwise convolution and pooling: a window that slides over one channel plane.

Planes, or bands of rows of a large one, are padded into a scratch that stays in L1, their columns apart by phase (see
tvm_shufflenet.operators.sliding). Then a register tile of output rows x vectors of columns is accumulated over the
window with all taps unrolled, and stored. Several small planes are padded before the first is read: a vector that is
read soon after the narrower stores that made it waits for them to reach the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..hardware.isa import narrowest_lanes
from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, PADDED, Layout
from .space import choose, divisors, partition, unroll_vectors

# Rows of accumulators are rounded up to this many columns: whole vectors of every instruction set.
ROUND = 16
# Columns that are moved at once. Compilers split a wider vector into registers without loss in a mere copy.
COPY_LANES = 16

UNROLLED_TAPS = 25  # of a larger window, only the columns are unrolled
SCRATCH_BYTES = 24 * 1024
# Rows of a tile whose accumulators keep the multipliers busy without starving the taps of registers.
ENOUGH_ACCUMULATORS = 6
TASKS = (4, 8, 12, 16, 2, 1)


@dataclass(frozen=True)
class Plane:
    """One workload: ``planes`` of an image, of each ``height`` x ``width`` results, and its window.

    ``scratch_row_bytes`` are those of one padded row, ``element_bytes`` of one number in it.
    """

    planes: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: int
    scratch_row_bytes: int
    element_bytes: int


@dataclass(frozen=True)
class Variant:
    """``vectors`` registers of ``lanes`` columns to a row of the tile; the knobs are its rows and the parallel tasks.

    ``planes`` are padded together. With ``band`` the scratch holds only the rows that so many tile rows read.
    """

    lanes: int
    vectors: int
    rows: tuple[int, ...]
    planes: int
    banded: bool


def layout(_operator, machine: Machine) -> Layout:
    """Of every operator whose window slides: rows that end with a vector."""
    return Layout(columns=ROUND, narrowest=narrowest_lanes(machine.precision.bytes), copied=COPY_LANES)


def variants(plane: Plane, machine: Machine, reserved: int) -> list[Variant]:
    """Legal variants, best guess first; ``reserved`` registers are no accumulators."""
    lanes, narrowest = machine.isa.lanes(plane.element_bytes), narrowest_lanes(plane.element_bytes)
    registers = machine.registers
    while lanes > narrowest and plane.width <= lanes // 2:
        lanes //= 2
    per_row = -(-plane.width // lanes)
    found = []
    for vectors in divisors(per_row, max(1, registers - reserved)):
        rows = [r for r in divisors(plane.height, 16) if r * vectors <= registers - reserved]
        rows = tuple(sorted(rows, key=lambda r, v=vectors: tile_cost(plane, r, v))[:4])
        found += [Variant(lanes, vectors, rows, *scratch) for scratch in scratches(plane)]
    return sorted(found, key=lambda v: tile_cost(plane, v.rows[0], v.vectors))


def tile_cost(plane: Plane, rows: int, vectors: int) -> float:
    """Loads for one vector of results, and more where too few accumulators hide a multiply-add's latency."""
    (window_rows, window_columns), accumulators = plane.kernel, rows * vectors
    loads = window_columns * (window_rows + (rows - 1) * plane.stride) / rows
    return max(loads, window_rows * window_columns * max(1.0, ENOUGH_ACCUMULATORS / accumulators)) + 0.05 * accumulators


def scratches(plane: Plane) -> list[tuple[int, bool]]:
    """How many planes are padded together, and whether by bands: those that fit in L1."""
    rows = (plane.height - 1) * plane.stride + plane.kernel[0]
    whole = rows * plane.scratch_row_bytes
    if whole > SCRATCH_BYTES:
        return [(1, True), (1, False)]
    together = [p for p in divisors(plane.planes, 8) if p * whole <= SCRATCH_BYTES]
    return [(p, False) for p in sorted(together, key=lambda p: abs(p * whole - SCRATCH_BYTES / 2))[:3]]


def plane_template(sch, block: str, variant: Variant, taps: int) -> None:
    """Schedule ``sch`` in place as ``variant``, sampling the tile's rows and how many tasks run in parallel."""
    padded, acc, out = (sch.get_sblock(name) for name in (PADDED, block, EPILOGUE))
    rows = choose(sch, variant.rows)
    n, c, h, w = sch.get_loops(out)
    groups = int(sch.get(c).extent) // variant.planes
    task, group, _ = sch.split(c, [choose(sch, [t for t in TASKS if groups % t == 0]), None, variant.planes])
    ho, hi = sch.split(h, [None, rows])
    wo, wi = sch.split(w, [None, variant.vectors * variant.lanes])
    sch.reorder(ho, wo, hi, wi)
    sch.compute_at(acc, wo, preserve_unit_loops=True)
    sch.compute_at(padded, ho if variant.banded else group, preserve_unit_loops=True)
    sch.parallel(sch.fuse(n, task))
    scratch = sch.get(padded).writes[0].source
    if variant.lanes > narrowest_lanes(
        bytes_of(scratch)
    ):  # fewer vectors of the scratch lie across two cache lines; the narrowest seldom do
        sch.storage_align(padded, 0, 3, 16, 0)
    accumulate(sch, acc, variant.lanes, taps)
    partition(sch, wo)
    sch.unroll(hi)
    vectors(sch, wi, variant.lanes)


def accumulate(sch, acc, lanes: int, taps: int) -> None:
    """All taps of the window inside the tile, which stays in registers."""
    *_, h, w, r, s = sch.get_loops(acc)
    wo, wi = sch.split(w, [None, lanes])
    sch.reorder(r, s, h, wo, wi)
    unroll_vectors(sch, *((s,) if taps > UNROLLED_TAPS else (r, s)), h, wo, wi)
    *_, h, wo, wi = sch.get_loops(sch.decompose_reduction(acc, r))
    unroll_vectors(sch, h, wo, wi)


def vectors(sch, loop, lanes: int) -> None:
    """Straight-line code for one row of a tile, in vectors of ``lanes``; the last may be partial."""
    vector, lane = sch.split(loop, [None, lanes])
    partition(sch, vector, lane)
    sch.vectorize(lane)


def read_plane(sch, block: str) -> Plane:
    """The workload of a depthwise or pooling block, iterators (n, c, h, w, r, s), read off its TIR."""
    out, acc = sch.get(sch.get_sblock(EPILOGUE)), sch.get(sch.get_sblock(block))
    _, channels, height, width = [int(axis.dom.extent) for axis in out.iter_vars]
    kernel = tuple(int(axis.dom.extent) for axis in acc.iter_vars[-2:])
    stride, _, row_bytes, element_bytes = read_scratch(sch, height, kernel[0])
    return Plane(channels, height, width, kernel, stride, row_bytes, element_bytes)


def bytes_of(buffer) -> int:
    """Of one number in it."""
    return np.dtype(str(buffer.dtype)).itemsize


def read_scratch(sch, height: int, window_rows: int) -> tuple[int, int, int, int]:
    """The stride of ``height`` windows of ``window_rows`` each down the padded scratch, which does not say it outright;
    then the scratch's channels, the bytes of a row of one of them, and of a number.
    """
    scratch = sch.get(sch.get_sblock(PADDED)).writes[0].source
    _, channels, padded_height, phases, pitch = (int(extent) for extent in scratch.shape)
    stride = (padded_height - window_rows) // (height - 1) if height > 1 else 1
    return stride, channels, bytes_of(scratch) * phases * pitch, bytes_of(scratch)
