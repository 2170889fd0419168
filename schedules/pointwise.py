"""Schedule template of the fused pointwise operator (tvm_shufflenet.operators.pointwise).

A register tile of ``rows`` output channels x ``vectors`` vectors of neighbouring pixels is accumulated over the input
channels; bias, residual, ReLU and shuffle are applied while results are stored. Neither tile extent needs to divide its
axis: TVM's LoopPartition pass cuts each hinted loop into its whole tiles and its last one, so that both are
straight-line code without a test.

Stages, from the outside in:

    tasks    images x blocks x ``chunks`` of a block's output channels, in parallel; chunks divide exactly, because a
             test in the parallel loop would end up in the innermost one
    passes   where the operands of a tile would not stay in L1, the reduction is cut into passes of ``depth`` input
             channels over a ``strip`` of pixels, and accumulators wait in memory between two passes
    tiles    ``pixels_outer`` runs all weights past one strip of pixels, else all pixels past one strip of weights
    tile     straight-line code, one hardware vector a statement: LLVM spills what is wider

Where the plane is no multiple of a vector (49 pixels, 196 with 16 lanes), the last vector of a row holds fewer pixels
than lanes. These are scalar code for each row of the tile, which LLVM packs into vectors of neighbouring output
channels, whose weights are neighbours in memory: 8 x 49 takes 8 x 3 + 1 = 25 multiply-adds of 16 lanes where whole
vectors of pixels would take 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, Block, Layout
from ..operators.pointwise import BLOCK
from .space import choose, divisors, partition, points, unroll_vectors

BLOCKS = (Block(BLOCK, "nbop", "k"), Block(EPILOGUE, "nbop"))
# So many output channels are neighbours in the packed weight, input channel after input channel: what a tile reads is
# a few streams, and every cache line of them is used at once.
RUN = 4

LINE_BYTES = 64
CHUNKS = (2, 4)
MIN_STRIP = 28  # pixels, seven vectors of NEON
MAX_STRIPS = 3
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 20)
RUN_ROWS = (4, 8, 12, 16, 20)  # whole runs of packed weights
RAGGED_ROWS = (4, 8)  # as many last pixels as LLVM packs into one vector
MAX_STAGED_TILE = 24  # vectors; LLVM moves at most 250 accesses out of a loop, and 4 channels make 8 of each vector
MAX_STRIP_TILE = 20  # the same within a further loop
MIN_DEPTH = 24  # products to each load and store of an accumulator
ROOMY = 21  # registers; LLVM schedules loads the worse the more of the 32 a tile takes
SPILL = 0.007
TILE_CYCLES = 10.0  # to start and end a tile's reduction
MAX_VARIANTS = 12
MAX_HEIGHTS = 4


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

    A tile row is ``vectors`` vectors of ``lanes`` pixels, the last one perhaps partial. With ``by_lane`` the weights
    of a tile are loaded as vectors and multiplied by their lanes, as NEON can, else each is broadcast from memory.
    A task is one of ``chunks`` of a block's output channels over ``strip`` pixels, a pass ``depth`` input channels.
    Accumulators of ``staged`` variants lie in memory before and after a tile has added its products.
    """

    lanes: int
    vectors: int
    rows: tuple[int, ...]
    by_lane: bool
    pixels_outer: bool
    chunks: int
    strip: int
    depth: int
    staged: bool


def layout(_operator, _machine: Machine) -> Layout:
    return Layout(strip=RUN)


def schedules(sch, machine: Machine) -> Iterator:
    shape = read_shape(sch.get(sch.get_sblock(BLOCK)))
    return points(sch, variants(shape, machine), pointwise_template)


def variants(shape: Shape, machine) -> list[Variant]:
    """The variants worth a trial for ``shape`` on ``machine``, best guess first."""
    found = {}
    for chunks, strip in tasks(shape, machine):
        for depth, staged in passes(shape, strip, machine):
            for vectors in widths(strip, machine):
                for pixels_outer in (True, False):
                    variant = Variant(
                        machine.lanes, vectors, (), machine.isa.by_element, pixels_outer, chunks, strip, depth, staged
                    )
                    costs = {rows: cost(shape, machine, variant, rows) for rows in heights(shape, machine, variant)}
                    rows = tuple(sorted(costs, key=costs.get)[:MAX_HEIGHTS])
                    if rows:
                        found[replace(variant, rows=rows)] = costs[rows[0]]
    return sorted(found, key=found.get)[:MAX_VARIANTS]


def tasks(shape: Shape, machine) -> list[tuple[int, int]]:
    """Chunks of a block's output channels, and pixels of a strip: the whole block, or the parts of several tasks."""
    found = [(1, shape.pixels)]
    if machine.threads > 1:
        run = RUN if machine.isa.by_element else 1  # weights loaded as vectors begin with a whole run
        found += [(chunks, shape.pixels) for chunks in CHUNKS if shape.outputs % (chunks * run) == 0]
    strips = [s for s in divisors(shape.pixels, shape.pixels // 2) if s % machine.lanes == 0 and s >= MIN_STRIP]
    return found + [(1, strip) for strip in strips[-MAX_STRIPS:]]


def passes(shape: Shape, strip: int, machine) -> list[tuple[int, bool]]:
    """Input channels of a pass, and whether it is staged: all of them, or so few that their pixels take half of L1."""
    found = [(shape.inputs, False), (shape.inputs, True)]
    count = -(-shape.inputs * strip * machine.precision.bytes // (machine.l1_bytes // 2))
    depth = -(-shape.inputs // count) + 3 & ~3
    if count > 1 and depth >= MIN_DEPTH:
        found.append((depth, True))
    return found


def widths(strip: int, machine) -> list[int]:
    """Vectors of a tile row: few enough for several rows, or a whole row of 49 pixels."""
    whole = -(-strip // machine.lanes)
    return [v for v in range(1, min(whole, 7) + 1) if machine.isa.by_element or v <= 4 or v == 7]


def heights(shape: Shape, machine, variant: Variant) -> list[int]:
    """Rows whose accumulators fit in the registers, at most the output channels of a task.

    In one pass a task must consist of whole tiles if there are several: TVM bounds a tile by the extents of the whole
    tensor, so the last one of a task would run on into the next task's part. A staged task has bounds of its own.
    """
    outputs, width = shape.outputs // variant.chunks, variant.vectors * variant.lanes
    if not variant.staged and variant.strip < shape.pixels and variant.strip % width:
        return []
    full = min(variant.vectors, variant.strip // variant.lanes)
    found = set()
    for rows in RUN_ROWS if variant.by_lane else RAGGED_ROWS if variant.strip % variant.lanes else ROWS:
        fits = registers_used(variant, rows) <= machine.registers or rows == 1
        if variant.by_lane and rows > 2 * RUN:  # so many weights leave no room to load the next ones in advance
            fits = fits and full == 1
        if variant.staged:
            stored = full + (variant.by_lane and full < variant.vectors)  # last pixels are loaded and stored apart
            fits = fits and rows * stored <= (MAX_STAGED_TILE if variant.strip == shape.pixels else MAX_STRIP_TILE)
        elif variant.chunks > 1:
            fits = fits and outputs % rows == 0
        if fits:
            found.add(min(rows, outputs))
    return sorted(found)


def registers_used(variant: Variant, rows: int) -> int:
    """Accumulators, weights and pixels of a tile.

    AVX-512 holds 8 x 3 accumulators and one for 8 last pixels, 3 pixel vectors and one broadcast weight in its 32
    registers; AVX2 4 x 2, 2 and one in 16, or 2 x 6. NEON holds 8 x 3 or 4 x 7, the weights of all rows in vectors of
    four, which its multiply-add uses by lane, and two pixel vectors on their way.
    """
    full = min(variant.vectors, variant.strip // variant.lanes)
    accumulators = rows * full + -(-rows // variant.lanes) * (full < variant.vectors)
    return accumulators + (-(-rows // RUN) + 2 if variant.by_lane else full + 1)


def cost(shape: Shape, machine, variant: Variant, rows: int) -> float:
    """Estimated cycles of one block: multiply-adds or loads, storing, and misses of the first cache."""
    outputs, width = shape.outputs // variant.chunks, variant.vectors * variant.lanes
    count = -(-shape.inputs // variant.depth)
    store = machine.costs.store * (1.5 if variant.staged else 1.0)

    def tile(height: int, pixels: int) -> float:
        full, rest = divmod(pixels, variant.lanes)
        multiply_adds = height * full + -(-height // variant.lanes) * rest
        loads = full + (-(-height // RUN) if variant.by_lane else height) + (1 + rest if rest else 0)
        # With fewer accumulators than this each waits for its last multiply-add.
        step = max(multiply_adds / machine.multiply_adds, loads / 2, machine.costs.latency)
        step += machine.costs.load * loads + machine.costs.step
        return shape.inputs / count * step + height * (full + rest) * store + TILE_CYCLES

    tiles = 0.0
    for height, repeats in ((rows, outputs // rows), (outputs % rows, 1)):
        for pixels, strips in ((width, variant.strip // width), (variant.strip % width, 1)):
            if height and pixels:
                tiles += repeats * strips * tile(height, pixels) * (1.0 if height == rows or height % RUN == 0 else 1.5)
    core = tiles * count * (shape.pixels // variant.strip)
    if variant.staged:  # zeroes before and the epilogue after it run over the strip on their own
        core += 2 * machine.costs.store * outputs * shape.pixels / variant.lanes
    count_tasks = shape.blocks * variant.chunks * (shape.pixels // variant.strip)
    balance = -(-count_tasks // machine.threads) * machine.threads / count_tasks
    if variant.by_lane:
        core *= 1.06 if rows > 2 * RUN else 1.03 if registers_used(variant, rows) >= machine.registers - 1 else 1.0
        if variant.strip % variant.lanes and not variant.staged and rows < 2 * RUN:
            core *= 1.12  # the last pixels of one run of channels make one chain of multiply-adds
    else:  # a row that begins within a run of weights costs an address of its own
        core *= 1 + SPILL * max(0, registers_used(variant, rows) - ROOMY)
        core *= 1 + SPILL * 8 * (rows % RUN != 0)
        core *= 1 + SPILL * 3 * (not variant.pixels_outer)
    return variant.chunks * balance * (core + machine.miss_cycles * misses(shape, machine, variant, rows))


def misses(shape: Shape, machine, variant: Variant, rows: int) -> float:
    """Estimated misses of one task: an operand stays in the first cache if what is used between two uses of it fits."""
    outputs, width = shape.outputs // variant.chunks, min(variant.vectors * variant.lanes, variant.strip)
    depth, strip = min(variant.depth, shape.inputs), variant.strip
    room, element = 0.65 * machine.l1_bytes / LINE_BYTES, machine.precision.bytes
    strips, repeats = -(-strip // width), -(-outputs // rows)

    def lines(pixels: int) -> float:
        # Whole planes lie one behind the other; parts of a plane begin and end within a line.
        aligned = pixels == shape.pixels or not any(p * element % LINE_BYTES for p in (pixels, strip, shape.pixels))
        return pixels * element / LINE_BYTES + (0 if aligned else 0.75)

    weights, weights_strip = (depth * channels * element / LINE_BYTES for channels in (outputs, rows))
    data, data_strip = depth * lines(strip), depth * lines(width)
    if variant.pixels_outer:
        split = max(data, data_strip * strips)  # a line that two strips share is read twice, or every other time
        data = (data + split) / 2 if data_strip + weights <= room else split
        data *= 1 if data_strip + weights_strip <= room else repeats
        weights *= 1 if data_strip + weights <= room else strips
    else:
        if weights_strip + data_strip > room:
            weights, data = weights * strips, data_strip * strips
        data *= 1 if data + weights_strip <= room else repeats
    count = -(-shape.inputs // depth)
    results = outputs * lines(strip) * (count + 1 if variant.staged else 1)
    return ((data + weights) * count + results) * (shape.pixels // strip)


def read_shape(block) -> Shape:
    """The workload of a pointwise block: iterators (n, b, o, p, k)."""
    _, blocks, outputs, pixels, inputs = [int(axis.dom.extent) for axis in block.iter_vars]
    return Shape(blocks, inputs, outputs, pixels)


def pointwise_template(sch, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``, sampling the tile's rows and the unrolling of the reduction."""
    acc, out = sch.get_sblock(BLOCK), sch.get_sblock(EPILOGUE)
    shape = read_shape(sch.get(acc))
    rows = choose(sch, variant.rows)
    unroll = choose(sch, [u for u in unrolls(variant) if shape.inputs % u == 0])
    n, b, o, p = sch.get_loops(out)
    chunk, o = sch.split(o, [variant.chunks, None])
    strip, p = sch.split(p, [None, variant.strip])
    sch.reorder(n, b, chunk, strip, o, p)
    task = sch.fuse(n, b, chunk, strip)
    stages = staged_tiles if variant.staged else register_tiles
    stages(sch, acc, task, o, p, variant, rows, unroll)


def unrolls(variant: Variant) -> tuple[int, ...]:
    """Input channels to a loop iteration. More hide loads on in-order cores; LLVM packs scalars of only two of them."""
    if variant.by_lane:
        return 4, 2, 1
    return (2, 1) if variant.strip % variant.lanes else (2, 4, 1)


def register_tiles(sch, acc, task, o, p, variant: Variant, rows, unroll) -> None:
    """Each tile's accumulators live in registers from the first input channel to the epilogue."""
    oo, oi = sch.split(o, [None, rows])
    po, pi = sch.split(p, [None, variant.vectors * variant.lanes])
    outer, inner = (po, oo) if variant.pixels_outer else (oo, po)
    sch.reorder(outer, inner, oi, pi)
    sch.compute_at(acc, inner, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    sch.parallel(task)
    partition(sch, oo, po)
    straight_line(sch, oi, pi, variant, row_by_row=True)

    *_, oi, pi, k = sch.get_loops(acc)
    ko, ki = sch.split(k, [None, unroll])
    sch.reorder(ko, ki, oi, pi)
    reduce_tile(sch, acc, ki, oi, pi, variant)
    sch.decompose_reduction(acc, ko)


def staged_tiles(sch, acc, task, o, p, variant: Variant, rows, unroll) -> None:
    """A strip's results stay in memory near the core; a tile loads them, adds ``depth`` products and stores them."""
    sch.compute_at(acc, task, preserve_unit_loops=True)
    sch.parallel(task)
    straight_line(sch, None, p, variant, row_by_row=True)

    *_, o, p, k = sch.get_loops(acc)
    kp, k = sch.split(k, [None, variant.depth])
    ko, ki = sch.split(k, [None, unroll])
    oo, oi = sch.split(o, [None, rows])
    po, pi = sch.split(p, [None, variant.vectors * variant.lanes])
    outer, inner = (po, oo) if variant.pixels_outer else (oo, po)
    sch.reorder(kp, outer, inner, ko, ki, oi, pi)  # the loads and stores of a tile's results move out of ko
    partition(sch, kp, ko, oo, po)
    reduce_tile(sch, acc, ki, oi, pi, variant)
    sch.decompose_reduction(acc, kp)


def reduce_tile(sch, acc, ki, oi, pi, variant: Variant) -> None:
    """The multiply-adds of one input channel, the weights of which are loaded as vectors first where lanes are used."""
    sch.unroll(ki)
    if variant.by_lane:
        weights = sch.cache_read(acc, 1, "local")
        sch.compute_at(weights, ki, preserve_unit_loops=True)
        *_, run, _, lanes = sch.get_loops(weights)
        unroll_vectors(sch, run, lanes)
    straight_line(sch, oi, pi, variant, row_by_row=not variant.by_lane)


def straight_line(sch, rows, pixels, variant: Variant, row_by_row: bool) -> None:
    """One tile without loops. Row by row the pixel vectors stay in registers and one weight at a time is broadcast;
    else the weights stay there and one pixel vector at a time is loaded."""
    vector, lanes = sch.split(pixels, [None, variant.lanes])
    if rows is not None:
        sch.reorder(*((rows, vector, lanes) if row_by_row else (vector, rows, lanes)))
        sch.unroll(rows)
    sch.vectorize(lanes)
    if variant.strip % variant.lanes:  # the last vector's pixels become code of their own
        partition(sch, vector, lanes)
    elif rows is not None:
        sch.unroll(vector)
