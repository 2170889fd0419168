"""Schedule template of the fused fully connected operator (tvm_shufflenet.operators.dense).

The weights are read once and are most of the traffic, so the schedule follows them: some strips of output features at
a time, one step of the reduction of each after the other, in as many streams as strips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, Block, Layout
from ..operators.dense import BLOCK
from .space import choose, divisors, points, unroll_vectors

BLOCKS = (Block(BLOCK, "nto", "k"), Block(EPILOGUE, "no"))
# Output features that lie together in a packed weight: every vector register's lanes divide it.
STRIP = 16
# Sums that the mean of a plane is made of.
SUMS = 8

MAX_ACCUMULATORS = 16
ENOUGH_ACCUMULATORS = 8
UNROLLS = (4, 8, 2, 1)


@dataclass(frozen=True)
class Variant:
    """Sums lie in vectors of ``lanes``; the knobs are strips at a time and steps unrolled."""

    lanes: int
    width: int
    strips: tuple[int, ...]


def layout(_operator, _machine: Machine) -> Layout:
    return Layout(strip=STRIP, sums=SUMS)


def schedules(sch, machine: Machine) -> Iterator:
    _, strips, width, _ = [int(axis.dom.extent) for axis in sch.get(sch.get_sblock(BLOCK)).iter_vars]
    return points(sch, variants(strips, width, machine.lanes), dense_template)


def variants(strips: int, width: int, lanes: int) -> list[Variant]:
    """The one variant there is for strips of ``width`` features."""
    lanes = min(lanes, width)
    fitting = [s for s in divisors(strips, MAX_ACCUMULATORS) if s * width // lanes <= MAX_ACCUMULATORS] or [1]
    fitting.sort(key=lambda s: abs(s * width // lanes - ENOUGH_ACCUMULATORS))
    return [Variant(lanes, width, tuple(fitting[:4]))]


def dense_template(sch, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    acc, out = sch.get_sblock(BLOCK), sch.get_sblock(EPILOGUE)
    *_, inputs = [int(axis.dom.extent) for axis in sch.get(acc).iter_vars]
    strips = choose(sch, variant.strips)
    unroll = choose(sch, [u for u in UNROLLS if inputs % u == 0])
    average(sch, variant.lanes)
    n, o = sch.get_loops(out)
    tile, strip, feature = sch.split(o, [None, strips, variant.width])
    sch.reorder(tile, n, strip, feature)
    sch.compute_at(acc, n, preserve_unit_loops=True)
    sch.parallel(tile)
    *_, t, o, k = sch.get_loops(acc)
    ko, ki = sch.split(k, [None, unroll])
    vector, lane = sch.split(o, [None, variant.lanes])
    sch.reorder(ko, ki, t, vector, lane)
    unroll_vectors(sch, ki, t, vector, lane)
    *_, t, vector, lane = sch.get_loops(sch.decompose_reduction(acc, ko))
    unroll_vectors(sch, t, vector, lane)


def average(sch, lanes: int) -> None:
    """The mean of each plane before the product, where there is one. It takes too little time to start threads for."""
    names = {sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))}
    if "sums" not in names:
        return
    sums, mean = sch.get_sblock("sums"), sch.get_sblock("mean")
    _, k = sch.get_loops(mean)
    sch.compute_at(sums, k, preserve_unit_loops=True)
    *_, lane, step = sch.get_loops(sums)
    vector, lane = sch.split(lane, [None, min(lanes, int(sch.get(lane).extent))])
    sch.reorder(step, vector, lane)
    unroll_vectors(sch, vector, lane)
    *_, vector, lane = sch.get_loops(sch.decompose_reduction(sums, step))
    unroll_vectors(sch, vector, lane)
