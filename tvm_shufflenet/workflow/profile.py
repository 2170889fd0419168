"""Profiles the operators of a package."""

from __future__ import annotations

from collections.abc import Sequence

from ..clock.cost_model import CostModel
from ..devices.base import Device
from ..devices.network import Network, undisturbed
from ..errors import BadInput, PackageInvalid, UnknownName
from ..library.symbols import read_code
from ..packages.package import Package
from ..precision import PRECISIONS
from ..profiling.counted import Counted
from ..profiling.result import Profile
from ..profiling.timed import timed_operators
from ..support.activity import doing
from ..verification.networks import check, check_rest

PROFILE_REPEATS = 10


@doing("measuring")
def profile_package(
    package: Package, device: Device, threads: int, assembly: bool = False, assembly_of: Sequence[str] = ()
) -> Profile:
    """What each operator of a package costs on a started device, after its output was checked. ``assembly`` shows the
    hottest loop of the hottest operator, ``assembly_of`` of the operators named.

    Raises PackageInvalid for a package that lacks what this needs, BadInput for assembly of what no plugin counted.
    """
    manifest, model = package.manifest, device.cost_model
    _check_profilable(package, model is not None, assembly or bool(assembly_of), assembly_of)
    answers, signature = package.answers, manifest.signature
    with Network(device, package.library, signature) as network:
        error = check(network, answers, manifest.library).error
        check_rest(network, answers, manifest.library)
    if model is not None:
        return _counted(package, device, model, threads, error, assembly, assembly_of)
    with undisturbed(device, package.library, signature, answers.inputs) as network:
        latency = network.latency(PROFILE_REPEATS)
    return Profile(manifest, device.facts, threads, latency, timed_operators(device, package), error)


def _counted(
    package: Package,
    device: Device,
    model: CostModel,
    threads: int,
    error: float,
    assembly: bool,
    assembly_of: Sequence[str],
) -> Profile:
    """By what was counted in one inference of the whole network."""
    manifest = package.manifest
    code = read_code(package.library, [entry.name for entry in manifest.operators])
    with undisturbed(device, package.library, manifest.signature, package.inputs) as network:
        latency, counts, cost = network.latency(PROFILE_REPEATS), network.counts(), network.cost()
    counted = Counted.of(model.board, manifest.operators, code, counts)
    operators = counted.operators()
    peak = int(model.board.core.macs_per_cycle(PRECISIONS[manifest.precision]))
    names = list(assembly_of) or [each.entry.name for each in operators[: int(assembly)]]
    return Profile(
        manifest, device.facts, threads, latency, operators, error, counted.runtime(),
        peak, tuple(map(counted.hottest_loop, names)), cost,
    )  # fmt: skip


def _check_profilable(package: Package, modelled: bool, assembly: bool, assembly_of: Sequence[str]) -> None:
    names = [entry.name for entry in package.manifest.operators]
    if any(entry.arguments is None or entry.multiply_adds is None for entry in package.manifest.operators):
        raise PackageInvalid(
            f"{package.path} does not say what its operators take and multiply",
            "an earlier version compiled it",
            "compile it again with this version, then profile it",
        )
    if assembly and not modelled:
        raise BadInput(
            "there is no assembly to show",
            "only on an emulated core is counted which code runs how often",
            "leave --asm out, or profile on --device emulated",
        )
    for name in assembly_of:
        if name not in names:
            raise UnknownName("operator", name, names)
