"""A line of the journal of trials, and the conditions that a trial's time depends on."""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

import msgspec

from ...latency import Kind, clock_name
from ...support.files import JSON_DEPTH, nests_deeper
from ...text import clean

# 1: a trial alone. 2: with the target and the checksums of its record and of the line.
SCHEMA = 2
PRUNED = "pruned"  # in place of a record's checksum: the trial is done, its record was dropped on purpose


class Setting(NamedTuple):
    """What a time depends on beside the schedule: only records of one setting compete with each other."""

    clock: str
    threads: int


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal. ``workload`` and ``trace`` are hashes; ``seconds`` is None where the trial failed.

    ``threads`` is how many the schedule was tuned for and timed with; lines from before it was written mean one.
    ``noise`` is the spread of the samples and ``drift`` how much slower the device was than at its best, where either
    is more than it should be. ``target`` is a hash of what code was generated for, ``record`` the checksum of the
    record that belongs to the line, ``search`` a hash of what decided the order of the search that made it; older lines
    have none of these.
    """

    workload: str
    trace: str
    strategy: str
    device: str
    kind: Kind
    tvm: str
    seconds: float | None = None
    cause: str | None = None
    error: str | None = None
    threads: int = 1
    noise: float | None = None
    drift: float | None = None
    target: str | None = None
    record: str | None = None
    search: str | None = None

    @property
    def clock(self) -> str:
        return clock_name(self.kind, self.device)

    @property
    def setting(self) -> Setting:
        return Setting(self.clock, self.threads)

    @property
    def needs_no_record(self) -> bool:
        """Whether the trial is done without one: it failed, or its record was dropped on purpose."""
        return self.seconds is None or self.record == PRUNED

    @property
    def record_key(self) -> tuple:
        """What a record shares with its line, beside the target."""
        return self.workload, self.trace, self.setting, self.seconds


class Damaged(ValueError):
    """A line that is not what was written; the text says why, for people."""


class Newer(Damaged):
    """A line of a later schema."""


def checksum(value) -> str:
    """CRC-32 of a JSON value as it would be written, however it is spaced and whatever the order of its keys."""
    return f"{zlib.crc32(json.dumps(value, separators=(',', ':'), sort_keys=True).encode()):08x}"


def encode(trial: Trial) -> bytes:
    """The line, without its end."""
    value = {"schema": SCHEMA, **msgspec.to_builtins(trial)}
    return json.dumps(value | {"crc32": checksum(value)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Trial:
    """The trial of a line. One without a checksum, of the first schema or written by hand, is taken at its word.

    Raises Damaged.
    """
    value = parse(data)
    if not isinstance(value, dict):
        raise Damaged("not a trial")
    schema = value.pop("schema", 1)
    expected = value.pop("crc32", None)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise Newer(f"written by a newer version (schema {schema}, this one knows {SCHEMA}): update tvm-shufflenet")
    if expected is not None and checksum({"schema": schema, **value}) != expected:
        raise Damaged("its checksum is another: damaged, or edited by hand (then remove its crc32)")
    value = {name: clean(each) if isinstance(each, str) else each for name, each in value.items()}
    try:
        return msgspec.convert(value, Trial)
    except msgspec.ValidationError as exc:
        raise Damaged(str(exc)) from exc


def parse(data: bytes | None):
    """A line's JSON value. Raises Damaged; NaN and infinity, which Python's parser takes, are no JSON."""
    if data is None:
        raise Damaged("too long to be one of ours")
    if nests_deeper(data, JSON_DEPTH):
        raise Damaged("nests deeper than anything of ours")
    try:
        value = json.loads(data, parse_constant=_refuse)
        if b"\\u" in data:  # half a pair of surrogates, which JSON can name, is no text: nothing could print it
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as exc:
        raise Damaged("not JSON, perhaps cut short") from exc


def _refuse(name: str):
    raise ValueError(name)
