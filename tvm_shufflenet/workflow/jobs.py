"""What the commands do: model -> graph -> library -> device -> report, with no word about how it is printed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tvm
import tvm_ffi

from ..clock.cycles import Cost
from ..devices.base import Device
from ..devices.network import Network, timed, undisturbed
from ..errors import BadInput, DeployError, PackageInvalid, UnknownName
from ..graph.layers import kind_of, layer_names, rows
from ..graph.pipeline import fused
from ..graph.tasks import OperatorTask, operator_tasks
from ..hardware.targets import Target, find_target
from ..latency import MEASURED, Latency
from ..library.build import Operator, Scheduled, build, build_untuned, schedule_tuned, schedule_untuned
from ..library.link import linker_command
from ..library.symbols import read_code
from ..models import Model
from ..packages.package import (
    ANSWERS,
    SCHEMA,
    Argument,
    Manifest,
    OperatorEntry,
    Package,
    Probe,
    Standalone,
    Timing,
    Verification,
    reference_input,
    write_package,
)
from ..profiling.counted import Counted
from ..profiling.result import Profile
from ..profiling.timed import timed_operators
from ..support.activity import doing
from ..support.host import host_facts
from ..support.toolchain import FFI_VERSION, TVM_VERSION
from ..tuning.measuring.measurer import TRIAL_SECONDS
from ..tuning.records.choices import network_hash
from ..tuning.records.store import RecordStore, workload_hash
from ..tuning.search.driver import Progress, Tuner, TuneResult
from ..verification.answers import Answers, answers_of
from ..verification.first_use import first_uses, references_ahead, uses
from ..verification.networks import Candidate, check, check_rest, verification, verify
from .plan import CompilePlan

if TYPE_CHECKING:
    from ..peers.results import Contest

REFERENCE_SEED = 0
NETWORK_REPEATS = 10
ROUNDS = 2


@dataclass(frozen=True)
class Imported:
    """A model as folded Relax, with PyTorch's answer to the reference input."""

    model: Model
    module: tvm.IRModule
    reference: np.ndarray

    @property
    def input(self) -> np.ndarray:
        return reference_input(self.model.input_shape, REFERENCE_SEED)

    @cached_property
    def answers(self) -> Answers:
        """PyTorch's answers to this and the other inputs. The first look at them takes a dozen inferences."""
        with redirect_stdout(sys.stderr):
            return answers_of(self.model, self.input, self.reference)

    @property
    def tolerance(self) -> float:
        """Largest absolute difference from ``reference`` that rounding explains (answers.py)."""
        return self.answers.tolerance


@dataclass(frozen=True)
class Comparison:
    """Code by TVM untuned, by what is shipped, and tuned, on one device, all checked against PyTorch first; with a
    ``contest``, beside peers.

    ``shipped`` is our code as it is compiled without any record of the user's, ``tuned`` by those too: where these
    change nothing, both are one library with one latency. ``manifest`` is the tuned package's; ``blind`` says why the
    check against PyTorch proves nothing, where it does not.
    """

    manifest: Manifest
    device: dict
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
        return self.shipped and self.shipped.median_us / self.tuned.median_us

    @property
    def latencies(self) -> dict[str, Latency]:
        found = {"untuned": self.untuned, "shipped": self.shipped, "tuned": self.tuned}
        return {name: latency for name, latency in found.items() if latency is not None}

    def to_json(self) -> dict:
        return {
            "schema": 1,
            "model": self.model,
            "input_shape": list(self.manifest.input_shape),
            "target": self.manifest.target,
            "device": self.device,
            "host": host_facts() if self.device["name"] == "local" else None,
            "threads": self.threads,
            "latency_us": {name: latency.to_json() for name, latency in self.latencies.items()},
            "noise": {name: latency.noise for name, latency in self.latencies.items() if latency.noise},
            "speedup": self.speedup,
            "gain_over_shipped": self.gain,
            "max_abs_err": self.max_abs_err,
            "tolerance": self.tolerance,
            "blind": self.blind,
            "operators": [
                {"name": o.name, "occurrences": o.occurrences, "schedule": o.schedule, "record_us": o.record_us}
                for o in self.operators
            ],
            "memory_bytes": {"weights": self.manifest.weight_bytes, "activations": self.manifest.activation_bytes},
            "peers": [entry.to_json() for entry in self.contest.peers] if self.contest else [],
        }


@doing("importing the model")
def import_model(model: Model) -> Imported:
    """Relax module and reference of a model. Raises ImportFailed, BadInput for weights that are no numbers."""
    from ..graph.frontend import check_single_tensor  # imports PyTorch, with which a package has nothing to do

    with redirect_stdout(sys.stderr):  # where a forward() that prints belongs: standard output may be JSON
        module = model.to_relax()
        check_single_tensor(module)
        reference = model(reference_input(model.input_shape, REFERENCE_SEED))
    if not np.isfinite(reference).all():
        raise BadInput(
            f"{model.name} answers NaN or infinity in {model.engine}",
            "its weights overflow, or a batch norm's variance is negative",
            "check the checkpoint",
        )
    return Imported(model, module, reference)


def records_folders(target: Target, chosen: Path | None) -> tuple[Path, Path]:
    """The folder that records are written to, and a second one that is only read: the shipped records.

    The first is ``chosen`` (--records), else ``tuning_logs/<target>`` of the current folder where there is a
    ``tuning_logs``, else a folder of the user's; the second those shipped for the target or for the one whose records
    serve it (Target.shipped).
    """
    shipped = Path(str(resources.files("tvm_shufflenet.tuning_logs"))) / (target.shipped or target.name)
    if chosen is not None:
        return chosen, shipped
    if Path("tuning_logs").is_dir():
        return Path("tuning_logs") / target.name, shipped
    from platformdirs import user_data_path

    return user_data_path("tvm-shufflenet") / "tuning_logs" / target.name, shipped


def open_records(target: Target, chosen: Path | None, must_exist: bool = False) -> RecordStore:
    """The record store for a target. Raises RecordMismatch, BadInput where ``--records`` names nothing."""
    folder, shipped = records_folders(target, chosen)
    if must_exist and chosen is not None and not chosen.is_dir():
        raise BadInput(f"there is no folder {chosen}", "", "tvm-shufflenet tune ... --records " + str(chosen))
    lender = find_target(target.shipped).tvm() if target.shipped else None
    store = RecordStore(folder, target.tvm(), shipped, lender)
    if chosen is not None:
        store.refuse_useless()
    return store


def best_records(
    imported: Imported, target: Target, store: RecordStore, *clocks: str, threads: int = 1, own: bool = True
):
    """The records that a library of the network is built with, see ``RecordStore.database``, and those that guide where
    there is none."""
    network = meet(store, operator_tasks(fused(imported.module, target)))
    own = own and store.uses_own(network, *clocks, threads=threads)
    return store.database(*clocks, threads=threads, network=network, own=own), store.neighbours(threads, own)


def meet(store: RecordStore, tasks: Sequence[OperatorTask]) -> str:
    """Make the shipped records of a network's operators usable; returns the hash that its choices go by."""
    store.meet(task.mod for task in tasks)
    return network_hash((workload_hash(task.mod), task.occurrences) for task in tasks)


@doing("scheduling operators")
def schedule(
    imported: Imported, target: Target, store: RecordStore, *clocks: str, threads: int = 1, own: bool = True
) -> Scheduled:
    """The network with its operators scheduled by the records of ``store``, and by what stands in for them; without
    ``own``, by what is shipped alone."""
    database, neighbours = best_records(imported, target, store, *clocks, threads=threads, own=own)
    return schedule_tuned(imported.module, target, database, threads, neighbours)


@doing("tuning")
def tune(
    imported: Imported,
    target: Target,
    device: Device,
    store: RecordStore,
    *,
    strategy: str,
    trials: int,
    seed: int,
    on_progress: Callable[[Progress], None],
    threads: int = 1,
    trial_seconds: float = TRIAL_SECONDS,
) -> TuneResult:
    """Search schedules for every operator of the network, on a started device that uses as many ``threads``."""
    tuner = Tuner(
        operator_tasks(fused(imported.module, target)),
        target,
        device,
        store,
        strategy=strategy,
        trials=trials,
        seed=seed,
        threads=threads,
        trial_seconds=trial_seconds,
        on_progress=on_progress,
    )
    return tuner.run()


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
    with _work_folder() as folder:
        linker = linker_command(target)
        tuned = compile_package(imported, target, store, folder / "tuned", threads, clocks=(clock,))
        scheduled, shipped = schedule(imported, target, store, clock, threads=threads, own=False), None
        if not _same(scheduled, schedule(imported, target, store, clock, threads=threads)):
            (folder / "shipped").mkdir()
            shipped = build(scheduled, folder / "shipped" / f"{imported.model.name}.so", linker).path
        untuned = build_untuned(imported.module, target, folder / "untuned.so", linker)
        yield Libraries(untuned.path, tuned, shipped)


def _same(one: Scheduled, other: Scheduled) -> bool:
    return tvm_ffi.structural_equal(one.module, other.module, skip_tensor_content=True)


def compare(
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
    samples, error = {name: () for name in contestants}, 0.0
    # In turn and more than once, so that a machine that slows down slows all; one session at a time, since a board
    # that a tracker lends has no second one. A modelled clock has nothing to average.
    rounds = 1 if device.kind == "modelled" else ROUNDS
    for number in range(rounds):
        for name, library in contestants.items():
            with Network(device, library) as network:
                wrong_by = check(network, imported.input, imported.reference, imported.tolerance, name)
                error = max(error, wrong_by)
                if number == 0:
                    check_rest(network, imported.answers, imported.input, name)
            samples[name] += timed(device, library, imported.input, -(-repeats // rounds)).samples_us
    times = {name: Latency(each, device.kind) for name, each in samples.items()}
    return Comparison(
        libraries.tuned.manifest, device.to_json(), threads, times["untuned"], times["tuned"], error,
        shipped=times.get("shipped", times["tuned"]), blind=imported.answers.blind,
    )  # fmt: skip


def with_layers(scheduled: Scheduled, imported: Imported) -> Scheduled:
    """The same network, its operators with the names of the model's layers whose weights they hold."""
    weights = imported.model.weights()
    held = {
        name: [rows(kind_of(name), each.value.numpy()) for each in constants]
        for name, constants in scheduled.weights.items()
    }
    named = [replace(each, layers=layer_names(held.get(each.name, ()), weights)) for each in scheduled.operators]
    return replace(scheduled, operators=tuple(named))


def make_plan(model: Model, target: Target, store: RecordStore | None) -> CompilePlan:
    """What ``compile_package`` will do. Raises ToolMissing without a linker."""
    records = store.sources if store else None
    linker = tuple(linker_command(target))
    return CompilePlan(model.name, model.input_shape, target, records, linker, TVM_VERSION, FFI_VERSION)


FORMATS = {"vm": ("vm",), "standalone": ("standalone",), "both": ("vm", "standalone")}
STATIC = "static"


@doing("compiling")
def compile_package(
    imported: Imported,
    target: Target,
    store: RecordStore | None,
    output: Path,
    threads: int = 1,
    formats: Sequence[str] = FORMATS["vm"],
    clocks: Sequence[str] = (),
    device: Device | DeployError | None = None,
) -> Package:
    """Write a package to ``output``; without a ``store``, of TVM's untuned code. It runs with any number of threads,
    but its operators are cut into work for ``threads``: by the records for so many, or what stands in for them.

    ``formats`` are of ``vm``, a library for TVM's runtime, and ``standalone``, one without, with ``static`` also to be
    linked into programs. ``clocks`` are those whose records come first; without, measured ones and then those of the
    target's modelled core.

    On a started ``device`` the library is compared with PyTorch, and scheduled operators that nobody has run before
    with their unscheduled selves, before there is a package: raises WrongResult, DeviceFailed. Without one, or with the
    reason why there is none, the manifest says that nothing was verified.
    """
    plan = make_plan(imported.model, target, store)
    if store is None:
        scheduled = schedule_untuned(imported.module, target)
    else:
        clocks = clocks or (MEASURED, default_clock(target))
        scheduled = schedule(imported, target, store, *clocks, threads=threads)
    scheduled = with_layers(scheduled, imported)
    found = uses(scheduled, target, device) if isinstance(device, Device) else []
    with _work_folder() as folder:
        library, bench, files, standalone = None, None, {}, None
        with references_ahead(first_uses(found)):
            if "vm" in formats:
                library = build(scheduled, folder / f"{plan.model}.so", list(plan.linker)).path
            if "standalone" in formats:
                built = _standalone(imported, target, scheduled, folder / "standalone", STATIC in formats)
                bench, files, standalone = built.bench, built.files, _standalone_entry(built)
        verified = verify(Candidate(imported, target, scheduled, found, library, bench), device)
        library = library or built.library
        manifest = _manifest(plan, imported, scheduled, library.name, standalone, verified)
        further = folder / ANSWERS
        np.save(further, np.stack([answer.expected for answer in imported.answers.each[1:]]))
        return write_package(output, library, imported.reference, manifest, {**files, ANSWERS: further})


def _standalone(imported: Imported, target: Target, scheduled: Scheduled, folder: Path, static: bool):
    from ..standalone.build import build_standalone

    name, probes = imported.model.name, imported.answers.each[1:]
    data, answers, tolerance = [imported.input], [imported.reference], imported.tolerance
    return build_standalone(scheduled.module, target, name, data, answers, tolerance, folder, static, probes)


def _standalone_entry(built) -> Standalone:
    program = built.program
    return Standalone(
        built.interface,
        built.library.name,
        built.bench.name,
        tuple(built.files),
        program.arena_bytes,
        program.workspace_bytes,
    )


def default_clock(target: Target) -> str:
    """The clock of the device that a target is tuned on when none is named."""
    return f"emulated:{target.board}" if target.board else MEASURED


def _manifest(
    plan: CompilePlan,
    imported: Imported,
    scheduled: Scheduled,
    library: str,
    standalone: Standalone | None,
    verified: Verification,
) -> Manifest:
    activation_bytes, weight_bytes = scheduled.memory_bytes
    plan = plan.anywhere()
    return Manifest(
        schema=SCHEMA,
        plan=plan.describe(),
        model=plan.model,
        input_shape=plan.input_shape,
        output_shape=tuple(imported.reference.shape),
        seed=REFERENCE_SEED,
        target=plan.target.name,
        target_config=plan.target.tvm_config,
        machine=plan.target.machine,
        tuned=plan.tuned,
        records=plan.records,
        tvm=plan.tvm_version,
        ffi=plan.ffi_version,
        linker=plan.linker,
        library=library,
        operators=tuple(map(operator_entry, scheduled.operators)),
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        tolerance=imported.tolerance,
        hashes={},
        standalone=standalone,
        verified=verified,
        probes=tuple(Probe(answer.probe, answer.tolerance) for answer in imported.answers.each[1:]),
        rounding=imported.answers.rounding,
        sensitivity=imported.answers.sensitivity,
    )


def operator_entry(operator: Operator) -> OperatorEntry:
    arguments = tuple(Argument(shape, dtype) for shape, dtype in operator.arguments)
    return OperatorEntry(
        operator.name,
        operator.occurrences,
        operator.schedule,
        operator.record_us,
        operator.tuned_for,
        operator.multiply_adds,
        arguments,
        operator.layers,
    )


@doing("running")
def run(package: Package, device: Device, data: np.ndarray) -> np.ndarray:
    """The network's output for ``data`` on a started device. Raises BadInput for another shape."""
    if tuple(data.shape) != tuple(package.manifest.input_shape):
        raise BadInput(
            f"the input is {tuple(data.shape)}, the package takes {tuple(package.manifest.input_shape)}",
            "",
            "reshape it, or compile for that --input-shape",
        )
    with Network(device, package.library) as network:
        return network.run(data)


@dataclass(frozen=True)
class Bench:
    """Latency of a package on a device. ``cold_us`` is the first inference in a new session, ``cost`` what a modelled
    latency is made of; ``blind`` says why its check against PyTorch proves nothing, where it does not."""

    package: Package
    device: dict
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

    def to_json(self) -> dict:
        return {
            "schema": 1,
            "model": self.package.manifest.model,
            "target": self.package.manifest.target,
            "device": self.device,
            "threads": self.threads,
            "latency_us": self.latency.to_json(),
            "noise": self.latency.noise,
            "cold_us": self.cold_us,
            "peak_memory_bytes": self.peak_memory_bytes,
            "max_abs_err": self.max_abs_err,
            "tolerance": self.package.manifest.tolerance,
            "blind": self.blind,
            "unmodelled": self.cost and self.cost.unmodelled(),
        }


@doing("measuring")
def bench(package: Package, device: Device, threads: int, warmup: int, repeats: int) -> Bench:
    """Check a package against PyTorch's stored answers, time it, and note both in its manifest."""
    data, answers, name = package.reference_input(), package.answers, package.manifest.library
    with Network(device, package.library) as network:
        network.set_input(data)
        cold_us = network.cold_us()
        error = check(network, data, answers.reference.expected, answers.tolerance, name)
        inputs = check_rest(network, answers, data, name)
    with undisturbed(device, package.library, data) as network:
        latency = network.latency(repeats, warmup)
        cost = network.cost() if device.kind == "modelled" else None
    result = Bench(package, device.to_json(), threads, latency, cold_us, error, cost, answers.blind)
    verified = verification(device.name, error, answers, inputs)
    package.add_timing(Timing(result.device, threads, latency.to_json()), verified)
    return result


PROFILE_REPEATS = 10


@doing("measuring")
def profile(
    package: Package, device: Device, threads: int, assembly: bool = False, assembly_of: Sequence[str] = ()
) -> Profile:
    """What each operator of a package costs on a started device, after its output was checked. ``assembly`` shows the
    hottest loop of the hottest operator, ``assembly_of`` of the operators named.

    Raises PackageInvalid for a package that lacks what this needs, BadInput for assembly of what no plugin counted.
    """
    manifest, modelled = package.manifest, device.kind == "modelled"
    _check_profilable(package, modelled, assembly or bool(assembly_of), assembly_of)
    code = read_code(package.library, [entry.name for entry in manifest.operators]) if modelled else None
    with Network(device, package.library) as network:
        data, answers = package.reference_input(), package.answers
        error = check(network, data, answers.reference.expected, manifest.tolerance, manifest.library)
        check_rest(network, answers, data, manifest.library)
    with undisturbed(device, package.library, data) as network:
        latency = network.latency(PROFILE_REPEATS)
        counts, cost = (network.counts(), network.cost()) if modelled else (None, None)
    if not modelled:
        return Profile(manifest, device.to_json(), threads, latency, timed_operators(device, package), error)
    counted = Counted.of(device.board, manifest.operators, code, counts)
    operators = counted.operators()
    names = list(assembly_of) or [cost.entry.name for cost in operators[: int(assembly)]]
    return Profile(
        manifest, device.to_json(), threads, latency, operators, error, counted.runtime(),
        device.board.core.fp32_macs_per_cycle, tuple(map(counted.hottest_loop, names)), cost,
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


@contextmanager
def _work_folder():
    folder = Path(tempfile.mkdtemp(prefix="tvm-shufflenet-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
