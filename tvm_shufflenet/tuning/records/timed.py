"""Records with the conditions of their times, and the database that MetaSchedule reads them from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tvm.s_tir import meta_schedule as ms

from .journal import Setting


class TimedRecord(NamedTuple):
    """A record and what its time depends on."""

    setting: Setting
    workload: str
    record: ms.database.TuningRecord


def as_database(rows: Iterable[TimedRecord]) -> ms.database.MemoryDatabase:
    database = ms.database.MemoryDatabase()
    workloads: dict[str, ms.database.Workload] = {}  # to commit one means to compare it with all others
    for _, shash, record in rows:
        if shash not in workloads:
            workloads[shash] = database.commit_workload(record.workload.mod)
        database.commit_tuning_record(
            ms.database.TuningRecord(record.trace, workloads[shash], record.run_secs, record.target, record.args_info)
        )
    return database
