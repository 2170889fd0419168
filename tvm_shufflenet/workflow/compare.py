"""Builds one network untuned, as shipped, and tuned; verifies and times the three side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tvm_ffi

from ..devices.base import Device
from ..devices.facts import DeviceFacts
from ..devices.network import Network, timed
from ..graph.pipeline import stock
from ..hardware.targets import Target
from ..latency import Latency
from ..library.build import build
from ..library.scheduling import Scheduled, schedule_untuned
from ..packages.manifest import Manifest, OperatorEntry
from ..packages.package import Package
from ..support.activity import doing
from ..tuning.records.store import RecordStore
from ..verification.networks import check, check_rest
from .compile import compile_package
from .contest import Contest
from .imported import Imported
from .schedules import schedule_network

NETWORK_REPEATS = 10
ROUNDS = 2


@dataclass(frozen=True)
class Comparison:
    """Code by TVM untuned, by what is shipped, and tuned, on one device, all checked against PyTorch first; with a
    ``contest``, beside peers.

    ``shipped`` is our code as it is compiled without any record of the user's, ``tuned`` by those too: where these
    change nothing, both are one library with one latency. ``manifest`` is the tuned package's; ``blind`` says why the
    check against PyTorch proves nothing, where it does not.
    """

    manifest: Manifest
    device: DeviceFacts
    threads: int
    untuned: Latency
    tuned: Latency
    max_abs_err: float
    contest: Contest | None = None
    shipped: Latency | None = None
    blind: str | None = None

    @property
    def model(self) -> str:
        return self.manifest.model

    @property
    def tolerance(self) -> float:
        return self.manifest.tolerance

    @property
    def operators(self) -> tuple[OperatorEntry, ...]:
        return self.manifest.operators

    @property
    def speedup(self) -> float:
        """Of the tuned code over TVM's untuned code."""
        return self.untuned.median_us / self.tuned.median_us

    @property
    def gain(self) -> float | None:
        """How many times as fast the tuned code is as what is shipped."""
        return self.shipped.median_us / self.tuned.median_us if self.shipped else None

    @property
    def latencies(self) -> dict[str, Latency]:
        found = {"untuned": self.untuned, "shipped": self.shipped, "tuned": self.tuned}
        return {name: latency for name, latency in found.items() if latency is not None}


@dataclass(frozen=True)
class Libraries:
    """One network three times: TVM's ``untuned`` code and what is ``shipped`` as libraries, and the ``tuned`` package.
    ``shipped`` is None where it is what the package holds."""

    untuned: Path
    tuned: Package
    shipped: Path | None = None


@contextmanager
def all_libraries(
    imported: Imported, target: Target, store: RecordStore, clock: str, threads: int = 1
) -> Iterator[Libraries]:
    """Built into a folder that lasts as long as the context; the tuned one from the records of ``clock`` first."""
    with TemporaryDirectory(prefix="tvm-shufflenet-", ignore_cleanup_errors=True) as name:
        folder, fused = Path(name), imported.fused(target)
        tuned = compile_package(imported, target, store, folder / "tuned", threads, clocks=(clock,))
        scheduled, shipped = schedule_network(fused, store, clock, threads=threads, own=False), None
        if not _same(scheduled, schedule_network(fused, store, clock, threads=threads)):
            (folder / "shipped").mkdir()
            shipped = build(scheduled, folder / "shipped" / f"{imported.model.name}.so")
        untuned = build(schedule_untuned(stock(imported.module, target)), folder / "untuned.so")
        yield Libraries(untuned, tuned, shipped)


def _same(one: Scheduled, other: Scheduled) -> bool:
    return tvm_ffi.structural_equal(one.module, other.module, skip_tensor_content=True)


def compare_network(
    imported: Imported,
    target: Target,
    device: Device,
    store: RecordStore,
    threads: int = 1,
    repeats: int = NETWORK_REPEATS,
) -> Comparison:
    """Build untuned, shipped and tuned libraries, check and time them. Raises WrongResult, and then there are no
    times."""
    with all_libraries(imported, target, store, device.clock, threads) as libraries:
        return compare_libraries(imported, libraries, device, threads, repeats)


@doing("measuring")
def compare_libraries(
    imported: Imported, libraries: Libraries, device: Device, threads: int = 1, repeats: int = NETWORK_REPEATS
) -> Comparison:
    """Check and time libraries on a started device. Raises WrongResult, and then there are no times."""
    contestants = {"untuned": libraries.untuned, "tuned": libraries.tuned.library}
    if libraries.shipped is not None:
        contestants["shipped"] = libraries.shipped
    samples: dict[str, tuple[float, ...]] = {name: () for name in contestants}
    signature, answers, error = imported.signature, imported.answers, 0.0
    # In turn and more than once, so that a machine that slows down slows all; one session at a time, since a board
    # that a tracker lends has no second one. A modelled clock has nothing to average.
    rounds = ROUNDS if device.cost_model is None else 1
    for number in range(rounds):
        for name, library in contestants.items():
            with Network(device, library, signature) as network:
                error = max(error, check(network, answers, name).error)
                if number == 0:
                    check_rest(network, answers, name)
            samples[name] += timed(device, library, signature, answers.inputs, -(-repeats // rounds)).samples_us
    times = {name: Latency(each, device.kind) for name, each in samples.items()}
    return Comparison(
        libraries.tuned.manifest, device.facts, threads, times["untuned"], times["tuned"], error,
        shipped=times.get("shipped", times["tuned"]), blind=answers.blind,
    )  # fmt: skip
