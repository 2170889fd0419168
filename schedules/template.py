"""The protocol of a schedule template: a module with three names, found and checked by ``operators/registry.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tvm.s_tir import Schedule

from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, Block, Layout, Operator


class Template(Protocol):
    """The schedules of one operator.

    ``BLOCKS`` are those that it looks for, its main block among them: a function that has them all is its to schedule.
    """

    BLOCKS: tuple[Block, ...]

    @staticmethod
    def layout(operator: Operator, machine: Machine) -> Layout:
        """How weights and scratch of ``operator`` lie, so that the tiles read them in whole vectors and cache lines.

        It is decided before tuning, so it must suit every variant, and it is part of the workload's hash.
        """

    @staticmethod
    def schedules(sch: Schedule, machine: Machine) -> Iterator[Schedule]:
        """``sch`` scheduled by each variant of the space, knobs drawn at random, the best guess first.

        Shapes are read off the function. A knob's first candidate is its best guess.
        """


def schedules_these(template: Template, blocks: set[str]) -> bool:
    """Whether a function of ``blocks`` is the template's. One without an epilogue takes nothing but its own blocks."""
    wanted = {block.name for block in template.BLOCKS}
    return wanted <= blocks if EPILOGUE in wanted else wanted == blocks
