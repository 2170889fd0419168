"""Schedule template of the fused depthwise operator (tvm_shufflenet.operators.depthwise).

One channel at a time: its plane is padded into a scratch buffer that stays in L1, then a register tile of output rows x
columns is accumulated over the kernel window with all taps unrolled, and stored with bias and ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from .space import choose, divisors

RESERVED_REGISTERS = 8  # the taps of one kernel row and the shifted inputs
MAX_VECTOR = 16


@dataclass(frozen=True)
class Variant:
    """``lanes`` neighbouring columns to a vector; the knob is how many output rows a tile has."""

    lanes: int
    rows: tuple[int, ...]


def variants(height: int, width: int, lanes: int, registers: int) -> list[Variant]:
    """Legal variants for an output plane of ``height`` x ``width``, best guess first.

    A vector is a divisor of the width, so that no tile crosses a row: its inputs would not be neighbours.
    """
    found = []
    for columns in divisors(width, MAX_VECTOR):
        per_row = width // columns * -(-columns // lanes)
        rows = tuple(r for r in divisors(height, 8) if r * per_row <= registers - RESERVED_REGISTERS) or (1,)
        if columns >= 4 or columns == width:
            found.append(Variant(columns, rows))
    fallback = [Variant(1, (1,))]
    return sorted(found, key=lambda v: (v.lanes % lanes != 0, -v.lanes)) or fallback


def depthwise_template(sch, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``, sampling the rows of a tile."""
    padded, acc, out = (sch.get_sblock(name) for name in ("padded", "depthwise", "epilogue"))
    rows = choose(sch, variant.rows)
    n, c, h, w = sch.get_loops(out)
    ho, hi = sch.split(h, [None, rows])
    channel = sch.fuse(n, c)
    sch.compute_at(acc, ho, preserve_unit_loops=True)
    sch.compute_at(padded, channel, preserve_unit_loops=True)
    sch.set_scope(acc, 0, "local")
    sch.parallel(channel)
    accumulate(sch, acc, variant)
    wo, wi = sch.split(w, [None, variant.lanes])
    sch.unroll(hi)
    sch.unroll(wo)
    sch.vectorize(wi)


def accumulate(sch, acc, variant: Variant) -> None:
    """All taps of the window unrolled inside the tile, which stays in registers."""
    *_, h, w, r, s = sch.get_loops(acc)
    wo, wi = sch.split(w, [None, variant.lanes])
    sch.reorder(r, s, h, wo, wi)
    for loop in (r, s, h, wo):
        sch.unroll(loop)
    sch.vectorize(wi)
    init = sch.decompose_reduction(acc, r)
    *_, h, wo, wi = sch.get_loops(init)
    sch.unroll(h)
    sch.unroll(wo)
    sch.vectorize(wi)
