"""Converts TVM's tuning objects to plain Python values, for JSON and hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import msgspec
import tvm
from tvm.s_tir import meta_schedule as ms

from ..hardware.targets import is_cpu
from ..schedules.admitted import check_trace
from ..support.containers import plain

TraceJson = tuple[list[tuple[str, list, list, list]], list[tuple[int, Any]]]  # instructions, and values by instruction
_Dtype = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{3,8}\d{0,3}\Z")]
_Extent = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]
_TensorJson = tuple[Literal["TENSOR"], _Dtype, tuple[_Extent, ...]]
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
    """The reverse of ``record_json``, for JSON by whomever: every record goes through here before TVM sees it. Raises
    ValueError, and what TVM raises.

    TVM's own reader takes null for whatever should be there, and crashes on it; and its schedules do whatever they say.
    """
    trace, _, target, _ = msgspec.convert(body, _RecordJson)
    check_trace(trace)
    if not is_cpu(target):
        raise ValueError("for a target that is more than a CPU")
    return ms.database.TuningRecord.from_json(body, workload)


def same_target(left, right) -> bool:
    """Whether two targets generate the same code, however many cores they say the machine has."""
    return _code(left) == _code(right)


def target_hash(target) -> str:
    """The same for two targets that generate the same code."""
    return hashlib.sha256(json.dumps(_code(target), sort_keys=True).encode()).hexdigest()[:16]


def _code(target) -> dict:
    return {key: value for key, value in plain(target.export()).items() if key not in ("num-cores", "tag", "keys")}
