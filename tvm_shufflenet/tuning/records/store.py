"""Tuning records for one target, as a search and a build use them.

They are kept in a folder (folder.py says how), and a second one may lend the records that are shipped (shipped.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ...graph.tasks import argument_shapes
from ...latency import MEASURED
from ...library.serial import record_json, same_target, target_hash, trace_hash, workload_hash
from ...schedules.nearest import Neighbour
from ...text import counted
from ..measuring.trial import Cause
from .choices import Choice, Choices
from .earlier import EarlierRun
from .folder import JOURNAL, RECORDS, WORKLOADS, Entry, RecordFolder, Skipped
from .journal import Setting, Trial
from .matching import TargetMatch, left_out, refuse, same_version
from .met import ShippedRecords
from .shipped import BEST, Best
from .timed import TimedRecord, as_database

__all__ = [
    "JOURNAL", "RECORDS", "WORKLOADS", "RecordStore", "Trial", "record_json", "trace_hash", "workload_hash",
]  # fmt: skip

# Of each workload, the best so many make a database: a search begins with some tens of them, a library needs one.
BEST_OF_EACH = 256
# A search of fewer trials is on average worse than the shipped record (docs/fused-operators.md, by strategies.py): its
# own records then come second to a shipped one that was never tried beside them.
PROVEN = 32


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
        self._is_ours = TargetMatch(self.target)
        self._lent: RecordFolder | None = None
        self._shipped = ShippedRecords(self.target)
        self._earlier = EarlierRun(self._own)
        self._target_hash = target_hash(self.target)
        self._untried: set[str] = set()  # workloads that a shipped record serves in the place of an own one
        if self._lends:
            if self.shipped_target is None or same_target(self.shipped_target, self.target):
                self._lent = RecordFolder(self.shipped)
            self._shipped.read(Path(self.shipped), self.shipped_target or self.target)
        self._own_shipped, self._own_elsewhere = self._shipped.read(self.folder, self.target)
        self._choices = Choices(self.folder, self._target_hash)
        self._refuse_useless()

    def _refuse_useless(self) -> None:
        """Raises RecordMismatch where there are records, and none is for this target and TVM."""
        if not (next(self._entries(), None) or self._shipped.lines):
            self._refuse(self.other_targets)

    def refuse_useless(self) -> None:
        """Raises RecordMismatch where the folder itself has records, and none of them is for this target and TVM."""
        if not (self._own_shipped or any(folder is self._own for folder, _ in self._entries())):
            others = sum(not self._is_ours(entry.target) for entry in self._own.entries.values())
            self._refuse(others + self._own_elsewhere)

    def _refuse(self, others: int) -> None:
        """For ``others`` of another target, or because all that there are are of another TVM."""
        there = self._own.entries or (self.folder / BEST).exists()
        refuse(self.folder, others, self.other_versions if there else Counter())

    @property
    def _folders(self) -> list[RecordFolder]:
        return [self._lent, self._own] if self._lent else [self._own]

    @property
    def skipped(self) -> list[Skipped]:
        """Lines that could not be used."""
        found = [line for folder in self._folders for line in folder.skipped]
        return found + self._shipped.skipped + self._choices.skipped

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
        where = self.folder if self._own.entries or self.shipped is None else self.shipped
        return left_out(where, self.other_versions)

    @property
    def other_targets(self) -> int:
        """How many records are for another target."""
        entries = (entry for folder in self._folders for entry in folder.entries.values())
        return self._shipped.elsewhere + sum(not self._is_ours(entry.target) for entry in entries)

    @property
    def other_versions(self) -> Counter[str]:
        """How many records are of another TVM, by its version. None of them is used."""
        entries = (entry for folder in self._folders for entry in folder.entries.values())
        versions = (entry.trial.tvm for entry in entries)
        return self._shipped.refused + Counter(version for version in versions if not same_version(version))

    def _entries(self) -> Iterator[tuple[RecordFolder, Entry]]:
        """The records of this target and TVM, and where each is from."""
        for folder in self._folders:
            for entry in folder.entries.values():
                if self._counts(entry.trial) and self._is_ours(entry.target):
                    yield folder, entry

    def _counts(self, trial: Trial) -> bool:
        return same_version(trial.tvm) and trial not in self._earlier.hidden

    @property
    def _lends(self) -> bool:
        """Whether ``shipped`` is a second folder."""
        return self.shipped is not None and Path(self.shipped).resolve() != self.folder.resolve()

    @property
    def sources(self) -> str:
        """Where the records come from, for people; only folders that hold any are named."""
        own = str(self.folder) if self._own.entries or (self.folder / BEST).exists() else None
        if not (self._lends and self._shipped.lines):
            return own or "the templates' defaults"
        shipped = f"the records shipped for {(self.shipped_target or self.target).attrs['mcpu']}"
        return f"{own}, else by {shipped}" if own else shipped

    def meet(self, workloads: Iterable[tvm.IRModule]) -> None:
        """Make the shipped records of ``workloads`` usable: they name their workload by its hash alone."""
        self._shipped.meet(workloads)

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
        return as_database([*(row for row in rows if row.workload not in alone), *alone.values()])

    def uses_own(self, network: str, *preferred: str, threads: int = 1) -> bool:
        """Whether a network is built with the folder's own records: not where its own time has found none better than
        what is shipped."""
        setting = self.setting(*preferred, threads=threads)
        choice = setting and self.choice(network, setting)
        return not (choice and choice.shipped)

    def _chosen_row(self, ranked: Ranked, choice: Choice, workload: str) -> TimedRecord | None:
        """None where a record has come since that is faster by itself, or the one that was chosen has gone."""
        if not ranked or ranked[0][1].trial.trace != choice.fastest.get(workload):
            return None
        return self._row_of(ranked, choice.chosen[workload])

    @staticmethod
    def _row_of(ranked: Ranked, trace: str) -> TimedRecord | None:
        for folder, entry in ranked:
            if entry.trial.trace == trace and (record := folder.usable(entry)) is not None:
                return TimedRecord(entry.trial.setting, entry.trial.workload, record)
        return None

    def assigned(self, chosen: Mapping[str, str], setting: Setting) -> ms.database.MemoryDatabase:
        """For each workload the record of that trace alone; for others that have been met, what is shipped."""
        ranked = self._ranked(setting)
        rows = {key: self._row_of(ranked.get(key, []), trace) for key, trace in chosen.items()}
        found = {key: row for key, row in rows.items() if row is not None}
        alone = self._stand_ins(list(found.values()), None, self._order([setting.clock], []), setting.threads)
        return as_database([*found.values(), *(row for key, row in alone.items() if key not in found)])

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
        found = self._choices.of(network, setting)
        if found is not None and found.shipped and found.fastest != self._fastest_of(found):
            return None
        return found

    def _fastest_of(self, choice: Choice) -> dict[str, str]:
        """As in ``choice.fastest``, now."""
        now = self.fastest(choice.setting)
        return {key: now[key][0].trace for key in choice.fastest if key in now}

    def is_decided(self, network: str, setting: Setting, workloads: Iterable[str]) -> bool:
        """Whether the network's own time has decided among the records that the folder has now."""
        found, now = self._choices.of(network, setting), self.fastest(setting)
        return found is not None and found.fastest == {key: now[key][0].trace for key in workloads if key in now}

    def choose(self, choice: Choice) -> None:
        """Write a decision of a network's own time; on disk when this returns. Raises BadInput."""
        with self._own.ours():
            self._choices.write(choice)

    def database_of(self, clock: str, threads: int = 1) -> ms.database.MemoryDatabase:
        """The records of one clock and number of threads alone, perhaps none: what a search may learn from."""
        return as_database(self._rows(Setting(clock, threads)))

    def stand_in(self, workload: tvm.IRModule, clock: str, threads: int = 1) -> ms.database.TuningRecord | None:
        """The shipped record of a workload: where a search begins. One of the same clock comes first."""
        self.meet([workload])
        row = self._shipped.row(workload_hash(workload), self._order([clock], []), threads)
        return row and row.record

    def best(self, clock: str, threads: int = 1) -> list[Best]:
        """The best record of each workload as a line to ship."""
        return [self._as_best(*ranked[0]) for ranked in self._ranked(Setting(clock, threads)).values()]

    def _as_best(self, folder: RecordFolder, entry: Entry) -> Best:
        trace, _, target, _ = entry.line.body()
        arguments = tuple(argument_shapes(folder.workload(entry).mod))
        trial = msgspec.structs.replace(entry.trial, target=None, record=None, search=None)
        return Best(trial, target, trace, arguments)

    def neighbours(self, threads: int = 1, own: bool = True) -> list[Neighbour]:
        """The best records of all workloads that say for what shapes they are, whatever their clock; own ones first."""
        clocks = sorted({entry.trial.clock for _, entry in self._entries()}) if own else []
        found = [best for clock in clocks for best in self.best(clock, threads)]
        shipped = [best for lines in self._shipped.lines.values() for best in lines if best.trial.threads == threads]
        return [best.neighbour() for best in (*found, *shipped) if best.arguments]

    def _settings(self) -> set[Setting]:
        """Those of all records that compete by their times."""
        return {row.setting for row in self._shipped.competing()} | {
            entry.trial.setting for _, entry in self._entries()
        }

    def _ranked(self, setting: Setting) -> dict[str, Ranked]:
        """The folders' records of one setting by workload, the fastest first."""
        found: dict[str, list[tuple[RecordFolder, Entry]]] = {}
        for folder, entry in self._entries():
            if entry.trial.setting == setting:
                found.setdefault(entry.trial.workload, []).append((folder, entry))
        return {shash: sorted(rows, key=lambda row: row[1].trial.seconds) for shash, rows in found.items()}

    def _rows(self, setting: Setting, own: bool = True) -> list[TimedRecord]:
        """All of one setting that compete by their times, but for those that many others beat."""
        rows = []
        for shash, ranked in self._ranked(setting).items() if own else ():
            records = (folder.usable(entry) for folder, entry in ranked[:BEST_OF_EACH])
            rows += [TimedRecord(setting, shash, record) for record in records if record is not None]
        return rows + [row for row in self._shipped.competing() if row.setting == setting]

    def _stand_ins(
        self, rows: Iterable[TimedRecord], setting: Setting | None, clocks: list[str], threads: int
    ) -> dict[str, TimedRecord]:
        """A shipped record for each workload met that has no row, or rows that prove little in ``setting``."""
        served, made = {row.workload for row in rows}, self._made(setting) if setting else {}
        found = {}
        for workload in self._shipped.met:
            row = self._shipped.row(workload, clocks, threads)
            if row is not None and (workload not in served or self._outweighs(row, setting, made)):
                found[workload] = row
        return found

    def _made(self, setting: Setting) -> dict[str, list[Trial]]:
        """The finished trials of one setting by workload."""
        found: dict[str, list[Trial]] = {}
        for folder in self._folders:
            for trial in self._finished(folder):
                if trial.setting == setting:
                    found.setdefault(trial.workload, []).append(trial)
        return found

    def _outweighs(self, shipped: TimedRecord, setting: Setting | None, trials: Mapping[str, list[Trial]]) -> bool:
        """Whether a shipped record serves though there are own ones: few trials found them, and none was of it."""
        if setting is None or self._shipped.competes(shipped.workload, setting):
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
        made = (best.trial for best in self._shipped.lines.get(workload, []))
        return [trial for trial in made if trial.setting == (clock, threads)]

    def _finished(self, folder: RecordFolder) -> Iterator[Trial]:
        for trial in folder.finished(self._is_ours):
            ours = trial.target in (None, self._target_hash) and self._counts(trial)
            if ours and trial.cause not in (Cause.DEVICE.value, Cause.TIMEOUT.value):
                yield trial

    def hide(self, search: str | None) -> EarlierRun:
        """Behave as if the trials that ``search`` has made were not there, until each is recalled and shown; with None,
        hide nothing any more.
        """
        self._earlier = EarlierRun(self._own)
        made = {trial for trial in self._finished(self._own) if search and trial.search == search}
        self._earlier = EarlierRun(self._own, made)
        return self._earlier

    def catch_up(self) -> None:
        """Take in what other runs have written to the folder since."""
        self._own.read()

    def journal(self, workload: str, setting: Setting) -> list[Trial]:
        """Trials of a workload in the order in which this folder's own searches made them; nothing that was shipped."""
        return [trial for trial in self._own.trials if trial.workload == workload and trial.setting == setting]

    def prepare(self) -> None:
        """Make sure that trials can be written, before any is made; see ``notes`` then. Raises BadInput."""
        self._own.prepare()

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
