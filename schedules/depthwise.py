"""Schedule template of the fused depthwise operator (tvm_shufflenet.operators.depthwise): see ``sliding``."""

from __future__ import annotations

from .sliding import Plane, Variant, plane_template
from .sliding import variants as plane_variants

RESERVED_REGISTERS = 8  # the taps of one window row and the shifted inputs


def variants(plane: Plane, lanes: int, registers: int) -> list[Variant]:
    """Legal variants, best guess first."""
    return plane_variants(plane, lanes, registers, RESERVED_REGISTERS)


def depthwise_template(sch, plane: Plane, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    plane_template(sch, "depthwise", variant, plane.kernel[0] * plane.kernel[1])
