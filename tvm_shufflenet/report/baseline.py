"""Compares a result with the JSON of an earlier one for the same network and device, and detects a slow-down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import BadInput, Slower
from ..support.files import Malformed, read_json

SCHEMA = 1
DEFAULT_ALLOWED_PERCENT = 5.0


class BaselineDevice(msgspec.Struct, frozen=True):
    name: str
    kind: str


class BaselineHost(msgspec.Struct, frozen=True):
    cpu: str
    cpus: int | None = None


class BaselineLatency(msgspec.Struct, frozen=True):
    median: float
    kind: str | None = None


class Baseline(msgspec.Struct, frozen=True):
    """What has to be the same, and the latencies, of a file that ``compare --json`` or ``tune --json`` wrote."""

    schema: int
    model: str
    device: BaselineDevice
    threads: int
    latency_us: dict[str, BaselineLatency]
    input_shape: tuple[int, ...] | None = None
    host: BaselineHost | None = None

    @property
    def tuned_us(self) -> float:
        return self.latency_us["tuned"].median


@dataclass(frozen=True)
class Conditions:
    """What a latency depends on beside the code. ``host`` is the CPU of a local device and how many it has."""

    model: str
    input_shape: tuple[int, ...]
    device: str
    kind: str
    threads: int
    host: tuple[str, int] | None = None


@dataclass(frozen=True)
class Verdict:
    """The tuned latency against the baseline's. ``slower_percent`` is negative where it has become faster."""

    path: Path
    before_us: float
    now_us: float
    allowed_percent: float

    @property
    def slower_percent(self) -> float:
        return 100 * (self.now_us / self.before_us - 1)

    @property
    def passed(self) -> bool:
        return self.now_us <= self.before_us * (1 + self.allowed_percent / 100)

    def describe(self) -> str:
        word = "slower" if self.slower_percent >= 0 else "faster"
        return (
            f"baseline {self.path}: {self.before_us / 1e3:.3f} ms, now {self.now_us / 1e3:.3f} ms, "
            f"{abs(self.slower_percent):.1f} % {word}, {self.allowed_percent:g} % slower is allowed"
        )

    def check(self) -> None:
        """Raises Slower."""
        if not self.passed:
            raise Slower(
                self.describe(),
                "a change of the code, the records or the compiler",
                "compare the operators' times of both with tvm-shufflenet profile",
            )


def read_baseline(path: Path) -> Baseline:
    """Raises BadInput for a file that is no comparison with a tuned latency."""
    try:
        found = read_json(path, Baseline)
    except OSError as exc:
        raise BadInput(f"cannot read the baseline {path}", exc.strerror or str(exc), _WRITE_ONE) from exc
    except Malformed as exc:
        raise BadInput(f"{path} is no baseline: {exc}", "not the JSON of compare or tune", _WRITE_ONE) from exc
    if found.schema != SCHEMA:
        raise BadInput(f"{path} has schema {found.schema}, this reads {SCHEMA}", "another version", _WRITE_ONE)
    if "tuned" not in found.latency_us or not found.tuned_us > 0:
        raise BadInput(f"{path} has no tuned latency", "the run that wrote it failed", _WRITE_ONE)
    return found


_WRITE_ONE = "write one with tvm-shufflenet compare ... --json FILE"


def refuse_unlike(baseline: Baseline, conditions: Conditions, path: Path) -> None:
    """Raises BadInput where anything but the code differs: such latencies say nothing about each other."""
    tuned = baseline.latency_us["tuned"]
    differing = ", ".join(
        f"{what} {before} there, {now} here"
        for what, before, now in (
            ("model", baseline.model, conditions.model),
            ("input", _shape(baseline.input_shape), _shape(conditions.input_shape)),
            ("device", baseline.device.name, conditions.device),
            ("clock", baseline.device.kind, conditions.kind),
            ("latency", tuned.kind, conditions.kind),
            ("threads", baseline.threads, conditions.threads),
            ("CPU", baseline.host and (baseline.host.cpu, baseline.host.cpus), conditions.host),
        )
        if before is not None and before != now
    )
    if differing:
        raise BadInput(
            f"{path} is a baseline of something else: {differing}",
            "it was written by another run",
            "compare with the same --model, --device and --threads, or write a new baseline",
        )


def _shape(shape: tuple[int, ...] | None) -> str | None:
    return None if shape is None else "x".join(map(str, shape))
