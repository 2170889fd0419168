"""Hostile tuning records, workloads and reproducers: each tries to bring code, to take memory or to crash TVM."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from helpers.kernels import MACHINES
from helpers.laid_out import Depthwise, Pointwise
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices.checking import checking_device
from tvm_shufflenet.errors import BadInput, DeviceFailed, RecordMismatch
from tvm_shufflenet.graph import pipeline
from tvm_shufflenet.graph.frontend import to_relax
from tvm_shufflenet.graph.pipeline import Fused
from tvm_shufflenet.graph.serialized import NotOperators, check_module, check_workload
from tvm_shufflenet.graph.tasks import argument_shapes, operator_tasks
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import find_target, is_cpu
from tvm_shufflenet.library.scheduling import schedule_tuned
from tvm_shufflenet.library.serial import json_trace_hash, record_of
from tvm_shufflenet.models.exporting import export
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.schedules.admitted import NotAdmitted, check_straight, check_trace
from tvm_shufflenet.support.containers import plain
from tvm_shufflenet.support.toolchain import TVM_VERSION
from tvm_shufflenet.tuning.measuring import trial
from tvm_shufflenet.tuning.records import upkeep
from tvm_shufflenet.tuning.records.folder import RECORDS, WORKLOADS, RecordFolder
from tvm_shufflenet.tuning.records.shipped import BEST, Best, read_best, write_best
from tvm_shufflenet.tuning.records.store import RecordStore, Trial, record_json, workload_hash
from tvm_shufflenet.tuning.search.intrinsics import load_intrinsics
from tvm_shufflenet.verification import reproducer
from tvm_shufflenet.verification.operators import reference
from tvm_shufflenet.workflow.replay import replay

LOGS = Path(__file__).parents[2] / "tuning_logs"
TARGET = find_target("local")
KERNEL = Pointwise(1, 16, 4, 4, 16, 8, groups=2, relu=True)
MOD = tvm.IRModule({"main": KERNEL.function()})
ASSEMBLY = '"module asm \\".globl evil\\""'


def honest() -> list:
    """A record as TVM writes it: trace, seconds, target, arguments."""
    found = rules.default_candidate(MOD, machine_for(TARGET))
    workload = ms.database.Workload(MOD)
    return record_json(ms.database.TuningRecord(found.sch.trace, workload, [1e-6], TARGET.tvm(), found.args_info))


HONEST = honest()
LOOP = next(outputs for kind, _, _, outputs in HONEST[0][0] if kind == "GetLoops")[0]
BLOCK = next(outputs for kind, _, _, outputs in HONEST[0][0] if kind == "GetSBlock")[0]
CHOICE = next(number for number, each in enumerate(HONEST[0][0]) if each[0] == "SampleCategorical")


def adds(*instructions: list) -> Callable[[list], None]:
    """The record's schedule has further instructions at its end, before postprocessing."""

    def change(body: list) -> None:
        body[0][0][-1:-1] = [list(each) for each in instructions]

    return change


def decides(value: object, number: int | None = None) -> Callable[[list], None]:
    def change(body: list) -> None:
        decision = next(each for each in body[0][1] if each[0] == CHOICE)
        decision[:] = [CHOICE if number is None else number, value]

    return change


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


RECORD_ATTACKS: dict[str, Callable[[list], None]] = {
    "assembly on a loop": adds(["Annotate", [LOOP, ASSEMBLY], ["pragma_import_llvm"], []]),
    "assembly on a block": adds(["Annotate", [BLOCK, ASSEMBLY], ["pragma_import_llvm"], []]),
    "C on a loop": adds(["Annotate", [LOOP, '"int evil() { system(0); }"'], ["pragma_import_c"], []]),
    "any other pragma": adds(["Annotate", [LOOP, 1], ["pragma_scope"], []]),
    "pragma that becomes another by removal": adds(["Unannotate", [LOOP], ["pragma_import_llvm"], []]),
    "known annotation with text": adds(["Annotate", [LOOP, ASSEMBLY], ["pragma_loop_partition_hint"], []]),
    "known annotation with a map": adds(["Annotate", [LOOP, {"a": 1}], ["pragma_loop_partition_hint"], []]),
    "known annotation with a list": adds(["Annotate", [LOOP, [1, 2]], ["pragma_auto_unroll_max_step"], []]),
    "steps to unroll without end": adds(["Annotate", [LOOP, 10**9], ["pragma_auto_unroll_max_step"], []]),
    "lanes without end": adds(["Annotate", [BLOCK, 10**6], ["meta_schedule.vectorize"], []]),
    "intrinsic": adds(["Tensorize", [LOOP], ["dot_4x4_i8i8s32_sdot", True], []]),
    "intrinsic by an annotation": adds(["Annotate", [BLOCK, '"x"'], ["meta_schedule.auto_tensorize"], []]),
    "rule by an annotation": adds(["Annotate", [BLOCK, '"x"'], ["schedule_rule"], []]),
    "thread of a graphics processor": adds(["Bind", [LOOP], ["threadIdx.x"], []]),
    "layout as an object of TVM's": adds(["TransformLayout", [BLOCK, "e30="], [0, 0, None, False], []]),
    "other precision": adds(["UnsafeSetDType", [BLOCK], [0, "float16"], []]),
    "hidden access": adds(["UnsafeHideBufferAccess", [BLOCK], ["read", []], []]),
    "memory of another device": adds(["SetScope", [BLOCK], [0, "global.texture"], []]),
    "cache in another memory": adds(["CacheRead", [BLOCK, []], [0, "shared.dyn"], ["b900"]]),
    "index of a buffer": adds(["SetScope", [BLOCK], [10**6, "local"], []]),
    "alignment without end": adds(["StorageAlign", [BLOCK], [0, 0, 2**31, 0], []]),
    "unknown instruction": adds(["System", [], ["touch sprung"], []]),
    "instruction that is no text": adds([["GetSBlock"], [], [], []]),
    "terminal's escapes": adds(["\x1b[2J", [], [], []]),
    "split by a negative factor": adds(["Split", [LOOP, "None", -4], [True, False], ["l900", "l901"]]),
    "split by nothing": adds(["Split", [LOOP, "None", 0], [True, False], ["l900", "l901"]]),
    "split by a fraction": adds(["Split", [LOOP, "None", 1.5], [True, False], ["l900", "l901"]]),
    "split by 2^60": adds(["Split", [LOOP, "None", 2**60], [True, False], ["l900", "l901"]]),
    "split by 2^100": adds(["Split", [LOOP, "None", 2**100], [True, False], ["l900", "l901"]]),
    "split into more than it says": adds(["Split", [LOOP, "None", 4], [True, False], ["l900", "l901", "l902"]]),
    "tile of factors that do not end": adds(["SamplePerfectTile", [LOOP], [10**6, 64], ["v900", "v901"]]),
    "loop that nobody made": adds(["Unroll", ["l999"], [], []]),
    "block in place of a loop": adds(["Unroll", [BLOCK], [], []]),
    "nothing in place of a loop": adds(["Unroll", [None], [], []]),
    "number in place of a loop": adds(["Unroll", [3], [], []]),
    "results of a name that is taken": adds(["GetSBlock", [], ["pointwise", "main"], [BLOCK]]),
    "results of another kind": adds(["GetSBlock", [], ["pointwise", "main"], ["l900"]]),
    "block of another function": adds(["GetSBlock", [], ["pointwise", "evil"], ["b900"]]),
    "attributes that are none": adds(["Unroll", [LOOP], None, []]),
    "instruction of three parts": adds(["Unroll", [LOOP], []]),
    "inputs nested deeply": adds(["Reorder", nested(400), [], []]),
    "thousands of instructions": adds(
        *[["GetSBlock", [], ["pointwise", "main"], [f"b{number}"]] for number in range(900, 4000)]
    ),
    "candidates that are no numbers": adds(["SampleCategorical", [], [["evil"], [1.0]], ["v900"]]),
    "candidates without bounds": adds(["SampleCategorical", [], [[10**9], [1.0]], ["v900"]]),
    "decision beyond the candidates": decides(10**6),
    "decision below the candidates": decides(-1),
    "decision that is text": decides("0"),
    "decision that is nothing": decides(None),
    "decision without an instruction": decides(0, 10**6),
    "decision of another instruction": decides(0, 0),
    "second decision": lambda body: body[0][1].append([CHOICE, 0]),
    "schedule that is none": lambda body: body.__setitem__(0, "evil"),
}


def hostile(change: Callable[[list], None]) -> list:
    body = copy.deepcopy(HONEST)
    change(body)
    return body


def journal_of(body: list) -> Trial:
    try:
        key = json_trace_hash(body[0])
    except (TypeError, ValueError, AttributeError):
        key = "0" * 16
    return Trial(workload_hash(MOD), key, "template", "board", "measured", TVM_VERSION, 1e-6)


def planted(folder: Path, body: list) -> Path:
    """A folder whose lines fit together: checksums, hashes and all, as an attacker writes them."""
    records = RecordFolder(folder)
    with records.ours():
        for each in (HONEST, body) if body is not HONEST else (body,):
            records.write(journal_of(each), each, MOD)
    return folder


def call(*words: object) -> int:
    with contextlib.suppress(SystemExit):
        return cli.main([str(word) for word in words])
    return -1


@pytest.mark.parametrize("attack", RECORD_ATTACKS)
def test_a_hostile_record_is_a_damaged_line(attack, tmp_path):
    body = hostile(RECORD_ATTACKS[attack])
    with pytest.raises(ValueError):
        record_of(body, ms.database.Workload(MOD))
    folder = RecordFolder(planted(tmp_path, body))
    assert [(line.file, line.number) for line in folder.skipped] == [(RECORDS, 2)]
    assert folder.skipped[0].reason.isprintable() and len(folder.skipped[0].reason) < 300
    assert len(folder.entries) == 1
    store = RecordStore(tmp_path, TARGET.tvm())
    assert len(store.database().get_all_tuning_records()) == 1 and len(store.skipped) == 1


def test_every_command_leaves_a_hostile_record_out_and_verify_names_it(tmp_path, capsys):
    folder = planted(tmp_path / "logs", hostile(RECORD_ATTACKS["assembly on a loop"]))
    assert call("records", "verify", folder) == 2
    out, error = capsys.readouterr()
    assert f"{RECORDS}, line 2: its schedule has an annotation that none of ours has: 'pragma_import_llvm'" in out
    assert "1 lines of records cannot be used" in error
    assert call("records", "list", folder, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["folders"][0]["groups"][0]["records"] == 1
    assert call("records", "best", folder) == 0
    assert call("records", "merge", folder, "--into", tmp_path / "merged") == 0
    assert "import_llvm" not in (tmp_path / "merged" / RECORDS).read_text()
    assert call("records", "prune", folder) == 0
    assert "import_llvm" not in (folder / RECORDS).read_text()
    assert call("records", "verify", folder) == 0


@pytest.mark.parametrize("attack", ["assembly on a block", "intrinsic", "decision beyond the candidates"])
def test_a_hostile_shipped_record_is_a_damaged_line(attack, tmp_path):
    body = hostile(RECORD_ATTACKS[attack])
    lines = [Best(journal_of(each), each[2], each[0]) for each in (HONEST, body)]
    write_best(tmp_path, lines)
    assert [type(best) for _, best in read_best(tmp_path)] == [Best, str]
    assert [line.file for line in upkeep.verify(RecordFolder(tmp_path))] == [BEST]
    store = RecordStore(tmp_path, TARGET.tvm())
    store.meet([MOD])
    assert len(store.database().get_all_tuning_records()) == 1 and len(store.skipped) == 1


def unrolled(*factors: int, vector: bool = False) -> list:
    """A record of admitted instructions that together unroll, or vectorize, without end."""
    body = copy.deepcopy(HONEST)
    instructions = [["GetSBlock", [], ["epilogue", "main"], ["b0"]], ["GetLoops", ["b0"], [], ["l1", "l2", "l3", "l4"]]]
    loop, number = "l4", 10
    for factor in factors:
        outer, inner = f"l{number}", f"l{number + 1}"
        instructions.append(["Split", [loop, "None", factor], [True, False], [outer, inner]])
        instructions.append(["Vectorize" if vector else "Unroll", [inner], [], []])
        loop, number = outer, number + 2
    body[0] = [[*instructions, ["EnterPostproc", [], [], []]], []]
    return body


@pytest.mark.parametrize(
    "body", [unrolled(10**7, 100), unrolled(5000), unrolled(128, vector=True)], ids=["10^9", "5000", "vector"]
)
def test_straight_line_code_without_end_is_never_generated(body, tmp_path):
    started = time.monotonic()
    check_trace(body[0])  # each instruction is one of ours: what they make together is not
    planted(tmp_path, body)
    found = upkeep.verify(RecordFolder(tmp_path))
    assert [(line.file, line.number) for line in found] == [(RECORDS, 2)] and "its schedule does not apply" in str(
        found
    )
    schedule = Schedule(MOD)
    record_of(body, ms.database.Workload(MOD)).trace.apply_to_schedule(schedule, remove_postproc=False)
    with pytest.raises(NotAdmitted):
        check_straight(schedule.mod["main"])
    job = trial.Job(tvm.ir.save_json(schedule.mod), TARGET.tvm_config, (), "", None, 1, 1, 0, 1.0)
    outcome = trial.run_trial(job)
    assert outcome.cause is trial.Cause.BUILD and ("unrolls" in outcome.error or "vector of" in outcome.error)
    assert time.monotonic() - started < 60


def test_a_network_is_not_built_with_such_a_record(tmp_path):
    builder = tvm.relax.BlockBuilder()
    shapes = [shape for shape, _ in argument_shapes(MOD)]
    inputs = [tvm.relax.Var(f"v{n}", tvm.relax.TensorType(shape, "float32")) for n, shape in enumerate(shapes[:-1])]
    with builder.function("main", inputs):
        called = builder.add_func(MOD["main"].with_attr("global_symbol", "operator"), "operator")
        result = builder.emit(tvm.relax.call_tir(called, inputs, tvm.relax.TensorType(shapes[-1], "float32")))
        builder.emit_func_output(result)
    network = builder.get()
    (task,) = operator_tasks(network)
    body = unrolled(10**7, 100)
    body[1] = [1e-9]  # the fastest
    records = RecordFolder(tmp_path)
    with records.ours():
        line = Trial(workload_hash(task.mod), json_trace_hash(body[0]), "t", "board", "measured", TVM_VERSION, 1e-9)
        records.write(line, body, task.mod)
    store = RecordStore(tmp_path, TARGET.tvm())
    with pytest.raises(RecordMismatch, match="does not apply to its operator: it unrolls"):
        schedule_tuned(Fused(network, TARGET), store.database())


@pytest.mark.parametrize(
    "change",
    [
        {"cl-opt": ["-load=./evil.so"]},
        {"jit": "orcjit"},
        {"host": {"kind": "llvm"}},
        {"kind": "c"},
        {"mcpu": "x\x1b[2J"},
        {"mattr": ["+neon", {"a": 1}]},
        {"feature.x": "y"},
        {"libs": ["evil"]},
        {"num-cores": 10**12},
    ],
    ids=str,
)
def test_a_target_with_more_than_a_cpu_never_reaches_tvm(change, tmp_path):
    body = copy.deepcopy(HONEST)
    assert is_cpu(body[2])
    body[2] |= change
    assert not is_cpu(body[2])
    with pytest.raises(ValueError):
        record_of(body, ms.database.Workload(MOD))
    planted(tmp_path, body)
    store = RecordStore(tmp_path, TARGET.tvm())
    assert len(store.database().get_all_tuning_records()) == 1 and store.other_targets == 1
    assert [line.number for line in upkeep.verify(RecordFolder(tmp_path))] == [2]


# Modules as TVM's JSON


def module_json() -> dict:
    return json.loads(str(tvm.ir.save_json(MOD)))


def of(module: dict, kind: str) -> dict:
    return next(node for node in module["nodes"] if node["type"] == kind)


def becomes(kind: str, data: object, old: str = "prim.Add") -> Callable[[dict], None]:
    """The first part of type ``old`` is another."""

    def change(module: dict) -> None:
        node = of(module, old)
        node.clear()
        node.update({"type": kind, "data": data})

    return change


def sets(kind: str, /, **fields: object) -> Callable[[dict], None]:
    return lambda module: of(module, kind)["data"].update(fields)


def laughs(module: dict) -> None:
    """Every part twice the last: 2^60 of them."""
    nodes = module["nodes"]
    add = of(module, "prim.Add")["data"]
    for _ in range(60):
        nodes.append({"type": "prim.Add", "data": {**add, "a": len(nodes) - 1, "b": len(nodes) - 1}})


def chain(module: dict) -> None:
    nodes = module["nodes"]
    for _ in range(5000):
        nodes.append({"type": "ffi.Array", "data": [len(nodes) - 1]})


def annotated(module: dict) -> None:
    """A loop carries assembly."""
    nodes = module["nodes"]
    loop = of(module, "tirx.For")
    position = nodes.index(loop)
    planted_nodes = [
        {"type": "ffi.String", "data": "pragma_import_llvm"},
        {"type": "ffi.String", "data": "asm"},
        {"type": "ffi.Map", "data": [position, position + 1]},
    ]

    def shifted(value: object) -> object:
        return value + 3 if type(value) is int and value >= position else value

    # Fields that hold a number, not another part.
    literal = {"ndim", "kind", "iter_type", "data_alignment", "offset_factor", "value", "purity", "dtype"}
    for node in nodes[position:]:
        data = node.get("data")
        if isinstance(data, list):
            node["data"] = [shifted(each) for each in data]
        elif isinstance(data, dict):
            node["data"] = {
                n: v if n in literal and node["type"] != "ir.IntImm" else shifted(v) for n, v in data.items()
            }
    nodes[position:position] = planted_nodes
    loop["data"]["annotations"] = position + 2
    module["root_index"] += 3


def calls_c(module: dict) -> None:
    """The last part calls ``system``."""
    nodes = module["nodes"]
    start = len(nodes)
    ty = of(module, "prim.Add")["data"]["ty"]
    nodes += [
        {"type": "ir.Op", "data": "tirx.call_pure_extern"},
        {"type": "ffi.String", "data": "system"},
        {"type": "ir.StringImm", "data": {"span": 0, "ty": ty, "value": start + 1}},
        {"type": "ffi.Array", "data": [start + 2]},
        {"type": "ir.Call", "data": {"span": 0, "ty": ty, "op": start, "args": start + 3, "attrs": 0, "ty_args": 0}},
    ]


EXTERN = {"span": 0, "ty": 1, "op": 2, "args": 3, "attrs": 0, "ty_args": 3}
MODULE_ATTACKS: dict[str, Callable[[dict], None]] = {
    "call of a function of the process": becomes("ir.Op", "tirx.call_extern", "ffi.String"),
    "call of a packed function": becomes("ir.Op", "tirx.tvm_call_packed", "ffi.String"),
    "LLVM's instructions": becomes("ir.Op", "tirx.call_llvm_intrin", "ffi.String"),
    "pure function of the process": becomes("ir.Op", "tirx.call_pure_extern", "ffi.String"),
    "pure function of the process that is called": calls_c,
    "call of anything": becomes("ir.Call", EXTERN),
    "address of memory": becomes("ir.Op", "tirx.address_of", "ffi.String"),
    "compiled module": becomes("ffi.Module", "AAAA"),
    "function of another language": becomes("relax.ExternFunc", {"global_symbol": 0}),
    "statement with a pragma": becomes("tirx.AttrStmt", {"span": 0, "node": 0, "attr_key": 0, "value": 0, "body": 0}),
    "loop without end": becomes("tirx.While", {"span": 0, "condition": 0, "body": 0}),
    "assertion": becomes("tirx.AssertStmt", {"span": 0}),
    "statement for its effect": becomes("tirx.Evaluate", {"span": 0, "value": 0}),
    "type that nobody knows": becomes("evil.Type\x1b[2J", {}),
    "type of the tests": becomes("testing.TestObjectBase", {"v_i64": 1}),
    "further field": sets("prim.Add", evil=0),
    "reference to itself": sets("prim.Add", a=10**6),
    "reference backwards": sets("prim.Add", a=-1),
    "reference that is none": sets("prim.Add", a="0"),
    "reference that is nothing": sets("prim.Add", a=None),
    "number type": sets("ir.PrimType", dtype="custom[evil]32"),
    "vector of many lanes": sets("ir.PrimType", dtype="float32x65535"),
    "loop of an unknown kind": sets("tirx.For", kind=17),
    "loop over threads": sets("tirx.For", thread_binding=1),
    "name of a megabyte": becomes("ffi.String", "x" * 2**20, "ffi.String"),
    "name with escapes": becomes("ffi.String", "\x1b[2J", "ffi.String"),
    "laughs": laughs,
    "depth": chain,
    "assembly on a loop": annotated,
    "root that is no module": lambda module: module.update(root_index=0),
    "root that is none": lambda module: module.update(root_index="evil"),
    "constants in its metadata": lambda module: module.update(metadata={"b64ndarrays": ["AAAA"]}),
    "further parts": lambda module: module.update(evil=1),
    "parts that are no list": lambda module: module.update(nodes={}),
    "part that is none": lambda module: module["nodes"].append(7),
}


def in_base64(text: bytes) -> str:
    return base64.b64encode(len(text).to_bytes(8, "little") + text).decode()


@pytest.mark.parametrize("attack", MODULE_ATTACKS)
def test_a_hostile_workload_is_a_damaged_line(attack, tmp_path):
    module = module_json()
    MODULE_ATTACKS[attack](module)
    text = json.dumps(module).encode()
    with pytest.raises(NotOperators) as caught:
        check_module(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    planted(tmp_path, HONEST)
    (tmp_path / WORKLOADS).write_text(json.dumps([workload_hash(MOD), in_base64(text)]) + "\n")
    folder = RecordFolder(tmp_path)
    assert {line.file for line in folder.skipped} == {WORKLOADS, RECORDS} and not folder.entries
    assert "not a workload: " in str(folder.skipped)


@pytest.mark.parametrize(
    "value",
    [
        [],
        ["1", "not base64!"],
        ["1", base64.b64encode(b"\xff" * 8 + b"{}").decode()],
        ["1", in_base64(b"[" * 10**6)],
        ["evil", in_base64(b"{}")],
        ["1", in_base64(b"{}")],
        [1, 2],
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_workload(value):
    with pytest.raises(NotOperators):
        check_workload(value)


def test_a_workload_of_ours_is_one():
    check_workload(plain(ms.database.Workload(MOD).as_json()))
    check_module(str(tvm.ir.save_json(MOD)))


class Many(nn.Module):
    """Operators of many kinds: functions of C and of TVM, reductions from infinity on, resizing, sorting."""

    def forward(self, data):
        data = torch.fmod(data, 2.0) + F.gelu(data) + torch.tan(data) + data.abs().pow(1.5) + torch.erf(data).round()
        data = F.max_pool2d(F.softmax(data, 1), 3, 1, 1) + F.interpolate(data, size=(8, 8), mode="bilinear")
        data = F.layer_norm(data, data.shape[2:]) + F.pad(data, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1]
        return data.cumsum(1).topk(2, 1).values + data.amax((2, 3), keepdim=True)[:, :2]


def test_workloads_of_many_kinds_are_ones():
    module = to_relax(export(Many().eval(), (1, 4, 8, 8)))
    tasks = pipeline.fuse(module, TARGET).tasks + pipeline.stock(module, TARGET).tasks
    assert len(tasks) > 10
    for task in tasks:
        check_workload(plain(ms.database.Workload(task.mod).as_json()))


# Reproducers


@pytest.fixture
def kept(monkeypatch, tmp_path) -> Path:
    """A reproducer of an operator that was found wrong, though it is right."""
    monkeypatch.setenv(reproducer.VARIABLE, str(tmp_path / "kept"))
    expected = reference(MOD)
    text = str(tvm.ir.save_json(rules.default_candidate(MOD, machine_for(TARGET)).sch.mod))
    said = reproducer.keep_operator("pointwise", "it differs", TARGET, "local", text, MOD, expected, expected.digests)
    return Path(said.removeprefix("reproducer: "))


@pytest.mark.parametrize(
    "attack", ["call of a function of the process", "compiled module", "laughs", "assembly on a loop"]
)
def test_a_hostile_operator_is_not_replayed(attack, kept, tmp_path):
    module = module_json()
    MODULE_ATTACKS[attack](module)
    (kept / "scheduled.json").write_text(json.dumps(module))
    with pytest.raises(BadInput, match="no operator of ours"):
        replay(kept, None)


def test_what_an_operator_should_compute_is_not_run_here(kept):
    (kept / "workload.json").write_text("evil")
    with checking_device(TARGET) as device:
        assert replay(kept, device) is None


@pytest.mark.parametrize(
    "change",
    [
        {"target_config": {"kind": "llvm", "cl-opt": ["-load=./evil.so"]}},
        {"target": "\x1b]0;evil\x07"},
        {"expected": []},
        {"allowed": [[1.0]]},
    ],
    ids=str,
)
def test_a_hostile_finding_is_refused(change, kept, capsys):
    path = kept / "finding.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert call("replay", kept) == 2
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error and error.count("\n") == 1


def test_what_a_finding_says_is_printed_without_what_a_terminal_obeys(kept, capsys):
    path = kept / "finding.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"what": "\x1b[2Jit differs", "device": "\x1b]0;x\x07"}))
    assert call("replay", kept) == 0
    out, error = capsys.readouterr()
    assert "it differs" in out and "\x1b" not in out + error


def test_a_finding_nested_deeply_is_refused(kept, capsys):
    (kept / "finding.json").write_text('{"schema": ' + "[" * 10**6)
    assert call("replay", kept) == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_schedule_that_unrolls_without_end_is_not_replayed(kept):
    schedule = Schedule(MOD)
    record_of(unrolled(5000), ms.database.Workload(MOD)).trace.apply_to_schedule(schedule, remove_postproc=False)
    (kept / "scheduled.json").write_text(str(tvm.ir.save_json(schedule.mod)))
    with checking_device(TARGET) as device, pytest.raises((BadInput, DeviceFailed), match="unroll"):
        replay(kept, device)


# What is ours passes


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in LOGS.glob("*/best.jsonl")))
def test_every_shipped_record_is_admitted(folder):
    found = list(read_best(LOGS / folder))
    assert len(found) > 100 and not [best for _, best in found if isinstance(best, str)]
    assert all(is_cpu(best.target) for _, best in found)


@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("kernel", [KERNEL, Depthwise(1, 8, 14, 14, stride=(2, 2))], ids=["pointwise", "depthwise"])
def test_every_variant_of_a_template_is_admitted(kernel, machine):
    mod = tvm.IRModule({"main": kernel.function()})
    for point in rules.TEMPLATES[rules.template_name(mod)](Schedule(mod, seed=3), machine):
        point.enter_postproc()
        check_trace(plain(point.trace.as_json()))
        check_straight(point.mod["main"])
        check_module(str(tvm.ir.save_json(point.mod)))


def test_generated_sketches_are_admitted():
    load_intrinsics()
    context = ms.TuneContext(
        MOD, target=find_target("cortex-a55").tvm(), space_generator=rules.space(MOD, machine_for(TARGET), "ansor"),
        task_name="pointwise", num_threads=1, rand_state=3,
    )  # fmt: skip
    sketches = context.generate_design_space()
    assert sketches
    for sketch in sketches:
        sketch.enter_postproc()
        whole = all(post.apply(sketch) for post in context.space_generator.postprocs)
        check_trace(plain(sketch.trace.as_json()))
        if whole:
            check_straight(sketch.mod["main"])
            check_module(str(tvm.ir.save_json(sketch.mod)))
