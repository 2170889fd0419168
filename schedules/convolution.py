"""Schedule template of the fused K x K convolution (tvm_shufflenet.operators.convolution).

The image is padded, whole or by bands of rows, into a scratch whose columns lie apart by phase (see
tvm_shufflenet.operators.sliding). A register tile of output channels x vectors of columns is accumulated over input
channels and window, and stored. Where there are many input channels, only a chunk of them is accumulated at a time, for
all rows of a band, so that the chunk's weights stay in L1 meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..hardware.isa import narrowest_lanes
from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, PADDED, Block, Layout
from ..operators.convolution import BLOCK, Convolution
from . import sliding
from .sliding import read_scratch, vectors
from .space import choose, divisors, partition, points, unroll_vectors

BLOCKS = (Block(PADDED, "nchfj"), Block(BLOCK, "ngohw", "krs"), Block(EPILOGUE, "ngohw"))
# Output channels that lie together in a packed weight. A tile of any width then reads whole cache lines: rows of all
# output channels, of which it takes a part, would crowd into few sets of a cache.
STRIPS = (4, 2, 1)

RESERVED_REGISTERS = 3  # one row of input vectors is counted apart; the broadcast weight, and slack
UNROLLED_TAPS = 9
WEIGHT_BYTES = 8 * 1024  # of a chunk, a quarter of the smallest L1
BAND_BYTES = 40 * 1024  # of a padded band of all inputs
ACCUMULATOR_BYTES = 24 * 1024  # of a band, between chunks
WIDE_LOAD = 1.6  # of a load, in multiply-adds: many vectors wider than 16 bytes lie across two cache lines
TRAFFIC = 0.15  # cycles that a byte costs beside a multiply-add


@dataclass(frozen=True)
class Shape:
    """One workload: results per group and image, reduction extents, and bytes of a padded row of all inputs
    and of one number.

    ``columns`` are those that accumulators may have, results and dropped ones.
    """

    groups: int
    outputs: int
    height: int
    width: int
    columns: int
    inputs: int
    kernel: tuple[int, int]
    stride: int
    scratch_row_bytes: int
    element_bytes: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]


@dataclass(frozen=True)
class Variant:
    """A tile is output channels x ``vectors`` registers of ``lanes`` columns; the knobs are its channels and the rows
    of a band. ``chunk`` input channels are accumulated at a time. With ``whole`` the image is padded at once before the
    convolution, which then runs in parallel over output channels, else by bands, which run in parallel.
    """

    lanes: int
    vectors: int
    channels: tuple[int, ...]
    bands: tuple[int, ...]
    chunk: int
    whole: bool


def layout(operator: Convolution, machine: Machine) -> Layout:
    """The widest strip that divides a group's output channels, so that there is no part of a strip."""
    group_out = operator.out_channels // operator.groups
    strip = next(strip for strip in STRIPS if group_out % strip == 0)
    return replace(sliding.layout(operator, machine), strip=strip)


def schedules(sch, machine: Machine) -> Iterator:
    shape = read_shape(sch)
    return points(sch, variants(shape, machine), convolution_template, shape)


def variants(shape: Shape, machine: Machine) -> list[Variant]:
    """Legal variants, best guess first."""
    lanes, narrowest = machine.isa.lanes(shape.element_bytes), narrowest_lanes(shape.element_bytes)
    registers = machine.registers
    while lanes > narrowest and shape.width <= lanes // 2:
        lanes //= 2
    found = []
    for count in range(1, 8):
        if -(-shape.width // (count * lanes)) * count * lanes > shape.columns:
            continue
        budget = registers - RESERVED_REGISTERS - count
        channels = [o for o in divisors(shape.outputs, 32) if o * count <= budget]
        channels = tuple(sorted(channels, key=lambda o, v=count: tile_cost(shape, lanes, o, v))[:3])
        if channels:
            chunk = chunk_of(shape, channels[0])
            whole = shape.kernel[0] * shape.scratch_row_bytes > BAND_BYTES
            found.append(Variant(lanes, count, channels, bands(shape, channels[0], chunk, whole), chunk, whole))
    found.sort(key=lambda v: tile_cost(shape, v.lanes, v.channels[0], v.vectors))
    return [other for variant in found[:4] for other in _otherwise_placed(shape, variant)]


def _otherwise_placed(shape: Shape, variant: Variant) -> list[Variant]:
    """The variant, and the same tile with the scratch placed the other way."""
    whole = not variant.whole
    rows = bands(shape, variant.channels[0], variant.chunk, whole)
    return [variant, Variant(variant.lanes, variant.vectors, variant.channels, rows, variant.chunk, whole)]


def tile_cost(shape: Shape, lanes: int, channels: int, count: int) -> float:
    """Cycles for one result: multiply-adds, in idle lanes too, loads and the traffic from L1."""
    tile = count * lanes
    idle = -(-shape.width // tile) * tile / shape.width
    work = channels * count
    traffic = shape.element_bytes * (channels + tile) / (channels * tile)
    loads = (channels + count) * (WIDE_LOAD if lanes > narrowest_lanes(shape.element_bytes) else 1.0)
    return idle * max(work, loads, 8) / work + TRAFFIC * traffic


def chunk_of(shape: Shape, channels: int) -> int:
    """Input channels whose weights for one tile fit in a part of L1: all of them where that is nearly so."""
    fitting = WEIGHT_BYTES / (shape.element_bytes * channels * shape.taps)
    if 2 * fitting >= shape.inputs:
        return shape.inputs
    return max(c for c in divisors(shape.inputs, shape.inputs) if c <= max(1, fitting))


def bands(shape: Shape, channels: int, chunk: int, whole: bool) -> tuple[int, ...]:
    """Rows of results to a band, best guess first: the largest whose scratch and accumulators fit in a cache."""

    def fits(rows: int) -> bool:
        read = (rows - 1) * shape.stride + shape.kernel[0]
        accumulated = shape.element_bytes * channels * rows * shape.columns
        scratch = whole or read * shape.scratch_row_bytes <= BAND_BYTES
        return scratch and (chunk == shape.inputs or accumulated <= ACCUMULATOR_BYTES)

    fitting = [rows for rows in divisors(shape.height, 28) if fits(rows)]
    return tuple(reversed(fitting))[:4] or (1,)


def read_shape(sch) -> Shape:
    """The workload, read off its TIR: iterators (n, g, o, h, w, k, r, s) of the convolution."""
    out, acc = sch.get(sch.get_sblock(EPILOGUE)), sch.get(sch.get_sblock(BLOCK))
    _, groups, outputs, height, width = [int(axis.dom.extent) for axis in out.iter_vars]
    columns, inputs, *kernel = [int(axis.dom.extent) for axis in acc.iter_vars[-4:]]
    stride, channels, row_bytes, element_bytes = read_scratch(sch, height, kernel[0])
    return Shape(
        groups, outputs, height, width, columns, inputs, tuple(kernel), stride, channels * row_bytes, element_bytes
    )


def convolution_template(sch, shape: Shape, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``, sampling the tile's channels and the rows of a band."""
    padded, acc, out = (sch.get_sblock(name) for name in (PADDED, BLOCK, EPILOGUE))
    n, g, o, h, w = sch.get_loops(out)
    oo, oi = sch.split(o, [None, choose(sch, variant.channels)])
    ho, hi = sch.split(h, [None, choose(sch, variant.bands)])
    wo, wi = sch.split(w, [None, variant.vectors * variant.lanes])
    sch.reorder(*((n, g, oo, ho) if variant.whole else (n, ho, g, oo)), hi, wo, oi, wi)
    chunked = variant.chunk < shape.inputs
    sch.compute_at(acc, (ho if variant.whole else oo) if chunked else wo, preserve_unit_loops=True)
    if variant.whole:
        images, channels, *_ = sch.get_loops(padded)
        sch.parallel(sch.fuse(images, channels))
        sch.parallel(sch.fuse(n, g, oo))
    else:
        task = sch.fuse(n, ho)
        sch.compute_at(padded, task, preserve_unit_loops=True)
        sch.parallel(task)
    accumulate(sch, acc, shape, variant)
    partition(sch, wo)
    sch.unroll(oi)
    vectors(sch, wi, variant.lanes)


def accumulate(sch, acc, shape: Shape, variant: Variant) -> None:
    """Chunk by chunk of input channels, tile by tile: small windows unrolled, the tile down to one hardware vector."""
    *_, o, h, w, k, r, s = sch.get_loops(acc)
    ko, ki = sch.split(k, [None, variant.chunk])
    wo, vector, lane = sch.split(w, [None, variant.vectors, variant.lanes])
    sch.reorder(*((ko, h, wo) if variant.chunk < shape.inputs else (h, wo, ko)), ki, r, s, o, vector, lane)
    unroll_vectors(sch, *((r, s) if shape.taps <= UNROLLED_TAPS else (s,)), o, vector, lane)
    *_, o, vector, lane = sch.get_loops(sch.decompose_reduction(acc, ko))
    unroll_vectors(sch, o, vector, lane)
