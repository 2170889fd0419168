"""Tuning records for one target: what a search may learn from, and what a library is built with.

They are kept in a folder (folder.py says how), and a second one may lend the records that are shipped (shipped.py).
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ...errors import RecordMismatch, lines_of
from ...graph.tasks import argument_shapes
from ...hardware.targets import is_cpu
from ...latency import MEASURED, MODELLED
from ...library.serial import record_json, same_target, target_hash, trace_hash, workload_hash
from ...schedules.nearest import Neighbour
from ...support.toolchain import TVM_VERSION
from ...text import counted
from ..measuring.trial import Cause
from .choices import CHOICES, Choice, read_choices, write_choice
from .folder import JOURNAL, RECORDS, WORKLOADS, Entry, RecordFolder, Skipped
from .journal import Setting, Trial
from .lines import writing
from .shipped import BEST, Best, read_best, same_text

__all__ = [
    "JOURNAL", "RECORDS", "WORKLOADS", "RecordStore", "Trial", "record_json", "same_target", "trace_hash",
    "workload_hash",
]  # fmt: skip

# Of each workload, the best so many make a database: a search begins with some tens of them, a library needs one.
BEST_OF_EACH = 256
# A search of fewer trials is on average worse than the shipped record (docs/fused-operators.md, by strategies.py): its
# own records then come second to a shipped one that was never tried beside them.
PROVEN = 32


class Row(NamedTuple):
    """A record and what its time depends on."""

    setting: Setting
    workload: str
    record: ms.database.TuningRecord


class Recalled(NamedTuple):
    """A trial that an earlier run of the same search has made, and the samples of its time; none where it failed."""

    trial: Trial
    seconds: tuple[float, ...]


class Shipped(NamedTuple):
    """A shipped record whose workload is at hand; ``same_target`` where it is for the store's own."""

    trial: Trial
    record: ms.database.TuningRecord
    same_target: bool

    @property
    def competes(self) -> bool:
        """Whether its time means something here: a model's for the same code does, another machine's clock does not."""
        return self.same_target and self.trial.kind == MODELLED


Ranked = list[tuple[RecordFolder, Entry]]  # the records of a workload, the fastest first


@dataclass
class RecordStore:
    """The records of one folder for one target. Lines that cannot be read are skipped, reported and left in place.

    ``shipped`` names a second folder that is read as well, but never written. Its records are for ``shipped_target``
    if that is given: a schedule made for one CPU is right on another of the same vectors, and its tiles a good guess,
    but its time means nothing there, nor does what another machine's clock has measured. Such a record competes once a
    search has tried it here, as each does first. Until then it serves workloads that have no record of their own on
    the clock at hand, or one that fewer than ``PROVEN`` trials have found. In either folder records must be for exactly
    the folder's target.
    """

    folder: Path
    target: tvm.target.Target
    shipped: Path | None = None
    shipped_target: tvm.target.Target | None = None

    def __post_init__(self) -> None:
        self._own = RecordFolder(self.folder)
        self.folder = self._own.path
        self._own_trials = set(self._own.trials)  # written by this run, or before it
        self._lent: RecordFolder | None = None
        self._best: dict[str, list[Best]] = {}  # shipped records by workload, until somebody comes with it
        self._numbers: dict[int, int] = {}  # of their lines, by the identity of each
        self._met: dict[str, list[Shipped]] = {}
        self._skipped: list[Skipped] = []
        self._shipped_elsewhere = self._own_elsewhere = 0
        self._own_best: set[Trial] = set()  # of the folder's own shipped records
        self._refused: Counter[str] = Counter()  # shipped records of other TVM versions
        self._matches: dict[str, bool] = {}
        self._hidden: set[Trial] = set()
        self._recallable: dict[tuple[str, str], tuple[Trial, Entry | None]] = {}  # hidden, and not asked for yet
        self._target_hash = target_hash(self.target)
        self._choices: dict[tuple[str, Setting], Choice] = {}
        self._untried: set[str] = set()  # workloads that a shipped record serves in the place of an own one
        if self.shipped is not None and Path(self.shipped).resolve() != self.folder.resolve():
            if not self._borrowed:
                self._lent = RecordFolder(self.shipped)
            self._read_best(Path(self.shipped), self.shipped_target or self.target)
        self._read_best(self.folder, self.target)
        self._read_choices()
        self._refuse_useless()

    def _refuse_useless(self) -> None:
        """Raises RecordMismatch where there are records, and none is for this target and TVM."""
        if not (next(self._entries(), None) or self._best):
            self._refuse(self.other_targets)

    def refuse_useless(self) -> None:
        """Raises RecordMismatch where the folder itself has records, and none of them is for this target and TVM."""
        usable = any(folder is self._own for folder, _ in self._entries())
        if usable or any(line.trial in self._own_best for lines in self._best.values() for line in lines):
            return
        self._refuse(sum(not self._is_ours(entry.target) for entry in self._own.entries.values()) + self._own_elsewhere)

    def _refuse(self, others: int) -> None:
        """For ``others`` of another target, or because all that there are are of another TVM."""
        if others:
            raise RecordMismatch(
                f"the {others} records in {self.folder} are not for this target",
                "they were tuned for another machine, or TVM described it otherwise",
                "name another --records folder, or tune again into an empty one",
            )
        if self.other_versions and (self._own.entries or (self.folder / BEST).exists()):
            raise RecordMismatch(
                f"the records in {self.folder} are of TVM {_listed(self.other_versions)}, this is {TVM_VERSION}",
                "schedules and times of one TVM mean nothing to another",
                f"tvm-shufflenet tune ... --records {self.folder}-{TVM_VERSION}, or use them with their own TVM",
            )

    @property
    def _folders(self) -> list[RecordFolder]:
        return [self._lent, self._own] if self._lent else [self._own]

    @property
    def skipped(self) -> list[Skipped]:
        """Lines that could not be used."""
        return [line for folder in self._folders for line in folder.skipped] + self._skipped

    @property
    def notes(self) -> list[str]:
        """What the user should know of the folder, and of what was chosen from it."""
        if not self._untried:
            return self._own.notes
        count = len(self._untried)
        note = (
            f"{counted(count, 'operator')} by shipped records: {self.folder} has fewer than {PROVEN} "
            "trials of each, and none of what is shipped; tune again to have them compared"
        )
        return [*self._own.notes, note]

    @property
    def refusal(self) -> str | None:
        """Which records are left out for their TVM, beside others that are used; None where there are none."""
        if not self.other_versions:
            return None
        where = self.folder if self._own.entries or self.shipped is None else self.shipped
        return (
            f"left out: {self.other_versions.total()} records in {where} are of TVM {_listed(self.other_versions)}, "
            f"this is {TVM_VERSION}; tune again to have them anew"
        )

    @property
    def other_targets(self) -> int:
        """How many records are for another target."""
        entries = (entry for folder in self._folders for entry in folder.entries.values())
        return self._shipped_elsewhere + sum(not self._is_ours(entry.target) for entry in entries)

    @property
    def other_versions(self) -> Counter[str]:
        """How many records are of another TVM, by its version. None of them is used."""
        entries = (entry for folder in self._folders for entry in folder.entries.values())
        return self._refused + Counter(entry.trial.tvm for entry in entries if not same_version(entry.trial.tvm))

    def _is_ours(self, target: str) -> bool:
        if target not in self._matches:
            self._matches[target] = _is_target(json.loads(target), self.target)
        return self._matches[target]

    def _entries(self) -> Iterator[tuple[RecordFolder, Entry]]:
        """The records of this target and TVM, and where each is from."""
        for folder in self._folders:
            for entry in folder.entries.values():
                if self._counts(entry.trial) and self._is_ours(entry.target):
                    yield folder, entry

    def _counts(self, trial: Trial) -> bool:
        return same_version(trial.tvm) and trial not in self._hidden

    @property
    def _borrowed(self) -> bool:
        return self.shipped_target is not None and not same_target(self.shipped_target, self.target)

    @property
    def sources(self) -> str:
        """Where the records come from, for people; only folders that hold any are named."""
        own = str(self.folder) if self._own.entries or (self.folder / BEST).exists() else None
        lent = self.shipped is not None and self._best and Path(self.shipped).resolve() != self.folder.resolve()
        if not lent:
            return own or "the templates' defaults"
        shipped = f"the records shipped for {(self.shipped_target or self.target).attrs['mcpu']}"
        return f"{own}, else by {shipped}" if own else shipped

    def _read_best(self, folder: Path, target: tvm.target.Target) -> None:
        """Add a folder's shipped records, which must be for ``target``."""
        matches: dict[str, bool] = {}
        for number, best in read_best(folder):
            if isinstance(best, str):
                self._skipped.append(Skipped(BEST, number, best))
                continue
            key = same_text(best.target)
            if key not in matches:
                matches[key] = _is_target(best.target, target)
            if not matches[key]:
                self._shipped_elsewhere += 1
                self._own_elsewhere += folder == self.folder
            elif not same_version(best.trial.tvm):
                self._refused[best.trial.tvm] += 1
            else:
                self._best.setdefault(best.trial.workload, []).append(best)
                if folder == self.folder:
                    self._own_best.add(best.trial)
                self._numbers[id(best)] = number

    def _read_choices(self) -> None:
        for number, choice in read_choices(self.folder):
            if isinstance(choice, str):
                self._skipped.append(Skipped(CHOICES, number, choice))
            elif choice.target == self._target_hash and same_version(choice.tvm):
                self._choices[choice.network, choice.setting] = choice

    def meet(self, workloads: Iterable[tvm.IRModule]) -> None:
        """Make the shipped records of ``workloads`` usable: they name their workload by its hash alone."""
        for mod in workloads:
            shash = workload_hash(mod)
            if shash in self._best and shash not in self._met:
                self._met[shash] = [met for best in self._best[shash] if (met := self._shipped_record(best, mod))]

    def _shipped_record(self, best: Best, mod: tvm.IRModule) -> Shipped | None:
        """The record, None where its line is not what TVM wrote: only TVM knows, and raises errors of many kinds."""
        try:
            record = best.record(mod)
        except Exception as exc:
            self._skipped.append(Skipped(BEST, self._numbers[id(best)], f"not a tuning record: {lines_of(exc)[-1]}"))
            return None
        return Shipped(best.trial, record, same_target(record.target, self.target))

    def setting(self, *preferred: str, threads: int = 1) -> Setting | None:
        """Whose records for ``threads`` a library is built with: two clocks do not compare.

        It is the first of the ``preferred`` clocks that has any; after these, measured times come before modelled ones.
        """
        present = {setting.clock for setting in self._settings() if setting.threads == threads}
        return next((Setting(clock, threads) for clock in self._order(preferred, present) if clock in present), None)

    @staticmethod
    def _order(preferred: Iterable[str], present: Iterable[str]) -> list[str]:
        return [*preferred, MEASURED, *sorted(present)]

    def database(
        self, *preferred: str, threads: int = 1, network: str | None = None, own: bool = True
    ) -> ms.database.MemoryDatabase:
        """The usable records for ``threads`` as a MetaSchedule database, of the clock that ``setting`` says.

        Shipped records of workloads that have been met serve where that leaves none, whatever their clock, and where
        too few trials were made of what is shipped to believe that it is worse. Of a workload of a ``network`` whose
        own time has decided which record serves it, only that one is there. Without ``own``, what is shipped alone:
        ask ``uses_own``.
        """
        setting = self.setting(*preferred, threads=threads)
        choice = self.choice(network, setting) if own and network and setting else None
        rows = self._rows(setting, own) if setting else []
        order = self._order(preferred, {each.clock for each in self._settings()})
        alone = self._stand_ins(rows, setting if own else None, order, threads)
        if own:
            self._untried = set(alone) & {row.workload for row in rows}
        if choice is not None:
            ranked = self._ranked(setting)
            found = {key: self._chosen_row(ranked.get(key, []), choice, key) for key in choice.chosen}
            chosen = {key: row for key, row in found.items() if row is not None}
            alone |= chosen
            self._untried -= set(chosen)
        return _as_database([*(row for row in rows if row.workload not in alone), *alone.values()])

    def uses_own(self, network: str, *preferred: str, threads: int = 1) -> bool:
        """Whether a network is built with the folder's own records: not where its own time has found none better than
        what is shipped."""
        setting = self.setting(*preferred, threads=threads)
        choice = setting and self.choice(network, setting)
        return not (choice and choice.shipped)

    def _chosen_row(self, ranked: Ranked, choice: Choice, workload: str) -> Row | None:
        """None where a record has come since that is faster by itself, or the one that was chosen has gone."""
        if not ranked or ranked[0][1].trial.trace != choice.fastest.get(workload):
            return None
        return self._row_of(ranked, choice.chosen[workload])

    @staticmethod
    def _row_of(ranked: Ranked, trace: str) -> Row | None:
        for folder, entry in ranked:
            if entry.trial.trace == trace and (record := folder.usable(entry)) is not None:
                return Row(entry.trial.setting, entry.trial.workload, record)
        return None

    def assigned(self, chosen: Mapping[str, str], setting: Setting) -> ms.database.MemoryDatabase:
        """For each workload the record of that trace alone; for others that have been met, what is shipped."""
        ranked = self._ranked(setting)
        rows = {key: self._row_of(ranked.get(key, []), trace) for key, trace in chosen.items()}
        found = {key: row for key, row in rows.items() if row is not None}
        alone = self._stand_ins(list(found.values()), None, self._order([setting.clock], []), setting.threads)
        return _as_database([*found.values(), *(row for key, row in alone.items() if key not in found)])

    def fastest(self, setting: Setting) -> dict[str, list[Trial]]:
        """The trials of each workload whose records the folder has, the fastest first."""
        return {key: [entry.trial for _, entry in ranked] for key, ranked in self._ranked(setting).items()}

    def shipped_traces(self, clock: str, threads: int = 1) -> dict[str, str]:
        """The schedule that is shipped for each workload met, as the hash of its trace."""
        order = self._order([clock], [])
        alone = self._stand_ins([], None, order, threads)
        return {key: trace_hash(row.record.trace) for key, row in alone.items()}

    def choice(self, network: str, setting: Setting) -> Choice | None:
        """What the network's own time has decided. One for what is shipped holds until a faster record comes."""
        found = self._choices.get((network, setting))
        if found is not None and found.shipped and found.fastest != self._fastest_of(found):
            return None
        return found

    def _fastest_of(self, choice: Choice) -> dict[str, str]:
        """As in ``choice.fastest``, now."""
        now = self.fastest(choice.setting)
        return {key: now[key][0].trace for key in choice.fastest if key in now}

    def is_decided(self, network: str, setting: Setting, workloads: Iterable[str]) -> bool:
        """Whether the network's own time has decided among the records that the folder has now."""
        found, now = self._choices.get((network, setting)), self.fastest(setting)
        return found is not None and found.fastest == {key: now[key][0].trace for key in workloads if key in now}

    def choose(self, choice: Choice) -> None:
        """Write a decision of a network's own time; on disk when this returns. Raises BadInput."""
        choice = msgspec.structs.replace(choice, target=self._target_hash, tvm=TVM_VERSION)
        with self._own.ours():
            write_choice(self.folder, choice)
        self._choices[choice.network, choice.setting] = choice

    def database_of(self, clock: str, threads: int = 1) -> ms.database.MemoryDatabase:
        """The records of one clock and number of threads alone, perhaps none: what a search may learn from."""
        return _as_database(self._rows(Setting(clock, threads)))

    def stand_in(self, workload: tvm.IRModule, clock: str, threads: int = 1) -> ms.database.TuningRecord | None:
        """The shipped record of a workload: where a search begins. One of the same clock comes first."""
        self.meet([workload])
        row = self._shipped_row(workload_hash(workload), self._order([clock], []), threads)
        return row and row.record

    def best(self, clock: str, threads: int = 1) -> list[Best]:
        """The best record of each workload as a line to ship."""
        return [self._as_best(*ranked[0]) for ranked in self._ranked(Setting(clock, threads)).values()]

    def _as_best(self, folder: RecordFolder, entry: Entry) -> Best:
        trace, _, target, _ = entry.place.body()
        arguments = tuple(argument_shapes(folder.workload(entry).mod))
        trial = msgspec.structs.replace(entry.trial, target=None, record=None, search=None)
        return Best(trial, target, trace, arguments)

    def neighbours(self, threads: int = 1, own: bool = True) -> list[Neighbour]:
        """The best records of all workloads that say for what shapes they are, whatever their clock; own ones first."""
        clocks = sorted({entry.trial.clock for _, entry in self._entries()}) if own else []
        found = [best for clock in clocks for best in self.best(clock, threads)]
        shipped = [best for lines in self._best.values() for best in lines if best.trial.threads == threads]
        return [best.neighbour() for best in (*found, *shipped) if best.arguments]

    def _settings(self) -> set[Setting]:
        """Those of all records that compete by their times."""
        shipped = {each.trial.setting for found in self._met.values() for each in found if each.competes}
        return shipped | {entry.trial.setting for _, entry in self._entries()}

    def _ranked(self, setting: Setting) -> dict[str, Ranked]:
        """The folders' records of one setting by workload, the fastest first."""
        found: dict[str, list[tuple[RecordFolder, Entry]]] = {}
        for folder, entry in self._entries():
            if entry.trial.setting == setting:
                found.setdefault(entry.trial.workload, []).append((folder, entry))
        return {shash: sorted(rows, key=lambda row: row[1].trial.seconds) for shash, rows in found.items()}

    def _rows(self, setting: Setting, own: bool = True) -> list[Row]:
        """All of one setting that compete by their times, but for those that many others beat."""
        rows = []
        for shash, ranked in self._ranked(setting).items() if own else ():
            records = (folder.usable(entry) for folder, entry in ranked[:BEST_OF_EACH])
            rows += [Row(setting, shash, record) for record in records if record is not None]
        shipped = [each for found in self._met.values() for each in found if each.competes]
        return rows + [
            Row(setting, each.trial.workload, each.record) for each in shipped if each.trial.setting == setting
        ]

    def _stand_ins(
        self, rows: Iterable[Row], setting: Setting | None, clocks: list[str], threads: int
    ) -> dict[str, Row]:
        """A shipped record for each workload met that has no row, or rows that prove little in ``setting``."""
        served, made = {row.workload for row in rows}, self._made(setting) if setting else {}
        found = {}
        for workload in self._met:
            row = self._shipped_row(workload, clocks, threads)
            if row is not None and (workload not in served or self._outweighs(row, setting, made)):
                found[workload] = row
        return found

    def _shipped_row(self, workload: str, clocks: list[str], threads: int) -> Row | None:
        """The shipped record of a workload met, of the first of the ``clocks``."""
        rank = {clock: number for number, clock in reversed(list(enumerate(clocks)))}
        usable = [each for each in self._met.get(workload, []) if each.trial.threads == threads]
        best = min(usable, key=lambda each: rank.get(each.trial.clock, len(rank)), default=None)
        return best and Row(best.trial.setting, workload, best.record)

    def _made(self, setting: Setting) -> dict[str, list[Trial]]:
        """The finished trials of one setting by workload."""
        found: dict[str, list[Trial]] = {}
        for folder in self._folders:
            for trial in self._finished(folder):
                if trial.setting == setting:
                    found.setdefault(trial.workload, []).append(trial)
        return found

    def _outweighs(self, shipped: Row, setting: Setting | None, trials: Mapping[str, list[Trial]]) -> bool:
        """Whether a shipped record serves though there are own ones: few trials found them, and none was of it."""
        met = self._met[shipped.workload]
        if setting is None or any(each.competes and each.trial.setting == setting for each in met):
            return False
        made = trials.get(shipped.workload, [])
        return len(made) < PROVEN and trace_hash(shipped.record.trace) not in {trial.trace for trial in made}

    def trials(self, workload: str, clock: str, threads: int = 1) -> list[Trial]:
        """Finished trials of a workload on one clock; those that a device's failure ended do not count, nor what is
        shipped: that is tried anew."""
        finished = [trial for folder in self._folders for trial in self._finished(folder)]
        return [trial for trial in finished if trial.workload == workload and trial.setting == (clock, threads)]

    def shipped_trials(self, workload: str, clock: str, threads: int = 1) -> list[Trial]:
        """What made the shipped records of a workload, elsewhere."""
        made = (best.trial for best in self._best.get(workload, []))
        return [trial for trial in made if trial.setting == (clock, threads)]

    def _finished(self, folder: RecordFolder) -> Iterator[Trial]:
        for trial in folder.finished(self._is_ours):
            ours = trial.target in (None, self._target_hash) and self._counts(trial)
            if ours and trial.cause not in (Cause.DEVICE.value, Cause.TIMEOUT.value):
                yield trial

    def hide(self, search: str | None) -> None:
        """Behave as if the trials that ``search`` has made were not there, until each is recalled and shown; with None,
        hide nothing any more.
        """
        self._hidden = set()
        made = {trial for trial in self._finished(self._own) if search and trial.search == search}
        self._hidden = made
        self._recallable = {(trial.workload, trial.trace): (trial, None) for trial in made}
        for entry in self._own.entries.values():
            if entry.trial in made:
                self._recallable[entry.trial.workload, entry.trial.trace] = entry.trial, entry

    def recall(self, workload: str, trace: str) -> Recalled | None:
        """What is known of a hidden trial. It stays hidden until it is shown."""
        trial, entry = self._recallable.pop((workload, trace), (None, None))
        if trial is None:
            return None
        return Recalled(trial, tuple(entry.place.body()[1]) if entry else (trial.seconds,) if trial.seconds else ())

    def show(self, trial: Trial) -> None:
        self._hidden.discard(trial)

    def reveal(self) -> list[tuple[Trial, ms.database.TuningRecord | None]]:
        """Show the trials that were hidden and not recalled; returns them with their records, if they are of use."""
        left = [(trial, entry and self._own.usable(entry)) for trial, entry in self._recallable.values()]
        self._recallable = {}
        self._hidden.difference_update(trial for trial, _ in left)
        return left

    def catch_up(self) -> None:
        """Take in what other runs have written to the folder since."""
        self._own.read()

    def journal(self, workload: str, setting: Setting) -> list[Trial]:
        """Trials of a workload in the order in which this folder's own searches made them; nothing that was shipped."""
        return [trial for trial in self._own.trials if trial.workload == workload and trial.setting == setting]

    def prepare(self) -> None:
        """Make sure that trials can be written, before any is made; see ``notes`` then. Raises BadInput."""
        with self._own.ours(), writing(self.folder):
            tempfile.TemporaryFile(dir=self.folder).close()
            for path in self._own.files():
                if path.exists() and not os.access(path, os.W_OK, effective_ids=True):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def append(self, trial: Trial, record: ms.database.TuningRecord | None, mod: tvm.IRModule) -> None:
        """Write one trial, and its record if it succeeded; both are on disk when this returns. Raises BadInput.

        A trial that another run has made since this one looked is not written twice.
        """
        target = self.target if record is None else record.target
        trial = msgspec.structs.replace(trial, target=target_hash(target))
        with self._own.ours():
            if self._made_by_another_run(trial):
                return
            body = None if record is None else record_json(record)
            self._own_trials.add(self._own.write(trial, body, mod))

    def _made_by_another_run(self, trial: Trial) -> bool:
        others = self._own.trials.keys() - self._own_trials
        if not others:  # as nearly always; to look through all trials takes longer the more there are
            return False
        made = {each.trace for each in self.trials(trial.workload, *trial.setting) if each in others}
        return trial.trace in made


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions))


def same_version(version: str) -> bool:
    """Whether that TVM's schedules and times are this one's too: patch releases change neither."""
    return version.split(".")[:2] == TVM_VERSION.split(".")[:2]


def _is_target(written, target: tvm.target.Target) -> bool:
    """Whether a record's target is ``target``. Of one that this TVM does not know it raises errors of many kinds."""
    try:
        return is_cpu(written) and same_target(tvm.target.Target(written), target)
    except Exception:
        return False


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
