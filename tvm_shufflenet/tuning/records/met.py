"""Shipped records, looked up by the hash of a workload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import tvm
from tvm.s_tir import meta_schedule as ms

from ...errors import lines_of
from ...latency import MODELLED
from ...library.serial import same_target, workload_hash
from .folder import Skipped
from .journal import Setting, Trial
from .matching import TargetMatch, same_version
from .shipped import BEST, Best, read_best, same_text
from .timed import TimedRecord


class Shipped(NamedTuple):
    """A shipped record whose workload is at hand; ``same_target`` where it is for the target at hand."""

    trial: Trial
    record: ms.database.TuningRecord
    same_target: bool

    @property
    def competes(self) -> bool:
        """Whether its time means something here: a model's for the same code does, another machine's clock does not."""
        return self.same_target and self.trial.kind == MODELLED


class ShippedRecords:
    """The shipped records of folders, for ``target`` or one whose records serve it.

    ``lines`` are those of this TVM by workload; of other TVMs ``refused`` counts them by version, and ``elsewhere`` is
    how many are for other targets. ``skipped`` are lines that could not be used.
    """

    def __init__(self, target: tvm.target.Target):
        self._target = target
        self.lines: dict[str, list[Best]] = {}
        self._numbers: dict[int, int] = {}  # of the lines, by the identity of each
        self._met: dict[str, list[Shipped]] = {}
        self.skipped: list[Skipped] = []
        self.refused: Counter[str] = Counter()
        self.elsewhere = 0

    def read(self, folder: Path, target: tvm.target.Target) -> tuple[int, int]:
        """Add a folder's, which must be for ``target``: how many are usable, and how many for another one."""
        is_ours, usable, before = TargetMatch(target), 0, self.elsewhere
        for number, best in read_best(folder):
            if isinstance(best, str):
                self.skipped.append(Skipped(BEST, number, best))
            elif not is_ours(same_text(best.target)):
                self.elsewhere += 1
            elif not same_version(best.trial.tvm):
                self.refused[best.trial.tvm] += 1
            else:
                self.lines.setdefault(best.trial.workload, []).append(best)
                self._numbers[id(best)] = number
                usable += 1
        return usable, self.elsewhere - before

    def meet(self, workloads: Iterable[tvm.IRModule]) -> None:
        """Make the records of ``workloads`` usable."""
        for mod in workloads:
            shash = workload_hash(mod)
            if shash in self.lines and shash not in self._met:
                self._met[shash] = [met for best in self.lines[shash] if (met := self._shipped(best, mod))]

    def _shipped(self, best: Best, mod: tvm.IRModule) -> Shipped | None:
        """None where its line is not what TVM wrote: only TVM knows, and raises errors of many kinds."""
        try:
            record = best.record(mod)
        except Exception as exc:
            self.skipped.append(Skipped(BEST, self._numbers[id(best)], f"not a tuning record: {lines_of(exc)[-1]}"))
            return None
        return Shipped(best.trial, record, same_target(record.target, self._target))

    @property
    def met(self) -> Iterable[str]:
        """The workloads met, by their hashes."""
        return self._met.keys()

    def competing(self) -> list[TimedRecord]:
        """Those that compete by their times with records that were made here."""
        found = (each for records in self._met.values() for each in records if each.competes)
        return [TimedRecord(each.trial.setting, each.trial.workload, each.record) for each in found]

    def competes(self, workload: str, setting: Setting) -> bool:
        """Whether any of a workload met does, in ``setting``."""
        return any(each.competes and each.trial.setting == setting for each in self._met[workload])

    def row(self, workload: str, clocks: list[str], threads: int) -> TimedRecord | None:
        """The record of a workload met, of the first of the ``clocks``."""
        rank = {clock: number for number, clock in reversed(list(enumerate(clocks)))}
        usable = [each for each in self._met.get(workload, []) if each.trial.threads == threads]
        best = min(usable, key=lambda each: rank.get(each.trial.clock, len(rank)), default=None)
        return best and TimedRecord(best.trial.setting, workload, best.record)
