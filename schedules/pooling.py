"""Schedule template of pooling (tvm_shufflenet.operators.pooling): see ``sliding``."""

from __future__ import annotations

from collections.abc import Iterator

from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, PADDED, Block
from ..operators.pooling import BLOCK
from . import sliding
from .sliding import Plane, Variant
from .space import points

BLOCKS = (Block(PADDED, "nchfj"), Block(BLOCK, "nchw", "rs"), Block(EPILOGUE, "nchw"))

RESERVED_REGISTERS = 6  # the inputs and what they are compared with


layout = sliding.layout


def schedules(sch, machine: Machine) -> Iterator:
    plane = sliding.read_plane(sch, BLOCK)
    return points(sch, sliding.variants(plane, machine, RESERVED_REGISTERS), pooling_template, plane)


def pooling_template(sch, plane: Plane, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    sliding.plane_template(sch, BLOCK, variant, plane.kernel[0] * plane.kernel[1])
