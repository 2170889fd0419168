"""Schedule template of copying planes (tvm_shufflenet.operators.copy)."""

from __future__ import annotations

from collections.abc import Iterator

from tvm.s_tir import Schedule

from ..hardware.machine import Machine
from .space import choose, divisors, points


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


def schedules(sch: Schedule, machine: Machine) -> Iterator[Schedule]:
    """See operators/registry.py."""
    return points(sch, [machine.lanes], copy_template)
