"""Correct or nothing: what compile verifies before there is a package, and what it keeps of wrong code."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from torch import nn
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from helpers.kernels import module
from helpers.laid_out import Pointwise
from helpers.tensors import OUTPUT, only
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.bare import BareEmulator
from tvm_shufflenet.devices.checking import checking_device
from tvm_shufflenet.errors import BadInput, DeployError, PackageInvalid, ToolMissing, WrongResult
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.scheduling import Scheduled
from tvm_shufflenet.models import Model, find_model
from tvm_shufflenet.packages.package import Package
from tvm_shufflenet.schedules.admitted import INSTRUCTIONS
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.support.toolchain import TVM_VERSION
from tvm_shufflenet.tuning.records.store import RecordStore, Trial, trace_hash, workload_hash
from tvm_shufflenet.verification import first_use, reproducer
from tvm_shufflenet.verification import networks as verify
from tvm_shufflenet.verification.operators import Reference
from tvm_shufflenet.verification.outcome import NEVER_VERIFIED
from tvm_shufflenet.verification.probes import INFINITE, NAN
from tvm_shufflenet.workflow.bench import bench_package
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.replay import replay

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
LOCAL, ARM64 = find_target("local"), find_target("arm64")
FACTORY = """
from torch import nn
from tvm_shufflenet.workflow.replay import replay
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit

def make():
    return nn.Sequential(ShuffleUnit(48, 96, 3, 2, 1), ShuffleUnit(96, 96, 3, 1, 3))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.py"
    path.write_text(FACTORY)
    return import_model(find_model(f"{path}:make", input_shape=(1, 48, 8, 8)))


@pytest.fixture(scope="module", params=["local", "arm64"])
def device(request):
    with checking_device(find_target(request.param)) as found:
        yield found


@pytest.fixture
def compiled(imported, tmp_path):
    """What compile does, with the records of ``store``."""

    def compiled(device, target, store=None, imported=imported, formats=("vm",), threads=1) -> Package:
        store = store or RecordStore(tmp_path / "no-records", target.tvm())
        output = tmp_path / "package"
        return compile_package(imported, target, store, output, threads, formats, device=device)

    return compiled


@pytest.fixture
def forgotten(monkeypatch):
    """No operator has been seen right before."""
    seen: dict[bytes, bytes] = {}

    class Memory:
        get = seen.get
        put = seen.update

    monkeypatch.setattr(first_use, "_held", lambda: Memory)
    return seen


def test_a_package_says_on_what_it_was_verified(compiled, device, forgotten):
    package = compiled(device, device.target, formats=("vm", "standalone"))
    verified = package.manifest.verified
    assert verified.by == device.name == ("local" if device.target is LOCAL else "emulated:cortex-a72")
    assert 0 <= verified.max_abs_err <= verified.tolerance == package.manifest.tolerance
    scheduled = [operator for operator in package.manifest.operators if operator.schedule != "none"]
    assert verified.operators == len(scheduled) == len(forgotten) > 2
    assert "verified on" in str(verified) and "against their unscheduled selves" in str(verified)


def test_an_operator_is_run_by_itself_the_first_time_only(imported, compiled, forgotten, monkeypatch):
    with checking_device(LOCAL) as device:
        first = compiled(device, LOCAL).manifest.verified
        monkeypatch.setattr(verify, "compare", lambda *_: pytest.fail("run again"))
        assert compiled(device, LOCAL).manifest.verified == first
        other = replace(imported, module=import_model(imported.model).module)
        assert compiled(device, LOCAL, imported=other).manifest.verified == first
        with pytest.raises(pytest.fail.Exception):  # cut into work for two threads, it is other code
            compiled(device, LOCAL, threads=2)


def cut_precision(mod: tvm.IRModule) -> Schedule:
    """A schedule of TVM's own primitives that is wrong: its results go through memory of half the precision."""
    schedule = Schedule(mod)
    block = next(
        block
        for block in schedule.get_child_blocks(schedule.get_sblock("root"))
        if schedule.get(block).init is not None
    )
    schedule.cache_write(block, 0, "global")
    schedule.unsafe_set_dtype(block, 0, "float16")
    return schedule


@pytest.fixture
def wrong_store(imported, tmp_path, monkeypatch):
    """Records for one target of which one, the fastest of its operator, is wrong: no instruction of ours can be, so
    another one is admitted here."""
    wrong = re.compile(r"b\Z"), re.compile(r"\Z"), lambda attrs: attrs == [0, "float16"]
    monkeypatch.setitem(INSTRUCTIONS, "UnsafeSetDType", wrong)

    def wrong_store(target) -> RecordStore:
        task = next(task for task in fuse(imported.module, target).tasks if "pointwise" in task.name)
        store, schedule = RecordStore(tmp_path / "records", target.tvm()), cut_precision(task.mod)
        workload = ms.database.Workload(task.mod)
        arguments = ms.arg_info.ArgInfo.from_prim_func(task.mod["main"])
        record = ms.database.TuningRecord(schedule.trace, workload, [1e-9], target.tvm(), arguments)
        shash, key = workload_hash(task.mod), trace_hash(schedule.trace)
        store.append(Trial(shash, key, "template", "board", "measured", TVM_VERSION, 1e-9), record, task.mod)
        return RecordStore(tmp_path / "records", target.tvm())

    return wrong_store


def test_a_wrong_record_makes_no_package_and_leaves_a_reproducer(
    device, compiled, wrong_store, forgotten, reproducers, capfd, tmp_path
):
    shutil.rmtree(reproducers, ignore_errors=True)
    with pytest.raises(WrongResult, match=r"scheduled by its record: its result differs .*reproducer: ") as caught:
        compiled(device, device.target, wrong_store(device.target))
    assert caught.value.exit_code == 5 and not (tmp_path / "package").exists()
    (folder,) = reproducers.iterdir()
    assert str(folder) in str(caught.value)
    finding = reproducer.read_reproducer(folder)
    assert (finding.kind, finding.target, finding.device) == ("operator", device.target.name, device.name)
    assert len(finding.expected) == len(finding.found) > 2 and finding.versions["apache-tvm"] == TVM_VERSION
    assert "float16" in (folder / "scheduled.py").read_text()
    assert "float16" not in (folder / "workload.py").read_text()
    assert "differs from the unscheduled" in replay(folder, device)
    (folder / "scheduled.json").write_text((folder / "workload.json").read_text())  # as if it had been mended
    assert replay(folder, device) is None


def test_the_command_compiles_refuses_and_replays(wrong_store, reproducers, capfd, tmp_path, monkeypatch):
    shutil.rmtree(reproducers, ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(FACTORY)
    words = ["compile", "--target", "local", "--model", "tiny.py:make", "--input-shape", "1,48,8,8", "-o", "package"]
    assert cli.main([*words, "--records", str(wrong_store(LOCAL).folder)]) == 5
    error = capfd.readouterr().err
    (folder,) = reproducers.iterdir()
    assert str(folder) in error and "--untuned" in error and len(error.splitlines()) == 1
    assert cli.main(["replay", str(folder)]) == 5
    assert "is wrong on local" in capfd.readouterr().err
    assert cli.main(["replay", str(tmp_path)]) == 2
    (tmp_path / "records").rename(tmp_path / "elsewhere")
    (tmp_path / "records").mkdir()
    assert cli.main([*words, "--records", "records"]) == 0
    assert "verified on local: largest error against PyTorch" in capfd.readouterr().out
    assert cli.main(["inspect", "package"]) == 0
    assert "verified on local" in capfd.readouterr().out


def test_a_network_that_is_wrong_makes_no_package_and_an_older_one_stays(imported, compiled, reproducers):
    shutil.rmtree(reproducers, ignore_errors=True)
    with checking_device(LOCAL) as device:
        older = compiled(device, LOCAL)
        before = (older.folder / "manifest.json").read_bytes()
        other = replace(imported, reference={OUTPUT: only(imported.reference) + np.float32(0.01)})
        with pytest.raises(WrongResult, match=r"is off by 0\.01 from PyTorch"):
            compiled(device, LOCAL, imported=other)
        assert (older.folder / "manifest.json").read_bytes() == before
        (folder,) = reproducers.iterdir()
        assert reproducer.read_reproducer(folder).kind == "network"
        assert replay(folder, device).startswith("off by 0.01")
        np.save(folder / "expected0.npy", only(imported.reference))
        assert replay(folder, device) is None


def test_where_nothing_executes_the_code_the_package_says_so_until_bench_has_run_it(
    compiled, monkeypatch, tmp_path, capfd
):
    foreign = ARM64 if LOCAL.machine == "x86_64" else find_target("x86-64")
    with monkeypatch.context() as patch:
        patch.setenv("TVM_SHUFFLENET_QEMU", str(tmp_path / "none"))
        with checking_device(foreign) as found:
            assert isinstance(found, DeployError)
            verified = compiled(found, foreign).manifest.verified
    assert verified.by is None and str(verified).startswith("not verified: ") and "bench PACKAGE" in str(verified)
    assert cli.main(["inspect", str(tmp_path / "package")]) == 0
    assert "not verified: " in capfd.readouterr().out
    if foreign is ARM64:
        assert cli.main(["bench", str(tmp_path / "package"), "--device", "emulated"]) == 0
        assert Package(tmp_path / "package").manifest.verified.by == "emulated:cortex-a72"


def test_a_cpu_that_lacks_what_the_target_has_is_not_asked(monkeypatch):
    """This machine is passed over, and for arm64 the emulated core is taken."""
    from tvm_shufflenet.devices import handshake

    monkeypatch.setattr(handshake, "features_of", lambda target: {"sse4.2", "neon", "avx512f"})
    asked = handshake._check_features

    def lacking(name, machine, target, facts):
        if name == "local":
            facts = facts | {"features": dict.fromkeys(("sse4.2", "neon", "avx512f"), False)}
        asked(name, machine, target, facts)

    monkeypatch.setattr(handshake, "_check_features", lacking)
    with checking_device(LOCAL) as found:
        assert isinstance(found, BareEmulator if LOCAL.is_arm else DeployError)


def test_a_named_device_that_does_not_start_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TVM_SHUFFLENET_QEMU", str(tmp_path / "none"))
    with pytest.raises(ToolMissing), checking_device(ARM64, "emulated"):
        pass


def test_an_emulated_core_is_given_no_clock_to_check_by():
    with checking_device(ARM64, "emulated:cortex-a53") as device:
        assert isinstance(device, BareEmulator) and device.name == "emulated:cortex-a53"
        session = device.endpoint().connect(20)
        assert json.loads(session.get_function("tvm_shufflenet.server_info")())["timer"] == "measured"
    assert find_device("emulated:cortex-a53", ARM64).name == device.name


def test_without_a_device_nothing_is_claimed(compiled):
    assert compiled(None, LOCAL).manifest.verified == NEVER_VERIFIED


# Reproducers


def keep(number: int) -> str:
    mod = module(Pointwise(1, 16, 4, 4, 16, 8, groups=2, relu=True))
    code = tvm.ir.save_json(mod)
    expected = Reference(((1.0,),), ((0.1,),))
    return reproducer.keep_operator(f"op{number}", "wrong", LOCAL, "local", code, mod, expected, ((float("nan"),),))


def test_so_many_are_kept_and_the_same_once(reproducers, monkeypatch):
    shutil.rmtree(reproducers, ignore_errors=True)
    monkeypatch.setattr(reproducer, "KEPT", 3)
    said = [keep(number) for number in (0, 1, 2, 2, 3)]
    names = sorted(path.name.split("-")[1] for path in reproducers.iterdir())
    assert names == ["op1", "op2", "op3"] and said[2] == said[3]
    assert reproducer.read_reproducer(next(reproducers.iterdir())).found == ((None,),)


def test_a_disk_that_is_full_does_not_hide_the_finding(monkeypatch, reproducers, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(reproducer.VARIABLE, str(tmp_path / "file" / "below"))
    assert keep(0).startswith("no reproducer was kept (")


@pytest.mark.parametrize("damage", ["no file", "garbage", "newer", "another kind", "cut"])
def test_a_folder_that_is_no_reproducer_is_refused(reproducers, damage, tmp_path):
    folder = Path(keep(9).removeprefix("reproducer: "))
    path = folder / "finding.json"
    facts = json.loads(path.read_bytes())
    if damage == "no file":
        path.unlink()
    elif damage == "cut":
        (folder / "scheduled.json").unlink()
    else:
        changed = {"garbage": "[", "newer": facts | {"schema": 9}, "another kind": facts | {"kind": "planet"}}[damage]
        path.write_text(changed if damage == "garbage" else json.dumps(changed))
    with checking_device(LOCAL) if damage == "cut" else contextlib.nullcontext() as device, pytest.raises(BadInput):
        replay(folder, device)


# A library that does not do again what it did at first


@I.ir_module
class Overwrites:
    """x + 1, with an element of x changed afterwards."""

    @T.prim_func
    def add(x: T.Buffer((1, 4, 8, 8), "float32"), y: T.Buffer((1, 4, 8, 8), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i, j, k in T.grid(4, 8, 8):
            y[0, i, j, k] = x[0, i, j, k] + T.float32(1)
        x[0, 1, 2, 3] = x[0, 1, 2, 3] + T.float32(1)

    @R.function
    def main(x: R.Tensor((1, 4, 8, 8), "float32")) -> R.Tensor((1, 4, 8, 8), "float32"):
        cls = Overwrites
        with R.dataflow():
            y = R.call_tir(cls.add, (x,), out_ty=R.Tensor((1, 4, 8, 8), "float32"))
            R.output(y)
        return y


@I.ir_module
class Accumulates:
    """x + 1 at first, and more each time: what a run leaves behind, the next one reads."""

    @T.prim_func
    def add(x: T.Buffer((1, 4, 8, 8), "float32"), k: T.Buffer((1,), "float32"), y: T.Buffer((1, 4, 8, 8), "float32")):
        T.func_attr({"tirx.noalias": True})
        k[0] = k[0] + T.float32(1)
        for i, j, m in T.grid(4, 8, 8):
            y[0, i, j, m] = x[0, i, j, m] + k[0]

    @R.function
    def main(x: R.Tensor((1, 4, 8, 8), "float32")) -> R.Tensor((1, 4, 8, 8), "float32"):
        cls = Accumulates
        with R.dataflow():
            y = R.call_tir(cls.add, (x, R.const(np.zeros(1, "float32"))), out_ty=R.Tensor((1, 4, 8, 8), "float32"))
            R.output(y)
        return y


class AddsOne(nn.Module):
    def forward(self, data):
        return data + 1


@pytest.fixture(scope="module")
def adds_one():
    return import_model(Model("adds_one", (1, 4, 8, 8), AddsOne().eval()))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Overwrites, r"overwrites its input, 1 of 256 elements"),
        (Accumulates, r"differs by 1 from its own first run on the same input"),
    ],
)
def test_a_library_that_is_right_once_makes_no_package(adds_one, module, words, reproducers, tmp_path):
    for target in (LOCAL, ARM64):
        shutil.rmtree(reproducers, ignore_errors=True)
        scheduled = Scheduled(module, (), target)
        library = build(scheduled, tmp_path / f"{target.name}.so")
        with checking_device(target) as device:
            with pytest.raises(WrongResult, match=words):
                candidate = verify.Candidate(scheduled, library, None, (), adds_one.signature, adds_one.answers)
                verify.verify(candidate, device)
            (folder,) = reproducers.iterdir()
            assert re.search(words, replay(folder, device))


def test_a_library_that_is_right_for_one_input_makes_no_package(adds_one, tmp_path):
    """Also one that ignores its input, and one that loses a NaN."""
    answers = adds_one.answers
    for number, answer in enumerate(answers.each[1:], 1):
        expected = only(answer.expected)
        changed = expected + np.float32(2 * answer.tolerances[OUTPUT] + 1e-30)
        if answer.probe in (NAN, INFINITE):
            changed = np.nan_to_num(expected, nan=1.0, posinf=1.0, neginf=1.0)
        wrong = replace(answer, expected={OUTPUT: changed})
        each = (*answers.each[:number], wrong, *answers.each[number + 1 :])
        other = replace(adds_one)
        other.__dict__["answers"] = replace(answers, each=each)
        with checking_device(LOCAL) as device, pytest.raises(WrongResult, match=rf"\(input: {answer.probe}\)"):
            compile_package(other, LOCAL, None, tmp_path / "package", device=device)
    assert not (tmp_path / "package").exists()


class Deaf(nn.Module):
    def forward(self, data):
        return data * 1e-6 + 3


def test_a_network_that_is_nearly_deaf_is_compiled_and_timed_but_not_verified(tmp_path, capfd):
    imported = import_model(Model("deaf", (1, 4, 8, 8), Deaf().eval()))
    with checking_device(LOCAL) as device:
        package = compile_package(imported, LOCAL, None, tmp_path / "package", device=device)
    verified = package.manifest.verified
    assert verified.ran and not verified.holds and "a library that ignores its input could pass" in verified.reason
    assert cli.main(["bench", str(package.path), "--repeat", "1", "--json", str(tmp_path / "facts.json")]) == 0
    assert "not verified: PyTorch's answers to two inputs differ by" in capfd.readouterr().out
    assert json.loads((tmp_path / "facts.json").read_text())["blind"] == verified.reason
    assert Package(package.path).manifest.verified == verified, "a run on a device proves no more"


def test_a_device_checks_every_input_of_a_package(imported, compiled, tmp_path):
    with checking_device(LOCAL) as device:
        package = compiled(device, LOCAL)
        assert package.manifest.verified.inputs == len(package.answers.each) == len(imported.answers.each) > 2
        stack = np.load(package.folder / "answers0.npy")
        stack[1:] += np.float32(0.01)
        np.save(package.folder / "answers0.npy", stack)
        with pytest.raises(WrongResult, match=r"\(input: other\)"):
            bench_package(package, device, 1, 0, 1)


def test_answers_of_another_shape_are_refused(compiled, tmp_path):
    package = compiled(None, LOCAL)
    answers = np.load(package.folder / "answers0.npy")
    for other in (answers[1:], answers.astype(np.float64)):
        np.save(package.folder / "answers0.npy", other)
        with pytest.raises(PackageInvalid, match="the manifest says float32"):
            package.answers  # noqa: B018
