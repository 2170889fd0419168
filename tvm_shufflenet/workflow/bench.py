"""Verifies and times a package, and notes the result in its manifest."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ..clock.cycles import Cost
from ..devices.base import Device
from ..devices.facts import DeviceFacts
from ..devices.network import Network, undisturbed
from ..latency import Latency
from ..packages.manifest import Timing
from ..packages.package import Package
from ..support.activity import doing
from ..verification.networks import check, check_rest, verification


@dataclass(frozen=True)
class Bench:
    """Latency of a package on a device. ``cold_us`` is the first inference in a new session, ``cost`` what a modelled
    latency is made of; ``blind`` says why its check against PyTorch proves nothing, where it does not."""

    package: Package
    device: DeviceFacts
    threads: int
    latency: Latency
    cold_us: float | None
    max_abs_err: float
    cost: Cost | None = None
    blind: str | None = None

    @property
    def peak_memory_bytes(self) -> int:
        """Weights and planned activations, the memory that inference needs beside the code."""
        return self.package.manifest.weight_bytes + self.package.manifest.activation_bytes


@doing("measuring")
def bench_package(package: Package, device: Device, threads: int, warmup: int, repeats: int) -> Bench:
    """Check a package against PyTorch's stored answers, time it, and note both in its manifest."""
    answers, signature, name = package.answers, package.manifest.signature, package.manifest.library
    with Network(device, package.library, signature) as network:
        network.set_inputs(answers.inputs)
        cold_us = network.cold_us()
        found = check(network, answers, name)
        inputs = check_rest(network, answers, name)
    with undisturbed(device, package.library, signature, answers.inputs) as network:
        latency = network.latency(repeats, warmup)
        cost = None if device.cost_model is None else network.cost()
    result = Bench(package, device.facts, threads, latency, cold_us, found.error, cost, answers.blind)
    verified = verification(device.name, found, answers, inputs)
    package.add_timing(
        Timing(msgspec.to_builtins(result.device), threads, msgspec.to_builtins(latency.summary)), verified
    )
    return result
