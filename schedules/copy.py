"""Schedule template of copying planes (tvm_shufflenet.operators.copy)."""

from __future__ import annotations

from collections.abc import Iterator

from ..hardware.machine import Machine
from ..operators.base import Block, Layout
from ..operators.copy import BLOCK
from .space import choose, divisors, points

BLOCKS = (Block(BLOCK, "nchw"),)


def layout(_operator, _machine: Machine) -> Layout:
    return Layout()


def schedules(sch, machine: Machine) -> Iterator:
    return points(sch, [machine.lanes], copy_template)


def copy_template(sch, lanes: int) -> None:
    """Plane after plane, in vectors where rows are whole vectors; else LLVM makes what it can of the row."""
    block = sch.get_sblock(BLOCK)
    n, c, _, w = sch.get_loops(block)
    planes = sch.fuse(n, c)
    width = int(sch.get(w).extent)
    task, _ = sch.split(planes, [choose(sch, [t for t in (4, 8, 2, 1) if int(sch.get(planes).extent) % t == 0]), None])
    sch.parallel(task)
    whole = max(divisors(width, lanes))
    if whole >= 4:
        _, lane = sch.split(w, [None, whole])
        sch.vectorize(lane)
