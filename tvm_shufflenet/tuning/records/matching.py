"""Checks that a record was made with the current TVM and target, and explains mismatches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import tvm

from ...errors import RecordMismatch
from ...hardware.targets import is_cpu
from ...library.serial import same_target
from ...support.toolchain import TVM_VERSION


def same_version(version: str) -> bool:
    """Whether that TVM's schedules and times are this one's too: patch releases change neither."""
    return version.split(".")[:2] == TVM_VERSION.split(".")[:2]


def refuse(folder: Path, others: int, versions: Counter[str]) -> None:
    """Where nothing in ``folder`` is of use: ``others`` are for another target, or all are of other ``versions``.

    Raises RecordMismatch, unless it has neither.
    """
    if others:
        raise RecordMismatch(
            f"the {others} records in {folder} are not for this target",
            "they were tuned for another machine, or TVM described it otherwise",
            "name another --records folder, or tune again into an empty one",
        )
    if versions:
        raise RecordMismatch(
            f"the records in {folder} are of TVM {_listed(versions)}, this is {TVM_VERSION}",
            "schedules and times of one TVM mean nothing to another",
            f"tvm-shufflenet tune ... --records {folder}-{TVM_VERSION}, or use them with their own TVM",
        )


def left_out(folder: Path, versions: Counter[str]) -> str | None:
    """What is to be said of records of other ``versions`` beside others that are used; None where there are none."""
    if not versions:
        return None
    return (
        f"left out: {versions.total()} records in {folder} are of TVM {_listed(versions)}, this is {TVM_VERSION}; "
        "tune again to have them anew"
    )


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions))


class TargetMatch:
    """Which targets, as records write them in JSON, are ``target``: each is looked at once."""

    def __init__(self, target: tvm.target.Target):
        self._target = target
        self._known: dict[str, bool] = {}

    def __call__(self, written: str) -> bool:
        if written not in self._known:
            self._known[written] = _is_target(json.loads(written), self._target)
        return self._known[written]


def _is_target(written, target: tvm.target.Target) -> bool:
    """Of a target that this TVM does not know it raises errors of many kinds."""
    try:
        return is_cpu(written) and same_target(tvm.target.Target(written), target)
    except Exception:
        return False
