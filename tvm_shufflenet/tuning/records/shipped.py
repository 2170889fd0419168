"""The records that are shipped: the best of each workload, one line each, a few hundred workloads in a megabyte.

A workload as TVM writes it takes 70 KB, its best schedule 2: so a line names its workload by MetaSchedule's structural
hash alone, and is used once somebody comes with a workload of that hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ...library.serial import TraceJson, record_of
from ...schedules.admitted import NotAdmitted, check_trace
from ...schedules.nearest import Neighbour
from ...support.files import replacing
from .journal import Damaged, Trial, parse
from .lines import Stream

BEST = "best.jsonl"


class Best(msgspec.Struct, frozen=True):
    """One line: the trial as in the journal, the target that it ran on, and the schedule as TVM's JSON.

    ``arguments`` are shape and dtype of each tensor of the workload, so that one nearly the same can go by it; empty in
    lines from before they were written.
    """

    trial: Trial
    target: dict[str, Any]
    trace: TraceJson
    arguments: tuple[tuple[tuple[Annotated[int, msgspec.Meta(ge=1)], ...], str], ...] = ()

    def __post_init__(self) -> None:
        if self.trial.seconds is None:
            raise ValueError("a shipped record without its time")

    def neighbour(self) -> Neighbour:
        return Neighbour(self.arguments, self.trace, str(self.target.get("mcpu")))

    def record(self, mod: tvm.IRModule) -> ms.database.TuningRecord:
        """The record, for the workload whose hash it names."""
        arguments = [info.as_json() for info in ms.arg_info.ArgInfo.from_prim_func(mod["main"])]
        body = [self.trace, [self.trial.seconds], self.target, arguments]
        return record_of(body, ms.database.Workload(mod))


def write_best(folder: Path, lines: Iterable[Best]) -> Path:
    """Replace a folder's shipped records, in the order of their hashes so that a change shows as few lines."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / BEST
    ordered = sorted(lines, key=lambda best: int(best.trial.workload))
    with replacing(path) as file:
        file.writelines(msgspec.json.encode(best) + b"\n" for best in ordered)
    return path


def read_best(folder: Path) -> Iterator[tuple[int, Best | str]]:
    """Number and content of each line of a folder's shipped records, or what is wrong with it."""
    for line in Stream(folder / BEST).fresh():
        try:
            best = msgspec.convert(parse(line.data), Best)
            check_trace(best.trace)
            yield line.number, best
        except (Damaged, NotAdmitted, msgspec.ValidationError) as exc:
            yield line.number, str(exc)


def same_text(value) -> str:
    """A key for JSON values that are equal."""
    return json.dumps(value, sort_keys=True)
