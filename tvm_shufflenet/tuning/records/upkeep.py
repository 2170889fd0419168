"""Maintains folders of records of any target: list, merge, drop useless records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from tvm.s_tir import Schedule

from ...errors import BadInput, lines_of
from ...graph.tasks import argument_shapes
from ...schedules.admitted import check_straight
from ...text import clean
from .choices import CHOICES, Choice, read_choices, write_choice
from .folder import JOURNAL, RECORDS, WORKLOADS, Entry, RecordFolder, Skipped
from .journal import PRUNED, Damaged, Newer, Trial, decode, encode
from .lines import Stream, locked, replace_lines
from .shipped import BEST, Best, read_best


class Group(msgspec.Struct, frozen=True):
    """Records that compete by their times: of one ``target``, clock, number of threads and TVM."""

    target: str
    clock: str
    threads: int
    tvm: str
    workloads: int
    records: int


class Fastest(msgspec.Struct, frozen=True):
    """The best record of a workload in one setting; ``arguments`` are shape and dtype of each tensor."""

    target: str
    clock: str
    threads: int
    tvm: str
    workload: str
    seconds: float
    arguments: tuple


class Changes(msgspec.Struct, frozen=True):
    """What was written or dropped."""

    records: int
    trials: int
    lines: int = 0


def open_folder(path: Path) -> RecordFolder:
    """Raises BadInput where there is none."""
    if not path.is_dir():
        raise BadInput(f"there is no folder {path}", "", "name a folder of records, such as tuning_logs/<target>")
    return RecordFolder(path)


def summary(folder: RecordFolder) -> list[Group]:
    """What the folder's records are for, shipped ones included."""
    records: Counter[tuple] = Counter()
    workloads: dict[tuple, set[str]] = {}
    for trial, target in _recorded(folder):
        key = (_target_name(target), *trial.setting, trial.tvm)
        records[key] += 1
        workloads.setdefault(key, set()).add(trial.workload)
    return [Group(*key, len(workloads[key]), count) for key, count in sorted(records.items())]


def failures(folder: RecordFolder) -> Counter[str]:
    """How many trials failed, by cause."""
    return Counter(trial.cause or "unknown" for trial in folder.trials if trial.seconds is None)


def fastest(folder: RecordFolder) -> list[Fastest]:
    """The best record of each workload in each setting, shipped ones included, the slowest workload first."""
    found: dict[tuple, Fastest] = {}
    candidates = [(e.trial, json.loads(e.target), None) for e in folder.entries.values()]
    candidates += [(best.trial, best.target, best.arguments) for best in _shipped(folder)]
    for trial, target, arguments in candidates:
        key = (_target_name(target), *trial.setting, trial.tvm, trial.workload)
        if key not in found or trial.seconds < found[key].seconds:
            if arguments is None:
                arguments = tuple(argument_shapes(folder.workloads[trial.workload].mod))
            found[key] = Fastest(*key, trial.seconds, tuple(arguments))
    return sorted(found.values(), key=lambda each: (each.target, each.clock, each.threads, -each.seconds))


def _recorded(folder: RecordFolder) -> Iterator[tuple[Trial, dict]]:
    for entry in folder.entries.values():
        yield entry.trial, json.loads(entry.target)
    for best in _shipped(folder):
        yield best.trial, best.target


def _shipped(folder: RecordFolder) -> Iterator[Best]:
    return (best for _, best in read_best(folder.path) if isinstance(best, Best))


def _target_name(target: dict) -> str:
    """For people: triple, CPU and features."""
    features = " ".join(map(str, target.get("mattr") or ()))
    return clean(" ".join(filter(None, (str(target.get("mtriple", "?")), str(target.get("mcpu", "?")), features))))


def merge(sources: Iterable[Path], into: Path) -> Changes:
    """Add what the sources hold and ``into`` does not. Sources are only read; run again, it adds what is missing.

    Best records that are shipped (best.jsonl) stay where they are.
    """
    folders = [open_folder(path) for path in sources]
    if any(folder.path.resolve() == into.resolve() for folder in folders):
        raise BadInput(f"{into} is among the folders to merge", "", "name another folder after --into")
    result, records, trials = RecordFolder(into), 0, 0
    for folder in folders:
        for entry in folder.entries.values():
            with result.ours():
                if entry.key not in result.entries:
                    result.write(entry.trial, entry.line.body(), folder.workload(entry).mod)
                    records += 1
        for trial in folder.trials:
            if trial.needs_no_record:
                with result.ours():
                    if trial not in result.trials:
                        result.write(trial, None, None)
                        trials += 1
        _merge_choices(folder.path, into)
    return Changes(records, trials)


def _choices(folder: Path) -> list[Choice]:
    return [choice for _, choice in read_choices(folder) if isinstance(choice, Choice)]


def _merge_choices(source: Path, into: Path) -> None:
    """Append what ``into`` has not. A decision says itself among which records it was made."""
    known = _choices(into)
    for choice in _choices(source):
        if choice not in known:
            with locked(into):
                write_choice(into, choice)


def prune(path: Path, keep: int | None = None) -> Changes:
    """Drop damaged lines, duplicates and, of each workload and setting, all but the ``keep`` fastest records
    and those that a network's own time has chosen.

    The trials of records that are dropped stay known as done. What was there is kept under names with a tilde. Raises
    BadInput where a newer version has written to the folder, whose lines this one cannot judge.
    """
    folder = open_folder(path)
    with folder.ours():
        kept = _kept(folder, keep)
        places = {entry.line.offset for entry in kept.values()}
        journal, workloads = _Pruned(folder, kept), _Mended(folder)
        dropped = sum(line.offset not in places for line in Stream(path / RECORDS).fresh())
        trials, broken, mended = *journal.counted(), workloads.counted()
        records = (line.data for line in Stream(path / RECORDS).fresh() if line.offset in places)
        # Each file alone leaves the folder consistent: the journal's lines decide what counts, and no workload moves.
        for name, content, changed in (
            (JOURNAL, journal.lines(), trials or broken),
            (RECORDS, records, dropped),
            (WORKLOADS, workloads.lines(), mended),
        ):
            if changed:
                replace_lines(path / name, content)
    damaged = {(line.file, line.number) for line in folder.skipped if line.file == RECORDS}
    return Changes(dropped - len(damaged), trials, broken + len(damaged) + mended)


def _kept(folder: RecordFolder, keep: int | None) -> dict[tuple, Entry]:
    ranked: dict[tuple, list[Entry]] = {}
    for entry in folder.entries.values():
        trial = entry.trial
        ranked.setdefault((trial.workload, trial.setting, trial.tvm, entry.target), []).append(entry)
    chosen = {pair for choice in _choices(folder.path) for pair in choice.chosen.items()}
    kept = []
    for entries in ranked.values():
        entries.sort(key=lambda entry: entry.trial.seconds)
        named = (entry for entry in entries[keep:] if (entry.trial.workload, entry.trial.trace) in chosen)
        kept += [*entries[:keep], *(named if keep else ())]
    return {entry.key: entry for entry in kept}


class _Pruned:
    """The journal without duplicates, halves and damaged lines. It is read twice rather than kept in memory."""

    def __init__(self, folder: RecordFolder, kept: dict[tuple, Entry]):
        self._path = folder.path
        self._recorded = {key[:-1] for key in kept}
        self._all_recorded = {key[:-1] for key in folder.entries}

    def counted(self) -> tuple[int, int]:
        """How many trials are dropped, and how many lines are damaged. Raises BadInput."""
        counts = Counter(type(each) for each in self._judged())
        return counts[Trial], counts[Damaged]

    def lines(self) -> Iterator[bytes]:
        return (each for each in self._judged() if isinstance(each, bytes))

    def _judged(self) -> Iterator[bytes | Trial | Damaged]:
        """A line that stays, the trial of one that does not, or what is wrong with it."""
        seen = set()
        for line in Stream(self._path / JOURNAL).fresh():
            try:
                trial = decode(line.data)
            except Newer as exc:
                raise BadInput(
                    f"{self._path} is not pruned", f"{JOURNAL}, line {line.number}: {exc}", "update tvm-shufflenet"
                ) from exc
            except Damaged as exc:
                yield exc
                continue
            if trial in seen or not (trial.needs_no_record or trial.record_key in self._all_recorded):
                yield trial
                continue
            seen.add(trial)
            done = trial.needs_no_record or trial.record_key in self._recorded
            yield line.data if done else encode(msgspec.structs.replace(trial, record=PRUNED))


class _Mended:
    """The workloads, with a good line in the place of each damaged one: records name them by their numbers."""

    def __init__(self, folder: RecordFolder):
        self._path, self._good = folder.path / WORKLOADS, folder.hashes

    def counted(self) -> int:
        """How many lines are damaged."""
        return sum(line.number - 1 not in self._good for line in Stream(self._path).fresh())

    def lines(self) -> Iterator[bytes]:
        first = next((line.data for line in Stream(self._path).fresh() if line.number - 1 in self._good), None)
        if first is None:
            return iter(())
        return (line.data if line.number - 1 in self._good else first for line in Stream(self._path).fresh())


def verify(folder: RecordFolder, on_progress: Callable[[int, int], None] = lambda done, total: None) -> list[Skipped]:
    """Every line that is damaged, and every record whose schedule this TVM cannot apply to its workload.

    ``on_progress`` is called with how many schedules were applied, of how many.
    """
    for done, entry in enumerate(folder.entries.values()):
        on_progress(done, len(folder.entries))
        try:
            record = folder.record(entry)
            schedule = Schedule(record.workload.mod)
            record.trace.apply_to_schedule(schedule, remove_postproc=False)
            check_straight(schedule.mod["main"])
        except Exception as exc:
            folder.skip(RECORDS, entry.line.number, f"its schedule does not apply: {lines_of(exc)[-1]}")
    for name, read in ((BEST, read_best), (CHOICES, read_choices)):
        for number, found in read(folder.path):
            if isinstance(found, str):
                folder.skip(name, number, found)
    return folder.skipped
