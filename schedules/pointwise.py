"""Schedule template of the fused pointwise operator (tvm_shufflenet.operators.pointwise).

A register tile of output channels x pixels is accumulated over all input channels of its group, then bias, residual,
ReLU and shuffle are applied while it is stored. Two ways to fill a vector register:

    pixels    lanes hold neighbouring pixels, the weight is broadcast; the plane must split into whole vectors
    channels  lanes hold neighbouring output channels, the pixel is broadcast; for planes such as 7 x 7 = 49
"""

from __future__ import annotations

from dataclasses import dataclass

from .space import choose, divisors

# Vector registers that must stay free of accumulators: the broadcast operand, one row of the tile, and slack.
RESERVED_REGISTERS = 6
MAX_TILE_VECTORS = 8
TRANSPOSED_STORE = 0.1  # channels in lanes: each result is stored on its own
UNROLLS = (4, 2, 8, 1)


@dataclass(frozen=True)
class Shape:
    """One pointwise workload: ``blocks`` of ``inputs`` to ``outputs`` channels over ``pixels``, read off its TIR."""

    blocks: int
    inputs: int
    outputs: int
    pixels: int


@dataclass(frozen=True)
class Variant:
    """What the structure of the schedule depends on; the knobs (tile rows, unrolling) are sampled within it.

    ``axis`` and ``lanes`` say what a vector holds, ``vectors`` how many of them a tile row has. ``pixels_outer``
    streams a block's weights past one strip of pixels, instead of the pixels past one tile of weights.
    """

    axis: str
    lanes: int
    vectors: int
    rows: tuple[int, ...]
    pixels_outer: bool


def variants(shape: Shape, lanes: int, registers: int) -> list[Variant]:
    """Every variant that is legal for ``shape`` with ``registers`` vector registers of ``lanes``, best first.

    A tile of rows x vectors accumulators must fit in the registers; a row count must divide its extent. Where no
    tile of several rows of whole vectors does, as with 25 channels of 49 pixels, lanes may idle and a tile be one row.
    """
    axes = (("pixels", shape.pixels, shape.outputs), ("channels", shape.outputs, shape.pixels))
    found = []
    for axis, extent, row_extent in axes:
        width = _whole_vector(extent, lanes)
        if width is not None:
            found += _tiles(axis, width, extent, row_extent, lanes, registers, fewest_rows=min(2, row_extent))
    if not found:
        for axis, extent, row_extent in axes:
            width = _whole_vector(extent, lanes) or divisors(extent, max(lanes, 8))[-1]
            found += _tiles(axis, width, extent, row_extent, lanes, registers, fewest_rows=1)

    def cost(variant: Variant) -> float:
        used = registers_per_vector(variant.lanes, lanes)
        busy_lanes = variant.lanes / (used * lanes)
        transposed = TRANSPOSED_STORE * (variant.axis == "channels")
        return _cost(variant.rows[0], variant.vectors * used) / busy_lanes + transposed

    return sorted(found, key=cost)


def registers_per_vector(width: int, lanes: int) -> int:
    """LLVM holds a vector of ``width`` in whole registers of ``lanes``, the last one partly idle."""
    return -(-width // lanes)


def _whole_vector(extent: int, lanes: int) -> int | None:
    """The widest of a full, half or quarter register, of at least 4 lanes, that divides ``extent``."""
    return next((width for width in (lanes, lanes // 2, lanes // 4) if width >= 4 and extent % width == 0), None)


def _tiles(axis: str, width: int, extent: int, row_extent: int, lanes: int, registers: int, fewest_rows: int):
    """Variants with vectors of ``width`` along ``axis`` whose accumulators fit in the registers."""
    used, budget = registers_per_vector(width, lanes), registers - RESERVED_REGISTERS
    for vectors in divisors(extent // width, MAX_TILE_VECTORS):
        heights = [rows for rows in divisors(row_extent, budget // (vectors * used)) if rows >= fewest_rows]
        rows = tuple(sorted(heights, key=lambda height, vectors=vectors: _cost(height, vectors * used)))
        if rows:
            yield from (Variant(axis, width, vectors, rows, outer) for outer in (False, True))


def _cost(rows: int, vectors: int) -> float:
    """Loads of one reduction step over its multiply-adds, more where too few accumulators hide an FMA's latency."""
    return 1 / vectors + 1 / rows + (0.5 if rows * vectors < 8 else 0.0)


def read_shape(block) -> Shape:
    """The workload of a pointwise block: iterators (n, b, o, p, k)."""
    _, blocks, outputs, pixels, inputs = [int(axis.dom.extent) for axis in block.iter_vars]
    return Shape(blocks, inputs, outputs, pixels)


def pointwise_template(sch, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``, sampling the tile's rows and the unrolling of the reduction."""
    acc, out = sch.get_sblock("pointwise"), sch.get_sblock("epilogue")
    shape = read_shape(sch.get(acc))
    rows = choose(sch, variant.rows)
    unroll = choose(sch, [u for u in UNROLLS if shape.inputs % u == 0])
    row_of_vectors = variant.vectors * variant.lanes
    channel_tile, pixel_tile = (rows, row_of_vectors) if variant.axis == "pixels" else (row_of_vectors, rows)

    if variant.axis == "channels":  # the accumulators' lanes must be neighbours
        sch.transform_layout(acc, ("write", 0), lambda n, b, o, p: (n, b, p, o))
    n, b, o, p = sch.get_loops(out)
    oo, oi = sch.split(o, [None, channel_tile])
    po, pi = sch.split(p, [None, pixel_tile])
    outer, inner = (po, oo) if variant.pixels_outer else (oo, po)
    sch.reorder(n, b, outer, inner, oi, pi)
    sch.compute_at(acc, inner, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    sch.parallel(sch.fuse(n, b, outer))
    reduce_in_registers(sch, acc, variant, unroll)
    store_tile(sch, oi, pi, variant)


def reduce_in_registers(sch, acc, variant: Variant, unroll) -> None:
    """Reduction outermost and partly unrolled, the tile inside it unrolled down to one hardware vector."""
    *_, o, p, k = sch.get_loops(acc)
    ko, ki = sch.split(k, [None, unroll])
    rows, vector = (o, p) if variant.axis == "pixels" else (p, o)
    vo, lanes = sch.split(vector, [variant.vectors, variant.lanes])
    sch.reorder(ko, ki, rows, vo, lanes)
    for loop in (ki, rows, vo):
        sch.unroll(loop)
    sch.vectorize(lanes)  # exactly one register wide: LLVM spills what is wider
    init = sch.decompose_reduction(acc, ko)
    *_, rows, vo, lanes = sch.get_loops(init)
    sch.unroll(rows)
    sch.unroll(vo)
    sch.vectorize(lanes)


def store_tile(sch, oi, pi, variant: Variant) -> None:
    """Epilogue of one tile: straight-line code, vectors where neighbouring lanes are neighbours in memory."""
    sch.unroll(oi)
    if variant.axis == "pixels":
        vo, lanes = sch.split(pi, [variant.vectors, variant.lanes])
        sch.unroll(vo)
        sch.vectorize(lanes)
    else:
        sch.unroll(pi)
