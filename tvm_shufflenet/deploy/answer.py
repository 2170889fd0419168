"""Parses and validates the report of a benchmark that ran on a device. Nothing in it is trusted.

The report has a form, bounds and an order of its numbers, and is cleaned of what a terminal would obey. Whether the
output is right is found out from the output itself: its values are fetched and compared with the package's reference,
and the checksums that the device names must be those of these values.
"""

from __future__ import annotations

import json
import math
import shlex

import msgspec
import numpy as np

from ..errors import DeviceFailed, WrongResult
from ..packages.manifest import OperatorTime
from ..packages.package import Package
from ..signature import Tensors, from_bytes
from ..support.files import JSON_DEPTH, nests_deeper
from ..text import clean, shortened
from ..transport.remote import Remote

SCHEMA = 1
TEXT_CHARACTERS, MOST_ENTRIES = 200, 4096
LONGEST_US = 1e9  # a quarter of an hour, and the benchmark would have been ended
MOST_BYTES = 1 << 50
# The benchmark prints nine digits of a checksum, and sums in another order than is done here.
CHECKSUM_ROUNDING = 1e-6
NOT_FOUND = 127


class ReportedCore(msgspec.Struct, frozen=True):
    cpu: int
    part: str | None = None
    max_khz: int | None = None


class ReportedDevice(msgspec.Struct, frozen=True):
    """What the benchmark found out about the device; ``cores`` as the kernel describes them."""

    model: str | None = None
    kernel: str | None = None
    governor: str | None = None
    cores: tuple[ReportedCore, ...] = ()


class Output(msgspec.Struct, frozen=True):
    checksum: float
    expected: float
    ok: bool


class Latencies(msgspec.Struct, frozen=True):
    """In microseconds, of so many ``samples``."""

    median: float
    min: float
    p90: float
    p99: float
    samples: int


class Report(msgspec.Struct, frozen=True):
    """What ``<model>_bench --json`` writes; no times where it runs ``emulated``, which would mean nothing."""

    schema: int
    model: str
    device: ReportedDevice
    threads: int
    output: Output
    latency_us: Latencies | None = None
    emulated: bool = False
    affinity: tuple[int, ...] | None = None
    cold_us: float | None = None
    peak_memory_bytes: int | None = None
    operators: tuple[OperatorTime, ...] = ()

    def check_plausible(self, threads: int, repeat: int, device: str, bench: str) -> None:
        """Raises DeviceFailed for numbers that no run of ``repeat`` samples can have."""
        us = self.latency_us
        if us is None:
            if not self.emulated:
                raise _no_report(bench, device, "no latency")
            return
        ordered = 0 < us.min <= us.median <= us.p99 <= LONGEST_US and us.median <= us.p90 <= us.p99
        for holds, what in (
            (self.schema == SCHEMA, f"its schema is {self.schema}, this reads {SCHEMA}"),
            (ordered, f"not a latency: {msgspec.to_builtins(us)}"),
            (us.min * repeat <= LONGEST_US, f"{repeat} samples of {us.min / 1e6:.3f} s"),
            (us.samples == repeat, f"{us.samples} samples, {repeat} were asked for"),
            (self.threads == threads or threads == 0 < self.threads <= 64, f"{self.threads} threads, not {threads}"),
            (self.cold_us is None or 0 < self.cold_us <= LONGEST_US, f"a first inference of {self.cold_us} us"),
            (0 <= (self.peak_memory_bytes or 0) <= MOST_BYTES, f"{self.peak_memory_bytes} bytes of memory"),
            (all(0 <= each.median_us <= LONGEST_US for each in self.operators), "an operator's time is none"),
        ):
            if not holds:
                raise _no_report(bench, device, what)


def read_report(said: str, device: str, bench: str) -> Report:
    """The report in what a benchmark printed. Raises DeviceFailed."""
    text = said[said.find("{") :]
    try:
        if nests_deeper(text.encode(errors="replace"), JSON_DEPTH):
            raise ValueError(f"it nests more than {JSON_DEPTH} deep")
        # Old phones append what was written to standard error.
        facts, _ = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).raw_decode(text)
        return msgspec.convert(_bounded(facts), Report)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise _no_report(bench, device, str(exc)) from exc


def _no_report(bench: str, device: str, why: str) -> DeviceFailed:
    what = f"{bench} answered on {device} with no report: {shortened(why, 2 * TEXT_CHARACTERS)}"
    return DeviceFailed(what, "it is of another version, or something else answers", "compile the package again")


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(shortened(digits, 40))


def _bounded(value: object) -> object:
    """A JSON value with texts that can be shown. Raises ValueError for one that is too long to be a benchmark's."""
    if isinstance(value, str):
        return shortened(clean(value), TEXT_CHARACTERS)
    if isinstance(value, list | dict) and len(value) > MOST_ENTRIES:
        raise ValueError(f"a list of {len(value)} entries")
    if isinstance(value, list):
        return [_bounded(each) for each in value]
    if isinstance(value, dict):
        return {_bounded(name): _bounded(each) for name, each in value.items()}
    return value


# The output


def check_output(output: Output, said_wrong: bool, package: Package, device: str, bench: str) -> None:
    """Raises WrongResult where the device says that its output is wrong, or its checksums say so.

    Each value may be off by the package's tolerance, and counts twice at most.
    """
    answer = package.answers.reference
    expected = _flat(answer.expected)
    allowed = 2 * sum(answer.tolerances[name] * each.size for name, each in answer.expected.items())
    allowed += _rounding(expected)
    if said_wrong or not output.ok or not abs(output.checksum - output.expected) <= allowed:
        raise _wrong(bench, device, f"checksum {output.checksum:.9g}, expected {output.expected:.9g}")
    ours = checksum(expected)
    if not abs(output.expected - ours) <= allowed:
        said = f"it expects checksum {output.expected:.9g}, the package's reference has {ours:.9g}"
        raise _wrong(bench, device, said)


def check_values(outputs: Tensors, output: Output, package: Package, device: str, bench: str) -> None:
    """Raises WrongResult where ``outputs`` are not the package's reference within its tolerances, or where the checksum
    that the device named is not theirs."""
    found = package.answers.reference.difference(outputs)
    if not found.right:
        raise _wrong(bench, device, f"off by {found.error:.3g} from PyTorch, {found.tolerance:.3g} is allowed")
    values = _flat(outputs)
    ours = checksum(values)
    if not abs(output.checksum - ours) <= _rounding(values):
        said = f"it says checksum {output.checksum:.9g}, its output has {ours:.9g}"
        raise _wrong(bench, device, said)


def read_values(remote: Remote, name: str, package: Package) -> Tensors:
    """The outputs in the file ``name`` in the package's folder on the device, which is removed there.

    Raises DeviceFailed where it is not of the size of the package's outputs.
    """
    outputs = package.manifest.outputs
    wanted = sum(spec.bytes for spec in outputs)
    # In digits, since an old phone's shell changes bytes. A line has 16 of them, each with a space before it.
    script = f"cd {shlex.quote(remote.folder)} && od -An -v -tx1 {name}; e=$?; rm -f {name}; exit $e"
    done = remote.shell(f"({script})", limit_bytes=4 * wanted + 64 * 1024)
    if done.exit_code == NOT_FOUND:
        raise DeviceFailed(f"{remote.name} has no od", "its system is too old", "install coreutils there")
    remote.check(done, "show the output of its benchmark")
    try:
        content = bytes.fromhex("".join(done.output.split()))
    except ValueError:
        content = b""
    if len(content) != wanted:
        raise DeviceFailed(
            f"{remote.name} shows {len(content)} bytes of output, the network has {wanted}",
            "another program runs there under the benchmark's name",
            "look at the device",
        )
    return from_bytes(content, outputs)


def _flat(outputs: Tensors) -> np.ndarray:
    """All values, one output behind the other, as the benchmark sums them."""
    return np.concatenate([each.reshape(-1) for each in outputs.values()])


def checksum(values: np.ndarray) -> float:
    """The benchmark's own (native/bench.c): the sum of all values, each times a weight of its own between 1 and 2."""
    flat = values.reshape(-1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum(flat * (1 + _states(flat.size) / 2**32)))


def _rounding(values: np.ndarray) -> float:
    return CHECKSUM_ROUNDING * (1 + 2 * float(np.abs(values.astype(np.float64)).sum()))


def _states(count: int) -> np.ndarray:
    """``count`` states of bench.c's generator, by doubling: a stretch of them maps onto the next by one step."""
    multiplier, increment = 1664525, 1013904223
    states = np.array([(multiplier + increment) % 2**32], dtype=np.uint64)
    while states.size < count:
        states = np.concatenate([states, (states * np.uint64(multiplier) + np.uint64(increment)) % np.uint64(2**32)])
        multiplier, increment = multiplier * multiplier % 2**32, increment * (multiplier + 1) % 2**32
    return states[:count].astype(np.float64)


def _wrong(bench: str, device: str, found: str) -> WrongResult:
    return WrongResult(
        f"{bench} computes something else on {device}: {found}",
        "the CPU is another than it was compiled for or faulty, or the device does not tell the truth",
        "compile it --untuned, or for the device's own target",
    )
