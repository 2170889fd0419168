"""Schedule templates of pooling (tvm_shufflenet.operators.pooling): see ``sliding``; and of copying planes."""

from __future__ import annotations

from .sliding import Plane, Variant, plane_template
from .sliding import variants as plane_variants
from .space import choose, divisors

RESERVED_REGISTERS = 6  # the inputs and what they are compared with
RUN = 64  # columns copied at once, at least, where a plane has so many


def variants(plane: Plane, lanes: int, registers: int) -> list[Variant]:
    """Legal variants, best guess first."""
    return plane_variants(plane, lanes, registers, RESERVED_REGISTERS)


def pooling_template(sch, plane: Plane, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    plane_template(sch, "pooling", variant, plane.kernel[0] * plane.kernel[1])


def copy_template(sch, lanes: int) -> None:
    """Plane after plane, in vectors where rows are whole vectors; else LLVM makes what it can of the row."""
    block = sch.get_sblock("copy")
    n, c, _, w = sch.get_loops(block)
    planes = sch.fuse(n, c)
    width = int(sch.get(w).extent)
    task, _ = sch.split(planes, [choose(sch, [t for t in (4, 8, 2, 1) if int(sch.get(planes).extent) % t == 0]), None])
    sch.parallel(task)
    whole = max(divisors(width, lanes))
    if whole >= 4:
        _, lane = sch.split(w, [None, whole])
        sch.vectorize(lane)
