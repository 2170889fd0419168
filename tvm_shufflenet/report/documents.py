"""The JSON documents of the commands: one struct each, fields in the order in which they are written.

What is computed is computed here, once, from what workflows return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from ..devices.facts import DeviceFacts
from ..latency import Latency, LatencySummary
from ..packages.manifest import OperatorTime
from ..packages.operator_text import entry_text
from ..profiling.result import HOW, HotLoop
from ..support.host import host_facts

if TYPE_CHECKING:
    from ..clock.cycles import Cost
    from ..deploy.answer import Output
    from ..deploy.deployment import Deployed
    from ..experiments.results import Results, Row
    from ..profiling.result import OperatorCost, Profile
    from ..tuning.search.decision import Decision
    from ..tuning.search.progress import TuneResult
    from ..workflow.bench import Bench
    from ..workflow.compare import Comparison
    from ..workflow.contest import Contest, Contestant
    from .baseline import Verdict

SCHEMA = 1


def _summary(latency: Latency | None) -> LatencySummary | None:
    return latency and latency.summary


class Unmodelled(Struct, frozen=True):
    """Executed instructions that the clock's model does not know."""

    instructions: int
    share_of_core_cycles: float

    @classmethod
    def of(cls, cost: Cost | None) -> Unmodelled | None:
        return cost and cls(cost.unmodelled_instructions, cost.unmodelled_share)


class BenchDocument(Struct, frozen=True):
    schema: int
    model: str
    target: str
    device: DeviceFacts
    threads: int
    precision: str
    latency_us: LatencySummary
    noise: str | None
    cold_us: float | None
    peak_memory_bytes: int
    max_abs_err: float
    tolerance: float
    blind: str | None
    unmodelled: Unmodelled | None

    @classmethod
    def of(cls, bench: Bench) -> BenchDocument:
        manifest = bench.package.manifest
        return cls(
            SCHEMA, manifest.model, manifest.target, bench.device, bench.threads, manifest.precision,
            bench.latency.summary, bench.latency.noise, bench.cold_us, bench.peak_memory_bytes, bench.max_abs_err,
            manifest.tolerance, bench.blind, Unmodelled.of(bench.cost),
        )  # fmt: skip


class ContestantDocument(Struct, frozen=True):
    """One contestant of a contest."""

    name: str
    version: str
    latency_us: LatencySummary | None
    max_abs_err: float | None
    failure: str | None
    settings: dict
    affinity: tuple[int, ...]
    rounds_us: tuple[tuple[float, ...], ...]
    cost: dict | None

    @classmethod
    def of(cls, entry: Contestant) -> ContestantDocument:
        failure = str(entry.failure) if entry.failure else None
        return cls(
            entry.name, entry.version, _summary(entry.latency), entry.max_abs_err, failure, entry.settings,
            entry.affinity, entry.rounds_us, entry.cost,
        )  # fmt: skip


class ContestDocument(Struct, frozen=True):
    model: str
    device: DeviceFacts
    threads: int
    tolerance: float
    fastest_peer: str | None
    ratio: float | None
    entries: list[ContestantDocument]

    @classmethod
    def of(cls, contest: Contest) -> ContestDocument:
        fastest = contest.fastest_peer
        return cls(
            contest.model, contest.device, contest.threads, contest.tolerance, fastest and fastest.name, contest.ratio,
            [ContestantDocument.of(entry) for entry in contest.entries],
        )  # fmt: skip


class ComparedOperator(Struct, frozen=True):
    name: str
    occurrences: int
    schedule: str
    record_us: float | None


class MemoryBytes(Struct, frozen=True):
    weights: int
    activations: int


class VerdictDocument(Struct, frozen=True):
    """Of the tuned latency against a baseline's."""

    file: str
    tuned_median_us: float
    slower_percent: float
    allowed_percent: float
    passed: bool

    @classmethod
    def of(cls, verdict: Verdict) -> VerdictDocument:
        facts = verdict.before_us, verdict.slower_percent, verdict.allowed_percent, verdict.passed
        return cls(str(verdict.path), *facts)


class KeptLatencies(Struct, frozen=True):
    shipped: float
    fastest_records: float
    kept: float


class DecisionDocument(Struct, frozen=True):
    """Which records the network's own time has chosen."""

    kept: str
    networks: int
    latency_us: KeptLatencies

    @classmethod
    def of(cls, decision: Decision | None) -> DecisionDocument | None:
        if decision is None:
            return None
        times = KeptLatencies(decision.shipped_us, decision.fastest_us, decision.chosen_us)
        return cls("shipped" if decision.chosen is None else "chosen", decision.networks, times)


class Trials(Struct, frozen=True):
    requested: int
    measured: int
    failed: int
    reused: int
    causes: dict[str, int]
    repeated: int
    noisy: int
    drift: float
    per_minute: float

    @classmethod
    def of(cls, result: TuneResult) -> Trials:
        return cls(
            result.requested, result.measured, result.failed, result.reused, result.causes, result.repeated,
            result.noisy, result.drift, result.trials_per_minute,
        )  # fmt: skip


class ComparisonDocument(Struct, frozen=True):
    """``baseline`` is compare's alone, what follows it tune's."""

    schema: int
    model: str
    input_shape: tuple[int, ...]
    target: str
    device: DeviceFacts
    host: dict | None
    threads: int
    precision: str
    latency_us: dict[str, LatencySummary]
    noise: dict[str, str]
    speedup: float
    gain_over_shipped: float | None
    max_abs_err: float
    tolerance: float
    blind: str | None
    operators: list[ComparedOperator]
    memory_bytes: MemoryBytes
    peers: list[ContestantDocument]
    baseline: VerdictDocument | UnsetType = UNSET
    strategy: str | UnsetType = UNSET
    trials: Trials | UnsetType = UNSET
    wall_s: float | UnsetType = UNSET
    decision: DecisionDocument | UnsetType | None = UNSET
    records: str | UnsetType = UNSET

    @classmethod
    def of(cls, comparison: Comparison, **more) -> ComparisonDocument:
        manifest, latencies = comparison.manifest, comparison.latencies
        (source,) = manifest.inputs
        operators = [ComparedOperator(o.name, o.occurrences, o.schedule, o.record_us) for o in comparison.operators]
        return cls(
            SCHEMA, comparison.model, source.shape, manifest.target, comparison.device,
            host_facts() if comparison.device.name == "local" else None, comparison.threads, manifest.precision,
            {name: latency.summary for name, latency in latencies.items()},
            {name: latency.noise for name, latency in latencies.items() if latency.noise},
            comparison.speedup, comparison.gain, comparison.max_abs_err, comparison.tolerance, comparison.blind,
            operators, MemoryBytes(manifest.weight_bytes, manifest.activation_bytes),
            [ContestantDocument.of(entry) for entry in comparison.contest.peers] if comparison.contest else [],
            **more,
        )  # fmt: skip


class ProfiledOperator(Struct, frozen=True):
    """What follows ``gmacs_per_second`` is known where it was counted."""

    name: str
    what: str | None
    layers: tuple[str, ...]
    schedule: str
    calls: int
    time_us: float
    share: float
    multiply_adds: int
    gmacs_per_second: float
    cycles: float | UnsetType = UNSET
    macs_per_cycle: float | UnsetType = UNSET
    peak_share: float | UnsetType = UNSET
    l1_misses: int | UnsetType = UNSET
    l2_misses: int | UnsetType = UNSET
    l1_bytes: int | UnsetType = UNSET
    l2_bytes: int | UnsetType = UNSET
    bound: str | UnsetType = UNSET
    bound_cycles: dict[str, float] | UnsetType = UNSET

    @classmethod
    def of(cls, profile: Profile, row: OperatorCost) -> ProfiledOperator:
        entry, work = row.entry, row.work
        facts = (
            entry.name, entry_text(entry) if entry.arguments else None, entry.layers, entry.schedule,
            entry.occurrences, row.time_us, profile.share(row), row.multiply_adds, row.gmacs_per_second,
        )  # fmt: skip
        if work is None:
            return cls(*facts)
        return cls(
            *facts, work.cycles, row.macs_per_cycle, row.macs_per_cycle / profile.peak, work.l1_misses, work.l2_misses,
            work.l1_bytes, work.l2_bytes, work.bound, work.bound_cycles,
        )  # fmt: skip


class PlainOperators(Struct, frozen=True):
    operators: list[str]
    time_us: float


class ProfileDocument(Struct, frozen=True):
    schema: int
    kind: str
    how: str
    model: str
    target: str
    device: DeviceFacts
    threads: int
    latency_us: LatencySummary
    sum_us: float
    peak_macs_per_cycle: float | None
    operators: list[ProfiledOperator]
    runtime: ProfiledOperator | None
    plain: PlainOperators
    assembly: tuple[HotLoop, ...]
    unmodelled: Unmodelled | None
    max_abs_err: float
    tolerance: float

    @classmethod
    def of(cls, profile: Profile) -> ProfileDocument:
        manifest = profile.manifest
        return cls(
            SCHEMA, profile.kind, HOW[profile.kind], manifest.model, manifest.target, profile.device, profile.threads,
            profile.latency.summary, profile.sum_us, profile.peak,
            [ProfiledOperator.of(profile, row) for row in profile.operators],
            ProfiledOperator.of(profile, profile.runtime) if profile.runtime else None,
            PlainOperators([row.entry.name for row in profile.plain], profile.plain_us), profile.assembly,
            Unmodelled.of(profile.cost), profile.max_abs_err, manifest.tolerance,
        )  # fmt: skip


class ReproducedRow(Struct, frozen=True):
    label: str
    model: str | None
    input_size: tuple[int, ...]
    multiply_adds: int | None
    paper_multiply_adds: int | None
    latency_us: LatencySummary | None
    untuned_latency_us: LatencySummary | None
    paper_ms: float | None
    against: str | None
    speedup: float | None
    paper_speedup: float | None
    theoretical_speedup: float | None
    untuned_speedup: float | None
    max_abs_err: float | None
    calls: int | None
    operators_alone_us: float | None
    limit_us: float | None
    scheduled_by: dict[str, int]
    failure: str | None

    @classmethod
    def of(cls, results: Results, row: Row) -> ReproducedRow:
        case, speedups = row.case, results.speedups(row)
        return cls(
            case.label, row.manifest and row.manifest.model, case.size, row.multiply_adds,
            case.paper_macs_m and round(case.paper_macs_m * 1e6), _summary(row.latency), _summary(row.untuned),
            case.paper_ms, case.against, speedups.ours, speedups.paper, speedups.theory, speedups.untuned,
            row.max_abs_err, row.calls, row.alone_us, row.limit_us, row.scheduled_by,
            str(row.failure) if row.failure else None,
        )  # fmt: skip


class ReproductionDocument(Struct, frozen=True):
    schema: int
    table: str
    title: str
    source: str
    paper_device: str
    target: str
    device: DeviceFacts
    threads: int
    notes: tuple[str, ...]
    findings: list
    verdict: object
    rows: list[ReproducedRow]

    @classmethod
    def of(cls, results: Results) -> ReproductionDocument:
        from ..experiments.findings import findings, verdict

        experiment = results.experiment
        return cls(
            SCHEMA, experiment.name, experiment.title, experiment.source, experiment.paper_device, results.target,
            results.device, results.threads, experiment.notes, findings(results), verdict(results),
            [ReproducedRow.of(results, row) for row in results.rows],
        )  # fmt: skip


class DeployedDocument(Struct, frozen=True, omit_defaults=True):
    """What was copied, and the timing as the package's manifest has it."""

    schema: int
    model: str
    target: str
    package: str
    to: str
    folder: str
    copied: tuple[str, ...]
    sent_bytes: int
    unchanged: tuple[str, ...]
    output: Output
    noise: str | None
    device: dict
    threads: int
    latency_us: dict
    affinity: str | None = None
    cold_us: float | None = None
    peak_memory_bytes: int | None = None
    operators: tuple[OperatorTime, ...] = ()

    @classmethod
    def of(cls, deployed: Deployed) -> DeployedDocument:
        package, timing = deployed.package, deployed.timing
        return cls(
            SCHEMA, package.manifest.model, package.manifest.target, str(package.path), deployed.to, deployed.folder,
            deployed.copied, deployed.sent_bytes, deployed.unchanged, deployed.output, deployed.noise, timing.device,
            timing.threads, timing.latency_us, timing.affinity, timing.cold_us, timing.peak_memory_bytes,
            timing.operators,
        )  # fmt: skip
