"""A folder of tuning records: a MetaSchedule database, and a journal with the origin of each record.

    database_workload.json        one workload a line, as MetaSchedule's JSONDatabase writes it
    database_tuning_record.json   one record a line: [workload's line, [trace, seconds, target, arguments]]
    trials.jsonl                  one trial a line, failed ones too: strategy, device, kind of clock, error; and the
                                  checksums of its record and of the line itself

The first two are what stock MetaSchedule reads. The journal holds what it has no place for: a modelled time must not
compete with a measured one, nor one thread with two, and a schedule that failed must not be tried again. A record
counts only with its line in the journal; but a folder that stock MetaSchedule has written alone, without a journal, is
one of measured times.

Several processes may write to a folder, each line under the folder's lock. A trial's lines are written in this order:
workload, journal, record. So whoever reads them in the opposite order finds what each record needs, and a process that
is killed between two leaves a trial without its record, which does not count and is made again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ...errors import lines_of
from ...graph.serialized import NotOperators, check_workload
from ...latency import MEASURED
from ...library.serial import json_trace_hash, record_of, workload_hash
from ...schedules.admitted import NotAdmitted, check_trace
from ...support import interrupts
from ...support.containers import plain
from ...support.toolchain import TVM_VERSION
from .journal import Damaged, Trial, checksum, decode, encode, parse
from .lines import Line, Stream, append_line, locked, writing

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
JOURNAL = "trials.jsonl"
NO_LOCKS_NOTE = "{} has no file locks: runs that share it take turns by a file in it, and a killed run may leave that"


class Skipped(msgspec.Struct, frozen=True):
    """A line that could not be used, and why."""

    file: str
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}: {self.reason}"


class RecordLine(NamedTuple):
    """Where a record's line is: records are many and large, and few of them are ever needed."""

    stream: Stream
    number: int
    offset: int

    def body(self) -> list:
        """The record as MetaSchedule has it in JSON: trace, seconds, target, arguments."""
        return parse(self.stream.read_at(self.offset))[1]


class Found(NamedTuple):
    """A line of the database as far as it can be understood by itself. ``target`` is its JSON as text."""

    workload_line: int
    trace: str
    seconds: float
    target: str
    checksum: str
    line: RecordLine


class Entry(NamedTuple):
    """A record that counts, with the journal's line for it."""

    trial: Trial
    target: str
    line: RecordLine

    @property
    def key(self) -> tuple:
        """Two entries of one key are one."""
        return *self.trial.record_key, self.target


class RecordFolder:
    """What one folder holds, of any target and TVM. Lines that cannot be read are skipped, reported and left in place.

    Raises BadInput where the folder cannot be read.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.notes: list[str] = []
        self._start_over()
        self.read()

    def _start_over(self) -> None:
        self.workloads: dict[str, ms.database.Workload] = {}  # by hash
        self.lines: dict[str, int] = {}  # where the first of each is: lines count from 0, bad ones too
        self.hashes: dict[int, str] = {}  # of the workload in each good line
        self.entries: dict[tuple, Entry] = {}
        self.trials: dict[Trial, None] = {}
        self._timed: dict[tuple[str, str, float], list[Trial]] = {}
        self._skipped: dict[tuple[str, int], Skipped] = {}
        self._texts: dict[str, str] = {}
        self._streams = {name: Stream(self.path / name) for name in (WORKLOADS, RECORDS, JOURNAL)}

    @property
    def skipped(self) -> list[Skipped]:
        return list(self._skipped.values())

    def skip(self, file: str, number: int, reason: object) -> None:
        self._skipped[file, number] = Skipped(file, number, str(reason))

    def read(self) -> None:
        """Take in what was appended since the last time, by whomever."""
        if any(stream.replaced() for stream in self._streams.values()):
            self._start_over()
        found: dict[tuple, Found] = {}
        for line in self._streams[RECORDS].fresh():
            if each := self._found(line):
                found.setdefault(each[:-1], each)
        for line in self._streams[JOURNAL].fresh():
            self._take_trial(line)
        for line in self._streams[WORKLOADS].fresh():
            self._take_workload(line)
        for each in found.values():
            self._settle(each)

    def _found(self, line: Line) -> Found | None:
        try:
            workload_line, body = parse(line.data)
            trace, run_secs, target, _arguments = body
            if type(workload_line) is not int or not isinstance(target, dict):
                raise Damaged("not a tuning record")
            seconds = statistics.median(float(second) for second in run_secs)
            if not (math.isfinite(seconds) and min(run_secs) > 0):
                raise Damaged("its times are none that a clock can show")
            check_trace(trace)
            text = json.dumps(target, sort_keys=True)
            text = self._texts.setdefault(text, text)  # there are few targets, and may be a million records
            place = RecordLine(self._streams[RECORDS], line.number, line.offset)
            return Found(workload_line, json_trace_hash(trace), seconds, text, checksum(body), place)
        except (Damaged, NotAdmitted) as exc:
            self.skip(RECORDS, line.number, exc)
        except Exception:
            self.skip(RECORDS, line.number, "not a tuning record")
        return None

    def _take_trial(self, line: Line) -> None:
        try:
            trial = decode(line.data)
        except Damaged as exc:
            return self.skip(JOURNAL, line.number, exc)
        if trial not in self.trials and trial.seconds is not None:
            self._timed.setdefault((trial.workload, trial.trace, trial.seconds), []).append(trial)
        self.trials[trial] = None

    def _take_workload(self, line: Line) -> None:
        """Its hash is its checksum."""
        try:
            value = parse(line.data)
            shash = str(value[0])
            if shash not in self.lines:
                check_workload(value)
                workload = ms.database.Workload.from_json(value)
                if workload_hash(workload.mod) != shash:
                    raise Damaged("not what its hash says, or of another TVM")
                self.workloads[shash] = workload
                self.lines[shash] = line.number - 1
            self.hashes[line.number - 1] = shash
        except Damaged as exc:
            self.skip(WORKLOADS, line.number, exc)
        except NotOperators as exc:
            self.skip(WORKLOADS, line.number, f"not a workload: {exc}")
        except Exception:
            self.skip(WORKLOADS, line.number, "not a workload")

    @property
    def has_journal(self) -> bool:
        return bool(self.trials) or any(file == JOURNAL for file, _ in self._skipped)

    def _settle(self, found: Found) -> None:
        """Make a record one that counts, or say why not."""
        shash = self.hashes.get(found.workload_line)
        if shash is None:
            return self.skip(RECORDS, found.line.number, "its workload is missing or damaged")
        trials = self._timed.get((shash, found.trace, found.seconds), [])
        matching = [trial for trial in trials if trial.record in (None, found.checksum)]
        if trials and not matching:
            return self.skip(RECORDS, found.line.number, "its checksum is another: damaged, or edited by hand")
        if not matching:
            if self.has_journal:
                return self.skip(RECORDS, found.line.number, "not in the journal, so nobody knows what timed it")
            matching = [Trial(shash, found.trace, "unknown", "unknown", MEASURED, TVM_VERSION, found.seconds)]
        if not all(trial.record for trial in matching):
            try:
                record_of(found.line.body(), self.workloads[shash])
            except Exception:
                return self.skip(RECORDS, found.line.number, "not a tuning record")
        for trial in matching:
            entry = Entry(trial, found.target, found.line)
            self.entries[entry.key] = entry
        return None

    def finished(self, is_ours: Callable[[str], bool] = lambda target: True) -> Iterator[Trial]:
        """Trials that are done: failed, or with a record; one whose record is missing or for another target is none."""
        recorded = {key[:-1] for key, entry in self.entries.items() if is_ours(entry.target)}
        for trial in self.trials:
            if trial.needs_no_record or trial.record_key in recorded:
                yield trial

    def workload(self, entry: Entry) -> ms.database.Workload:
        return self.workloads[entry.trial.workload]

    def record(self, entry: Entry) -> ms.database.TuningRecord:
        return record_of(entry.line.body(), self.workload(entry))

    def usable(self, entry: Entry) -> ms.database.TuningRecord | None:
        """``record``, None where the line is not what TVM wrote: a checksum only shows what happened by accident."""
        try:
            return self.record(entry)
        except Exception as exc:
            return self.skip(RECORDS, entry.line.number, f"not a tuning record: {lines_of(exc)[-1]}")

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """The folder, made if it is not there, for us alone to write to, and all it holds read. Raises BadInput."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path) as without_locks:
            if without_locks and not self.notes:
                self.notes.append(NO_LOCKS_NOTE.format(self.path))
            self.read()
            yield

    def prepare(self) -> None:
        """Make sure that it can be written to. Raises BadInput."""
        with self.ours(), writing(self.path):
            tempfile.TemporaryFile(dir=self.path).close()
            for path in self.files():
                if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def write(self, trial: Trial, body: list | None, mod: tvm.IRModule | None) -> Trial:
        """While the folder is ``ours``: one trial, and its record if it has one; on disk when this returns.

        Returns the trial as the journal has it.
        """
        with interrupts.uninterrupted():
            return self._write(trial, body, mod)

    def _write(self, trial: Trial, body: list | None, mod: tvm.IRModule | None) -> Trial:
        if self.entries and not self.has_journal:
            self._adopt()
        if body is not None:
            trial = msgspec.structs.replace(trial, record=checksum(body))
            if trial.workload not in self.lines:
                self._append(WORKLOADS, plain(ms.database.Workload(mod).as_json()))
            if trial.workload not in self.lines:
                body = None  # it would not be read: ``skipped`` says why
        append_line(self.path / JOURNAL, encode(trial))
        if body is not None:
            self._append(RECORDS, [self.lines[trial.workload], body])
        self.read()
        return trial

    def _append(self, name: str, value) -> None:
        append_line(self.path / name, json.dumps(value, separators=(",", ":")).encode())
        self.read()

    def _adopt(self) -> None:
        """Give each record that stock MetaSchedule has written its line in the journal, before there is one."""
        for entry in self.entries.values():
            append_line(self.path / JOURNAL, encode(msgspec.structs.replace(entry.trial, record=self.checksum(entry))))
        self.read()

    def checksum(self, entry: Entry) -> str:
        return checksum(entry.line.body())

    def files(self) -> Iterator[Path]:
        return (self.path / name for name in (WORKLOADS, RECORDS, JOURNAL))
