"""Times the operators of a network one by one, on a device with a real clock."""

from __future__ import annotations

from collections.abc import Sequence

from ..devices.base import Device
from ..devices.kernels import Kernels
from ..packages.manifest import OperatorEntry
from ..packages.package import Package
from .result import OperatorCost

REPEATS = 5  # samples of 20 ms: the median of an operator is steady by then


def timed_operators(device: Device, package: Package) -> tuple[OperatorCost, ...]:
    """By falling cost; an operator's is its median times its calls."""
    with Kernels(device, package.library) as kernels:
        costs = [_cost(kernels, entry) for entry in package.manifest.operators]
    return tuple(sorted(costs, key=lambda cost: -cost.time_us))


def _cost(kernels: Kernels, entry: OperatorEntry) -> OperatorCost:
    arguments: Sequence = [(argument.shape, argument.dtype) for argument in entry.arguments]
    return OperatorCost(entry, entry.occurrences * kernels.latency(entry.name, arguments, REPEATS).median_us)
