"""Runs a package on inputs."""

from __future__ import annotations

from ..devices.base import Device
from ..devices.network import Network
from ..errors import BadInput
from ..packages.package import Package
from ..signature import Tensors
from ..support.activity import doing


@doing("running")
def run_package(package: Package, device: Device, inputs: Tensors) -> Tensors:
    """The network's outputs for ``inputs`` on a started device. Raises BadInput for an input that is missing, or of
    another shape."""
    signature = package.manifest.signature
    for spec in signature.inputs:
        found = inputs[spec.name].shape if spec.name in inputs else "missing"
        if found != spec.shape:
            raise BadInput(
                f"the input is {found}, the package takes {spec.shape}",
                "",
                "reshape it, or compile for that --input-shape",
            )
    with Network(device, package.library, signature) as network:
        return network.run(inputs)
