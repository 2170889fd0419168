"""A package answers one input."""

from __future__ import annotations

import numpy as np

from ..devices.base import Device
from ..devices.network import Network
from ..errors import BadInput
from ..packages.package import Package
from ..support.activity import doing


@doing("running")
def run_package(package: Package, device: Device, data: np.ndarray) -> np.ndarray:
    """The network's output for ``data`` on a started device. Raises BadInput for another shape."""
    if tuple(data.shape) != tuple(package.manifest.input_shape):
        raise BadInput(
            f"the input is {tuple(data.shape)}, the package takes {tuple(package.manifest.input_shape)}",
            "",
            "reshape it, or compile for that --input-shape",
        )
    with Network(device, package.library) as network:
        return network.run(data)
