"""TVM's tuning objects as Python's own values, for JSON and for hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ..containers import plain

TraceJson = tuple[list[tuple[str, list, list, list]], list[tuple[int, Any]]]  # instructions, and values by instruction
_TensorJson = tuple[Literal["TENSOR"], str, tuple[int, ...]]
_RecordJson = tuple[TraceJson, tuple[float, ...], dict[str, Any], tuple[_TensorJson, ...]]


def workload_hash(mod: tvm.IRModule) -> str:
    """MetaSchedule's own structural hash of a workload."""
    return str(ms.database.Workload(mod).as_json()[0])


def trace_hash(trace) -> str:
    """Hash of a schedule's instructions and decisions; postprocessing follows from these."""
    return _digest(plain(trace.as_json(True)))


def json_trace_hash(trace: list) -> str:
    """``trace_hash`` of a trace as it stands in a record, at a hundredth of the price of making it one of TVM's."""
    instructions, decisions = trace
    end = next((i for i, each in enumerate(instructions) if each[0] == "EnterPostproc"), len(instructions))
    return _digest([instructions[:end], [each for each in decisions if each[0] < end]])


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def record_json(record: ms.database.TuningRecord) -> list:
    """A record as MetaSchedule's JSONDatabase writes it; ``TuningRecord.as_json`` itself refuses index maps."""
    arguments = [info.as_json() for info in record.args_info]
    return plain([record.trace.as_json(), record.run_secs, record.target.export(), arguments])


def record_of(body: Any, workload: ms.database.Workload) -> ms.database.TuningRecord:
    """The reverse of ``record_json``, for JSON by whomever. Raises ValueError, and what TVM raises.

    TVM's own reader takes null for whatever should be there, and a decision to its instruction however many there are;
    it crashes on either.
    """
    (instructions, decisions), *_ = msgspec.convert(body, _RecordJson)
    if _has_null(instructions) or _has_null(decisions):
        raise ValueError("a trace with nothing in one place")
    if not all(0 <= index < len(instructions) for index, _ in decisions):
        raise ValueError("a decision without its instruction")
    return ms.database.TuningRecord.from_json(body, workload)


def _has_null(value) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_null, value))
    return value is None or (isinstance(value, dict) and any(map(_has_null, value.values())))


def same_target(left, right) -> bool:
    """Whether two targets generate the same code, however many cores they say the machine has."""
    return _code(left) == _code(right)


def target_hash(target) -> str:
    """The same for two targets that generate the same code."""
    return hashlib.sha256(json.dumps(_code(target), sort_keys=True).encode()).hexdigest()[:16]


def _code(target) -> dict:
    return {key: value for key, value in plain(target.export()).items() if key not in ("num-cores", "tag", "keys")}
