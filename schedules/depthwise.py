"""Schedule template of the fused depthwise operator (tvm_shufflenet.operators.depthwise): see ``sliding``."""

from __future__ import annotations

from collections.abc import Iterator

from ..hardware.machine import Machine
from ..operators.base import EPILOGUE, PADDED, Block
from ..operators.depthwise import BLOCK
from . import sliding
from .sliding import Plane, Variant
from .space import points

BLOCKS = (Block(PADDED, "nchfj"), Block(BLOCK, "nchw", "rs"), Block(EPILOGUE, "nchw"))

RESERVED_REGISTERS = 8  # the taps of one window row and the shifted inputs


layout = sliding.layout


def schedules(sch, machine: Machine) -> Iterator:
    plane = sliding.read_plane(sch, BLOCK)
    return points(sch, sliding.variants(plane, machine, RESERVED_REGISTERS), depthwise_template, plane)


def depthwise_template(sch, plane: Plane, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    sliding.plane_template(sch, BLOCK, variant, plane.kernel[0] * plane.kernel[1])
