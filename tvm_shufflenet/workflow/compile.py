"""The compile pipeline from a model to a package: import, fuse, schedule, build, verify, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..devices.base import Device
from ..errors import DeployError
from ..graph.layers import kind_of, layer_names, rows
from ..graph.pipeline import stock
from ..hardware.targets import Target
from ..latency import MEASURED
from ..library.build import build
from ..library.link import linker_command
from ..library.scheduling import Operator, Scheduled, schedule_untuned
from ..models import Model
from ..packages.manifest import SCHEMA, Argument, Manifest, OperatorEntry, StandaloneEntry
from ..packages.package import Package, write_package
from ..precision import FLOAT32, Precision
from ..support.activity import doing
from ..support.toolchain import FFI_VERSION, TVM_VERSION
from ..tuning.records.store import RecordStore
from ..verification.first_use import Use, first_uses, references_ahead, uses
from ..verification.networks import Candidate, verify
from ..verification.outcome import Verification
from .imported import REFERENCE_SEED, Imported
from .plan import CompilePlan
from .schedules import default_clock, schedule_network

if TYPE_CHECKING:
    from ..standalone.build import StandaloneLibrary

FORMATS = {"vm": ("vm",), "standalone": ("standalone",), "both": ("vm", "standalone")}
STATIC = "static"


@dataclass(frozen=True)
class Built:
    """A scheduled network as a ``library`` for TVM's runtime, as one that needs none, or both."""

    scheduled: Scheduled
    library: Path | None
    standalone: StandaloneLibrary | None

    @property
    def main(self) -> Path:
        """What a package's manifest calls its library: that for TVM's runtime, where there is one."""
        if self.library is not None:
            return self.library
        assert self.standalone is not None, "some format is always built"
        return self.standalone.library

    @property
    def files(self) -> dict[str, Path]:
        """What a package holds beside its library, by the names there."""
        return self.standalone.files if self.standalone else {}

    def candidate(self, imported: Imported, uses: Sequence[Use]) -> Candidate:
        bench = self.standalone.bench if self.standalone else None
        return Candidate(self.scheduled, self.library, bench, uses, imported.signature, imported.answers)


def make_plan(model: Model, target: Target, store: RecordStore | None, precision: Precision = FLOAT32) -> CompilePlan:
    """What ``compile_package`` will do. Raises ToolMissing without a linker."""
    records = store.sources if store else None
    linker = tuple(linker_command(target))
    return CompilePlan(model.name, model.input_shape, target, records, linker, TVM_VERSION, FFI_VERSION, precision)


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
    plan = make_plan(imported.model, target, store, imported.precision)
    scheduled = with_layers(_scheduled(imported, target, store, clocks, threads), imported)
    found = uses(scheduled, device) if isinstance(device, Device) else []
    with TemporaryDirectory(prefix="tvm-shufflenet-", ignore_cleanup_errors=True) as folder:
        with references_ahead(first_uses(found)):
            built = _built(imported, scheduled, formats, Path(folder))
        verified = verify(built.candidate(imported, found), device)
        return _written(output, plan, imported, built, verified)


def _scheduled(
    imported: Imported, target: Target, store: RecordStore | None, clocks: Sequence[str], threads: int
) -> Scheduled:
    if store is None:
        return schedule_untuned(stock(imported.module, target))
    clocks = clocks or (MEASURED, default_clock(target))
    return schedule_network(imported.fused(target), store, *clocks, threads=threads)


def _built(imported: Imported, scheduled: Scheduled, formats: Sequence[str], folder: Path) -> Built:
    """Both formats are ends of one line: what is scheduled is linked for TVM's runtime, or without any."""
    library = standalone = None
    if "vm" in formats:
        library = build(scheduled, folder / f"{imported.model.name}.so")
    if "standalone" in formats:
        standalone = _standalone(imported, scheduled, folder / "standalone", STATIC in formats)
    return Built(scheduled, library, standalone)


def _standalone(imported: Imported, scheduled: Scheduled, folder: Path, static: bool) -> StandaloneLibrary:
    from ..standalone.build import build_standalone

    return build_standalone(
        scheduled.module, scheduled.target, imported.model.name, imported.signature, imported.answers, folder, static
    )


def _written(output: Path, plan: CompilePlan, imported: Imported, built: Built, verified: Verification) -> Package:
    library = built.main
    manifest = _manifest(plan, imported, built, library.name, verified)
    return write_package(output, library, imported.answers.each, manifest, built.files)


def _standalone_entry(built) -> StandaloneEntry:
    program = built.program
    return StandaloneEntry(
        built.interface,
        built.library.name,
        built.bench.name,
        tuple(built.files),
        program.arena_bytes,
        program.workspace_bytes,
    )


def with_layers(scheduled: Scheduled, imported: Imported) -> Scheduled:
    """The same network, its operators with the names of the model's layers whose weights they hold."""
    weights = imported.model.weights()
    held = {
        name: [rows(kind_of(name), each.value.numpy()) for each in constants]
        for name, constants in scheduled.weights.items()
    }
    named = [replace(each, layers=layer_names(held.get(each.name, ()), weights)) for each in scheduled.operators]
    return replace(scheduled, operators=tuple(named))


def _manifest(
    plan: CompilePlan,
    imported: Imported,
    built: Built,
    library: str,
    verified: Verification,
) -> Manifest:
    activation_bytes, weight_bytes = built.scheduled.memory_bytes
    plan = plan.anywhere()
    return Manifest(
        schema=SCHEMA,
        plan=plan.describe(),
        model=plan.model,
        inputs=imported.signature.inputs,
        outputs=imported.signature.outputs,
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
        operators=tuple(map(operator_entry, built.scheduled.operators)),
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        tolerances={},
        hashes={},
        standalone=_standalone_entry(built.standalone) if built.standalone else None,
        verified=verified,
        roundings=dict(imported.answers.roundings),
        sensitivities=dict(imported.answers.sensitivities),
        precision=imported.precision.name,
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
