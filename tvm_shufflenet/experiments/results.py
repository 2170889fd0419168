"""The results of an experiment: a row for each network, ours beside the paper's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..devices.facts import DeviceFacts
from ..errors import DeployError
from ..latency import Latency
from ..packages.manifest import Manifest
from .catalogue import Case, Experiment


@dataclass(frozen=True)
class Row:
    """A case with its checked latency, or with the ``failure`` that stands in its place. ``untuned`` is that of
    TVM's own code, where the experiment wants it; ``limit_us`` what a modelled core takes at least."""

    case: Case
    manifest: Manifest | None = None
    latency: Latency | None = None
    untuned: Latency | None = None
    max_abs_err: float | None = None
    failure: DeployError | None = None
    limit_us: float | None = None

    @property
    def multiply_adds(self) -> int | None:
        operators = self.manifest.operators if self.manifest else ()
        return sum(operator.multiply_adds * operator.occurrences for operator in operators) or None

    @property
    def over_limit(self) -> float | None:
        """The latency as a multiple of what the core takes at least."""
        return _ratio(self.latency and self.latency.median_us, self.limit_us)

    @property
    def calls(self) -> int | None:
        """Operators called in one inference."""
        return sum(operator.occurrences for operator in self.manifest.operators) if self.manifest else None

    @property
    def alone_us(self) -> float | None:
        """What all calls took together when each operator was timed alone, None where a record is missing or is of
        another CPU."""
        if self.manifest is None:
            return None
        operators, cpus = self.manifest.operators, (None, self.manifest.target_config.get("mcpu"))
        if any(each.record_us is None or each.tuned_for not in cpus for each in operators):
            return None
        return sum(each.occurrences * each.record_us for each in operators)

    @property
    def scheduled_by(self) -> dict[str, int]:
        """How many operators have a record of their own, a near one, a template's default, or plain loops."""
        return dict(Counter(operator.schedule for operator in self.manifest.operators)) if self.manifest else {}


@dataclass(frozen=True)
class Speedups:
    """Over the same other case: ours, the paper's, and what multiply-adds alone would allow; None where unknown."""

    ours: float | None = None
    paper: float | None = None
    theory: float | None = None
    untuned: float | None = None


@dataclass(frozen=True)
class Results:
    experiment: Experiment
    target: str
    device: DeviceFacts
    threads: int
    rows: tuple[Row, ...]

    def against(self, row: Row) -> Row | None:
        """The row that a speedup of ``row`` is over."""
        return next((o for o in self.rows if (o.case.label, o.case.size) == (row.case.against, row.case.size)), None)

    def speedups(self, row: Row) -> Speedups:
        case, other = row.case, self.against(row)
        if other is None:
            return Speedups()
        return Speedups(
            _ratio(other.latency and other.latency.median_us, row.latency and row.latency.median_us),
            _ratio(other.case.paper_ms, case.paper_ms),
            _ratio(other.multiply_adds, row.multiply_adds),
            _ratio(other.untuned and other.untuned.median_us, row.untuned and row.untuned.median_us),
        )


def _ratio(before: float | None, now: float | None) -> float | None:
    return before / now if before and now else None
