"""Schedule template of pooling (tvm_shufflenet.operators.pooling): see ``sliding``."""

from __future__ import annotations

from collections.abc import Iterator

from tvm.s_tir import Schedule

from ..hardware.machine import Machine
from .sliding import Plane, Variant, plane_template, read_plane
from .sliding import variants as plane_variants
from .space import points

RESERVED_REGISTERS = 6  # the inputs and what they are compared with


def variants(plane: Plane, lanes: int, registers: int) -> list[Variant]:
    """Legal variants, best guess first."""
    return plane_variants(plane, lanes, registers, RESERVED_REGISTERS)


def pooling_template(sch, plane: Plane, variant: Variant) -> None:
    """Schedule ``sch`` in place as ``variant``."""
    plane_template(sch, "pooling", variant, plane.kernel[0] * plane.kernel[1])


def schedules(sch: Schedule, machine: Machine) -> Iterator[Schedule]:
    """See operators/registry.py."""
    plane = read_plane(sch, "pooling")
    return points(sch, variants(plane, machine.lanes, machine.registers), pooling_template, plane)
