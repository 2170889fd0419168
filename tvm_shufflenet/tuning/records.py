"""Tuning records on disk: an ordinary MetaSchedule database per target, and a journal that says where each came from.

    database_workload.json        one workload a line, as MetaSchedule's JSONDatabase writes it
    database_tuning_record.json   one record a line: [workload's line, [trace, seconds, target, arguments]]
    trials.jsonl                  one trial a line, failed ones too: strategy, device, kind of clock, error
    best.jsonl                    shipped records, see shipped.py; only read here

The first two are what stock MetaSchedule reads. The journal holds what it has no place for: a modelled time must not
compete with a measured one, nor one thread with two, and a schedule that failed must not be tried again. Lines are only
ever appended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ..errors import BadInput, RecordMismatch
from ..graph.tasks import argument_shapes
from ..latency import MEASURED
from ..schedules.nearest import Neighbour
from .journal import Setting, Trial
from .shipped import BEST, Best, read_best, same_text
from .trial import Cause

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
JOURNAL = "trials.jsonl"


@dataclass(frozen=True)
class Line:
    """A line that could not be used, and why."""

    file: str
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}: {self.reason}"


class Row(NamedTuple):
    """A record and what it depends on; ``setting`` is None where nobody knows."""

    setting: Setting | None
    workload: str
    record: ms.database.TuningRecord


class Shipped(NamedTuple):
    """A shipped record whose workload is at hand. Only those of the ``same_target`` compete by their times."""

    trial: Trial
    record: ms.database.TuningRecord
    same_target: bool


@dataclass
class RecordStore:
    """The records of one folder for one target. Lines that cannot be read are skipped, reported and left in place.

    ``shipped`` names a second folder that is read as well, but never written. Its records are for ``shipped_target``
    if that is given, and then only stand in for workloads that have no record of ``target``'s own: a schedule made for
    one CPU is right on another of the same vectors, and its tiles a good guess, but its time means nothing there. In
    either folder records must be for exactly the folder's target.
    """

    folder: Path
    target: tvm.target.Target
    shipped: Path | None = None
    shipped_target: tvm.target.Target | None = None
    skipped: list[Line] = field(default_factory=list)
    other_targets: int = 0

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self._records: list[tuple[str, str, ms.database.TuningRecord]] = []
        self._trials: list[Trial] = []
        self._best: dict[str, list[Best]] = {}  # shipped records by workload, until somebody comes with it
        self._met: dict[str, list[Shipped]] = {}
        if self.shipped is not None and Path(self.shipped).resolve() != self.folder.resolve():
            if not self._borrowed:
                self._read(Path(self.shipped))
            self._read_best(Path(self.shipped), self.shipped_target or self.target)
        known = len(self._trials)
        self._workload_lines = self._read(self.folder)
        self._journal = self._trials[known:]
        self._read_best(self.folder, self.target)
        if self.other_targets and not self._records and not self._best:
            raise RecordMismatch(
                f"the {self.other_targets} records in {self.folder} are not for this target",
                "they were tuned for another machine, or TVM described it otherwise",
                "name another --records folder, or tune again into an empty one",
            )

    def _read(self, folder: Path) -> dict[str, int]:
        """Add a folder's records and trials. Returns each workload's line, by hash."""
        workloads, lines = self._read_workloads(folder)
        hashes = {line: shash for shash, line in lines.items()}
        for number, value in self._lines(folder / RECORDS):
            try:
                line, body = value
                record = ms.database.TuningRecord.from_json(body, workloads[line])
            except KeyError:
                self.skipped.append(Line(RECORDS, number, "its workload is missing or damaged"))
                continue
            except Exception:
                self.skipped.append(Line(RECORDS, number, "not a tuning record"))
                continue
            if same_target(record.target, self.target):
                self._records.append((hashes[line], trace_hash(record.trace), record))
            else:
                self.other_targets += 1
        for number, value in self._lines(folder / JOURNAL):
            try:
                self._trials.append(msgspec.convert(value, Trial))
            except msgspec.ValidationError as exc:
                self.skipped.append(Line(JOURNAL, number, str(exc)))
        return lines

    @property
    def _borrowed(self) -> bool:
        return self.shipped_target is not None and not same_target(self.shipped_target, self.target)

    @property
    def sources(self) -> str:
        """Where the records come from, for people."""
        if not self._borrowed or not self._best:
            return str(self.folder)
        return f"{self.folder}, else by the records shipped for {self.shipped_target.attrs['mcpu']}"

    def _read_best(self, folder: Path, target: tvm.target.Target) -> None:
        """Add a folder's shipped records, which must be for ``target``."""
        matches: dict[str, bool] = {}
        for number, best in read_best(self._lines(folder / BEST)):
            if isinstance(best, str):
                self.skipped.append(Line(BEST, number, best))
                continue
            key = same_text(best.target)
            if key not in matches:
                matches[key] = same_target(tvm.target.Target(best.target), target)
            if not matches[key]:
                self.other_targets += 1
                continue
            self._best.setdefault(best.trial.workload, []).append(best)
            if same_target(target, self.target):
                self._trials.append(best.trial)

    def meet(self, workloads: Iterable[tvm.IRModule]) -> None:
        """Make the shipped records of ``workloads`` usable: they name their workload by its hash alone."""
        for mod in workloads:
            shash = workload_hash(mod)
            if shash in self._best and shash not in self._met:
                records = [(best, best.record(mod)) for best in self._best[shash]]
                self._met[shash] = [
                    Shipped(best.trial, record, same_target(record.target, self.target)) for best, record in records
                ]

    def _read_workloads(self, folder: Path) -> tuple[dict[int, ms.database.Workload], dict[str, int]]:
        """Workloads by line, and their lines by hash; lines count from 0, bad ones too."""
        workloads, lines = {}, {}
        for number, value in self._lines(folder / WORKLOADS, keep_all=True):
            try:
                workloads[number - 1] = ms.database.Workload.from_json(value)
                lines.setdefault(str(value[0]), number - 1)
            except Exception:
                self.skipped.append(Line(WORKLOADS, number, "not a workload"))
        return workloads, lines

    def _lines(self, path: Path, keep_all: bool = False) -> Iterator[tuple[int, object]]:
        """Number and value of each line; one that is not JSON is reported, or None where ``keep_all`` is set."""
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise BadInput(f"cannot read {path}", str(exc), "check the --records folder") from exc
        for number, line in enumerate(lines, start=1):
            try:
                yield number, json.loads(line)
            except ValueError:
                if keep_all:
                    yield number, None
                else:
                    self.skipped.append(Line(path.name, number, "not JSON, perhaps cut short"))

    def _settings(self) -> list[Setting | None]:
        """The setting of each record, found in the journal by its time too: one schedule may be timed in two."""
        timed: dict[tuple[str, str], dict[float, Setting]] = {}
        for trial in self._trials:
            if trial.seconds is not None:
                settings = timed.setdefault((trial.workload, trial.trace), {})
                settings[trial.seconds] = trial.setting
        unlisted = None if any(line.file == JOURNAL for line in self.skipped) else Setting(MEASURED, 1)
        found = []
        for workload, trace, record in self._records:
            by_seconds = timed.get((workload, trace))
            median = statistics.median(float(seconds) for seconds in record.run_secs)
            found.append(unlisted if by_seconds is None else by_seconds.get(median))
        return found

    def database(self, *preferred: str, threads: int = 1) -> ms.database.MemoryDatabase:
        """The usable records for ``threads`` as a MetaSchedule database, all of one clock: two do not compare.

        It is the first of the ``preferred`` clocks that has any; after these, measured times come before modelled
        ones. A record without a journal line, such as one that stock MetaSchedule wrote, was measured with one thread;
        unless the journal is damaged, then nobody knows. Shipped records, of workloads that have been met, stand in
        where that leaves none, whatever their clock.
        """
        rows = self._rows()
        present = {row.setting.clock for row in rows if row.setting is not None and row.setting.threads == threads}
        order = [*preferred, MEASURED, *sorted(present)]
        wanted = next((clock for clock in order if clock in present), None)
        chosen = [row for row in rows if row.setting == (wanted, threads)]
        return _as_database([*chosen, *self._stand_ins({row.workload for row in chosen}, order, threads)])

    def database_of(self, clock: str, threads: int = 1) -> ms.database.MemoryDatabase:
        """The records of one clock and number of threads alone, perhaps none: what a search may learn from."""
        return _as_database(row for row in self._rows() if row.setting == (clock, threads))

    def stand_in(self, workload: tvm.IRModule, clock: str, threads: int = 1) -> ms.database.TuningRecord | None:
        """The shipped record of a workload that has none on this clock: where a search may begin."""
        self.meet([workload])
        shash = workload_hash(workload)
        found = [] if self.trials(shash, clock, threads) else self._met.get(shash, [])
        return next((shipped.record for shipped in found if shipped.trial.threads == threads), None)

    def best(self, clock: str, threads: int = 1) -> list[Best]:
        """The best record of each workload as a line to ship."""
        fastest: dict[str, Best] = {}
        trials = {(t.workload, t.trace, t.seconds): t for t in self._trials if t.setting == (clock, threads)}
        for workload, trace, record in self._records:
            seconds = statistics.median(float(second) for second in record.run_secs)
            trial = trials.get((workload, trace, seconds))
            if trial is None or (workload in fastest and fastest[workload].trial.seconds <= seconds):
                continue
            arguments = tuple(argument_shapes(record.workload.mod))
            fastest[workload] = Best(trial, plain(record.target.export()), plain(record.trace.as_json()), arguments)
        return list(fastest.values())

    def neighbours(self, threads: int = 1) -> list[Neighbour]:
        """The best records of all workloads that say for what shapes they are, whatever their clock; own ones first."""
        own = [best for clock in {trial.clock for trial in self._trials} for best in self.best(clock, threads)]
        shipped = [best for found in self._best.values() for best in found if best.trial.threads == threads]
        return [best.neighbour() for best in (*own, *shipped) if best.arguments]

    def _rows(self) -> list[Row]:
        """All that compete by their times."""
        own = [
            Row(setting, shash, rec) for setting, (shash, _, rec) in zip(self._settings(), self._records, strict=True)
        ]
        shipped = [each for found in self._met.values() for each in found if each.same_target]
        return own + [Row(each.trial.setting, each.trial.workload, each.record) for each in shipped]

    def _stand_ins(self, served: set[str], clocks: list[str], threads: int) -> Iterator[Row]:
        """A shipped record for each workload met that is not ``served``, of the first of the ``clocks``."""
        rank = {clock: number for number, clock in reversed(list(enumerate(clocks)))}
        for workload, found in self._met.items():
            usable = [each for each in found if each.trial.threads == threads]
            if usable and workload not in served:
                best = min(usable, key=lambda each: rank.get(each.trial.clock, len(rank)))
                yield Row(best.trial.setting, workload, best.record)

    def trials(self, workload: str, clock: str, threads: int = 1) -> list[Trial]:
        """Finished trials of a workload on one clock; those that a device's failure ended do not count."""
        return [
            trial
            for trial in self._trials
            if trial.workload == workload
            and (trial.clock, trial.threads) == (clock, threads)
            and trial.cause not in (Cause.DEVICE.value, Cause.TIMEOUT.value)
        ]

    def journal(self, workload: str, setting: Setting) -> list[Trial]:
        """Trials of a workload in the order in which this folder's own searches made them; nothing that was shipped."""
        return [trial for trial in self._journal if trial.workload == workload and trial.setting == setting]

    def append(self, trial: Trial, record: ms.database.TuningRecord | None, mod: tvm.IRModule) -> None:
        """Write one trial, and its record if it succeeded; both are on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The journal first: cut off between the two, a record without its line would pass for a measured one.
        _append(self.folder / JOURNAL, msgspec.to_builtins(trial))
        self._trials.append(trial)
        self._journal.append(trial)
        if record is not None:
            line = self._workload_line(trial.workload, mod)
            _append(self.folder / RECORDS, [line, record_json(record)])
            self._records.append((trial.workload, trial.trace, record))

    def _workload_line(self, shash: str, mod: tvm.IRModule) -> int:
        if shash not in self._workload_lines:
            self._workload_lines[shash] = _append_and_count(
                self.folder / WORKLOADS, plain(ms.database.Workload(mod).as_json())
            )
        return self._workload_lines[shash]


def _as_database(rows: Iterable[Row]) -> ms.database.MemoryDatabase:
    database = ms.database.MemoryDatabase()
    workloads: dict[str, ms.database.Workload] = {}  # to commit one means to compare it with all others
    for _, shash, record in rows:
        if shash not in workloads:
            workloads[shash] = database.commit_workload(record.workload.mod)
        database.commit_tuning_record(
            ms.database.TuningRecord(record.trace, workloads[shash], record.run_secs, record.target, record.args_info)
        )
    return database


def _append(path: Path, value) -> None:
    """One write of one whole line, on disk before we go on; a torn last line is closed first, not joined."""
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    with _locked(path) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read() not in (b"", b"\n"):
            line = b"\n" + line
        file.write(line)


def _append_and_count(path: Path, value) -> int:
    """As ``_append``; returns how many lines are before it: another tuning run may be writing to the same file."""
    _append(path, value)
    text = json.dumps(value, separators=(",", ":")).encode()
    lines = path.read_bytes().splitlines()
    return len(lines) - 1 - lines[::-1].index(text)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, for us alone until it is closed; then what was written is on disk. Raises BadInput."""
    try:
        with open(path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise BadInput(f"cannot write {path}", str(exc), "free space or name another --records folder") from exc


def workload_hash(mod: tvm.IRModule) -> str:
    """MetaSchedule's own structural hash of a workload."""
    return str(ms.database.Workload(mod).as_json()[0])


def trace_hash(trace) -> str:
    """Hash of a schedule's instructions and decisions; postprocessing follows from these."""
    return hashlib.sha256(json.dumps(plain(trace.as_json(True))).encode()).hexdigest()[:16]


def record_json(record: ms.database.TuningRecord) -> list:
    """A record as MetaSchedule's JSONDatabase writes it; ``TuningRecord.as_json`` itself refuses index maps."""
    arguments = [info.as_json() for info in record.args_info]
    return plain([record.trace.as_json(), record.run_secs, record.target.export(), arguments])


def same_target(left, right) -> bool:
    """Whether two targets generate the same code, however many cores they say the machine has."""
    return _code(left) == _code(right)


def _code(target) -> dict:
    return {key: value for key, value in plain(target.export()).items() if key not in ("num-cores", "tag", "keys")}


def plain(value):
    """TVM's containers and boxed numbers as Python's own, for json."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "value"):
        return plain(value.value)
    return [plain(item) for item in value]
