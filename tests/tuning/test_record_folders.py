"""Folders of records under hard use: cut at any byte, killed writers, several writers, no locks, no rights, no end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import te
from tvm.s_tir import meta_schedule as ms

from helpers.recording import MODELLED, TARGET, all_us, best_us, candidate, complaints, put, workload
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.errors import BadInput, RecordMismatch
from tvm_shufflenet.library.serial import json_trace_hash, record_json
from tvm_shufflenet.support import interrupts
from tvm_shufflenet.support.toolchain import TVM_VERSION
from tvm_shufflenet.tuning.measuring.trial import Cause
from tvm_shufflenet.tuning.records import journal, lines, upkeep
from tvm_shufflenet.tuning.records.folder import JOURNAL, RECORDS, WORKLOADS, RecordFolder
from tvm_shufflenet.tuning.records.journal import Damaged, Trial, checksum, decode, encode
from tvm_shufflenet.tuning.records.shipped import BEST, write_best
from tvm_shufflenet.tuning.records.store import RecordStore, trace_hash, workload_hash

TUNING_LOGS = Path(__file__).parents[2] / "tuning_logs"
FILES = (WORKLOADS, RECORDS, JOURNAL)


def small_workload() -> tvm.IRModule:
    """One loop, so that a line of a workload is short."""
    data = te.placeholder((64,), name="data")
    return tvm.IRModule({"main": te.create_prim_func([data, te.compute((64,), lambda i: data[i] + 1, name="b")])})


SMALL = small_workload()


def small_trial(number: int, mod=SMALL, kind="modelled") -> tuple[Trial, list]:
    """A trial and its record, another schedule for each number."""
    schedule = tvm.s_tir.Schedule(mod)
    (loop,) = schedule.get_loops(schedule.get_sblock("b"))
    schedule.split(loop, [None, number + 1])
    arguments = ms.arg_info.ArgInfo.from_prim_func(mod["main"])
    seconds = 1e-6 * (number + 1)
    record = ms.database.TuningRecord(schedule.trace, ms.database.Workload(mod), [seconds], TARGET, arguments)
    trace = trace_hash(schedule.trace)
    device = MODELLED if kind == "modelled" else "board"
    return Trial(workload_hash(mod), trace, "template", device, kind, TVM_VERSION, seconds), record_json(record)


def write(folder: RecordFolder, number: int, mod=SMALL) -> None:
    with folder.ours():
        folder.write(*small_trial(number, mod), mod)


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr(lines.os, "fsync", lambda _: None)


def seconds_of(folder: RecordFolder) -> set[float]:
    return {round(1e6 * entry.trial.seconds) for entry in folder.entries.values()}


# Crashes


def test_cut_at_any_byte_of_a_last_line_only_that_trial_is_lost(tmp_path, no_sync):
    """And it is known to be, and what is written next is whole."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for number in range(3):
        write(RecordFolder(whole), number)
    for name in FILES:
        content = (whole / name).read_bytes()
        start = content.rstrip(b"\n").rfind(b"\n") + 1
        # A workload takes thousands of bytes, all of one kind but for the ends.
        offsets = range(start, len(content), 1 if name != WORKLOADS else 211)
        for offset in offsets:
            shutil.rmtree(cut, ignore_errors=True)
            shutil.copytree(whole, cut)
            os.truncate(cut / name, offset)
            left = {1, 2, 3} if offset == len(content) - 1 else {1, 2} if name != WORKLOADS else set()
            folder = RecordFolder(cut)
            assert seconds_of(folder) == left, (name, offset)
            assert len(set(folder.finished())) == len(left)
            write(folder, 3)
            assert left | {4} <= seconds_of(folder) <= seconds_of(RecordFolder(cut)), (name, offset)


def start_writer(path: Path, first: int) -> int:
    """A forked process that writes every other number without end; returns its id."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            folder = RecordFolder(path)
            for number in range(first, 10**6, 2):
                write(folder, number)
        os._exit(1)
    return pid


def test_writers_that_are_killed_leave_whole_records(tmp_path):
    """Two at once, so that lines of both interleave; what one loses is the trial it was writing."""
    writers = [start_writer(tmp_path, first) for first in (0, 1)]
    for writer, least in zip(writers, (40, 60), strict=True):
        deadline = time.monotonic() + 60
        while len(RecordFolder(tmp_path).trials) < least and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(writer, signal.SIGKILL)
        assert os.waitpid(writer, 0)[1] == signal.SIGKILL
    folder = RecordFolder(tmp_path)
    numbers = sorted(us - 1 for us in seconds_of(folder))
    for first in (0, 1):
        own = [number for number in numbers if number % 2 == first]
        assert len(own) > 5 and own == list(range(first, own[-1] + 1, 2)), "one after the other, none missing"
    assert len(folder.trials) - len(set(folder.finished())) <= 2
    assert len((tmp_path / WORKLOADS).read_bytes().splitlines()) == 1, "both use one workload's line"
    recorded = [tuple(json.loads(line)[1][1]) for line in (tmp_path / RECORDS).read_bytes().splitlines()[:-1]]
    assert len(recorded) == len(set(recorded))
    assert len(folder.skipped) <= 1
    write(folder, 0)
    assert seconds_of(RecordFolder(tmp_path)) == seconds_of(folder)


def test_a_trial_whose_record_is_missing_is_made_again(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=8e-6, kind="modelled")
    shash = workload_hash(workload(8))
    assert len(store.trials(shash, MODELLED)) == 1
    (tmp_path / RECORDS).write_bytes(b"")
    assert RecordStore(tmp_path, TARGET).trials(shash, MODELLED) == []


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    folder = RecordFolder(tmp_path)
    write(folder, 0)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    with monkeypatch.context() as patch:

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(lines.os, "fsync", full)
        with pytest.raises(BadInput, match="No space left"):
            write(folder, 1)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before
    write(folder, 1)
    assert seconds_of(RecordFolder(tmp_path)) == {1, 2}


def test_an_interrupt_comes_after_the_trial_that_is_being_written(tmp_path, monkeypatch):
    folder = RecordFolder(tmp_path)
    write(folder, 0)
    sync = os.fsync

    def interrupted_sync(descriptor):
        os.kill(os.getpid(), signal.SIGINT)
        sync(descriptor)

    monkeypatch.setattr(lines.os, "fsync", interrupted_sync)
    with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
        write(folder, 1)
        pytest.fail("it goes on")
    assert seconds_of(RecordFolder(tmp_path)) == {1, 2}


# Several writers


def test_two_runs_share_a_folder(tmp_path):
    """Each sees what the other wrote, neither writes it again, and both have the union."""
    one, two = (RecordStore(tmp_path, TARGET) for _ in range(2))
    put(one, workload(8), seconds=8e-6, kind="modelled")
    put(two, workload(8), seconds=8e-6, kind="modelled")
    put(two, workload(12), seconds=12e-6, kind="modelled")
    one.catch_up()
    put(one, workload(12), seconds=12e-6, kind="modelled")  # it was under way when the other's came in
    assert all_us(one) == all_us(two) == all_us(RecordStore(tmp_path, TARGET)) == [8.0, 12.0]
    assert len((tmp_path / JOURNAL).read_bytes().splitlines()) == 2
    assert [len(store.trials(workload_hash(workload(12)), MODELLED)) for store in (one, two)] == [1, 1]


def test_a_folder_that_is_replaced_is_read_anew(tmp_path):
    store = RecordStore(tmp_path / "a", TARGET)
    for channels in (12, 8):
        put(store, workload(channels), seconds=channels * 1e-6)
    other = RecordStore(tmp_path / "b", TARGET)
    put(other, workload(8), seconds=1e-6)
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    put(store, workload(12), seconds=3e-6)
    again = RecordStore(tmp_path / "a", TARGET)
    assert again.skipped == [] and [best_us(again, workload(n)) for n in (8, 12)] == [1.0, 3.0]


# Checksums and schemas


def test_a_flipped_bit_is_never_a_record(tmp_path, no_sync):
    """In whatever digit of a time, decision or clock: valid JSON as before, but not what was measured."""
    for number in range(2):
        write(RecordFolder(tmp_path / "whole"), number)
    genuine = {entry.trial for entry in RecordFolder(tmp_path / "whole").entries.values()}
    flips = 0
    for name in (RECORDS, JOURNAL):
        content = (tmp_path / "whole" / name).read_bytes()
        for offset in range(0, len(content), 3 if name == JOURNAL else 17):
            for bit in (0, 1, 4):
                changed = bytearray(content)
                changed[offset] ^= 1 << bit
                shutil.rmtree(tmp_path / "flipped", ignore_errors=True)
                shutil.copytree(tmp_path / "whole", tmp_path / "flipped")
                (tmp_path / "flipped" / name).write_bytes(changed)
                folder = RecordFolder(tmp_path / "flipped")
                found = [entry.trial for entry in folder.entries.values()]
                assert set(found) <= genuine
                assert all(checksum(entry.line.body()) == entry.trial.record for entry in folder.entries.values())
                flips += len(found) < 2
    assert flips > 100


def test_a_record_that_stock_metaschedule_adds_to_ours_is_not_guessed_about(tmp_path):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=8e-6, kind="modelled")
    database = ms.database.JSONDatabase(str(tmp_path / WORKLOADS), str(tmp_path / RECORDS))
    chosen = candidate(workload(8), 1)
    entry = database.commit_workload(workload(8))
    database.commit_tuning_record(ms.database.TuningRecord(chosen.sch.trace, entry, [1e-9], TARGET, chosen.args_info))
    store = RecordStore(tmp_path, TARGET)
    assert all_us(store) == [8.0] and "nobody knows what timed it" in str(store.skipped[0])


def test_what_stock_metaschedule_wrote_first_is_adopted(tmp_path):
    database = ms.database.JSONDatabase(str(tmp_path / WORKLOADS), str(tmp_path / RECORDS))
    chosen, entry = candidate(workload(8)), database.commit_workload(workload(8))
    database.commit_tuning_record(ms.database.TuningRecord(chosen.sch.trace, entry, [3e-6], TARGET, chosen.args_info))
    put(RecordStore(tmp_path, TARGET), workload(12), seconds=12e-6)
    store = RecordStore(tmp_path, TARGET)
    assert all_us(store) == [3.0, 12.0] and store.skipped == []


def test_windows_line_ends_marks_and_spaces_change_nothing(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    for channels in (8, 12):
        put(store, workload(channels), seconds=channels * 1e-6)
    for name in FILES:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n").replace(b'",', b'" ,'))
    edited = RecordStore(tmp_path, TARGET)
    assert edited.skipped == [] and all_us(edited) == [8.0, 12.0]
    put(edited, workload(16), seconds=16e-6)
    assert all_us(RecordStore(tmp_path, TARGET)) == [8.0, 12.0, 16.0]


def edit(path: Path, change) -> None:
    """Edit the first line of a file as JSON."""
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps(change(json.loads(first))).encode() + b"\n" + rest)


def test_hand_edited_lines_are_told(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    for channels in (8, 12):
        put(store, workload(channels), seconds=channels * 1e-6)
    edit(tmp_path / JOURNAL, lambda line: line | {"seconds": 1e-9})
    found = RecordStore(tmp_path, TARGET)
    assert all_us(found) == [12.0] and "edited by hand" in str(found.skipped)
    edit(tmp_path / JOURNAL, lambda line: {k: v for k, v in line.items() if k != "crc32"} | {"seconds": 8e-6})
    assert all_us(RecordStore(tmp_path, TARGET)) == [8.0, 12.0], "taken at its word without a checksum"
    edit(tmp_path / RECORDS, lambda line: [line[0], [line[1][0], [8e-6], line[1][2], []]])
    found = RecordStore(tmp_path, TARGET)
    assert all_us(found) == [12.0] and "its checksum is another" in str(found.skipped[0])


def test_a_workload_that_is_not_its_hash_s_is_no_workload(tmp_path):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=8e-6)
    edit(tmp_path / WORKLOADS, lambda line: [str(int(line[0]) ^ 1), line[1]])
    assert complaints(RecordStore(tmp_path, TARGET)) == {(WORKLOADS, 1), (RECORDS, 1)}


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-1e-6", "0", "1e999", '"fast"', "null", "[]"])
def test_times_that_no_clock_shows_are_refused(tmp_path, seconds):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=8e-6)
    content = (tmp_path / RECORDS).read_text()
    assert "[8e-06]" in content
    (tmp_path / RECORDS).write_text(content.replace("[8e-06]", f"[{seconds}]"))
    (tmp_path / JOURNAL).unlink()
    assert complaints(RecordStore(tmp_path, TARGET)) == {(RECORDS, 1)}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((0, 0, 0), []),  # an instruction of nothing
        ((0, 0, 0), None),
        ((0, 0, 0, 2, 0), None),  # its block's name
        ((0, 1), [[10**6, 0]]),  # a decision of no instruction
        ((0, 1), [[-5, 0]]),
        ((0, 1, 0, 1), None),
        ((1, 0), None),
        ((3, 0, 2), None),  # a tensor's shape
        ((3, 0, 2, 0), None),
    ],
)
def test_what_tvm_would_crash_on_is_refused(tmp_path, place, value):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=8e-6)
    (tmp_path / JOURNAL).unlink()
    assert not RecordStore(tmp_path, TARGET).skipped

    def change(line: list) -> list:
        inside = line[1]
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        return line

    edit(tmp_path / RECORDS, change)
    assert complaints(RecordStore(tmp_path, TARGET)) == {(RECORDS, 1)}


def test_lines_of_a_newer_schema_are_left_alone_by_name(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    for channels in (8, 12):
        put(store, workload(channels), seconds=channels * 1e-6)
    edit(tmp_path / JOURNAL, lambda line: line | {"schema": 9})
    found = RecordStore(tmp_path, TARGET)
    assert all_us(found) == [12.0] and "written by a newer version (schema 9, this one knows 2)" in str(found.skipped)
    with pytest.raises(BadInput, match=r"is not pruned.*newer version"):
        upkeep.prune(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from([*Trial.__struct_fields__, "schema", "crc32"])


@pytest.mark.parametrize("name", [JOURNAL, RECORDS, WORKLOADS, BEST])
def test_half_a_character_is_no_text(tmp_path, name):
    put(RecordStore(tmp_path, TARGET), workload(8))
    line = b'{"trial": {"workload": "\\ud800"}, "workload": "\\ud800", "trace": "\\udc00"}\n'
    with open(tmp_path / name, "ab") as file:
        file.write(line)
    folder = upkeep.open_folder(tmp_path)
    assert [line.file for line in upkeep.verify(folder)] == [name]
    assert "not JSON" in str(folder.skipped[0]) and len(upkeep.summary(folder)) == 1


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_trial_or_damaged(data):
    with contextlib.suppress(Damaged):
        decode(data)


@given(st.dictionaries(fields, json_values, max_size=6))
def test_a_line_with_any_field_changed_is_damaged_or_the_same(changes):
    trial = Trial("1", "a", "template", "board", "measured", "0.27", seconds=0.5, target="t", record="r")
    line = json.loads(encode(trial))
    try:
        found = decode(json.dumps(line | changes).encode())
    except Damaged:
        return
    assert found == trial or changes.get("crc32", "") is None or "crc32" in changes


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_content_is_read_and_reported(tmp_path, data):
    """Lines of ours, of any JSON, and of any bytes, in any order and in any file."""
    good = tmp_path / "good"
    if not good.exists():
        for number in range(2):
            write(RecordFolder(good), number)
    ours = [line for name in FILES for line in (good / name).read_bytes().splitlines()]
    line = st.sampled_from(ours) | json_values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=40)
    made = tmp_path / "made"
    made.mkdir(exist_ok=True)
    for name in FILES:
        (made / name).write_bytes(b"\n".join(data.draw(st.lists(line, max_size=5))))
    folder = RecordFolder(made)
    for entry in folder.entries.values():
        assert folder.record(entry).run_secs


def test_a_trace_s_hash_needs_no_tvm():
    for number in range(4):
        mod = workload(8)
        trace = candidate(mod, number % 2).sch.trace
        body = record_json(ms.database.TuningRecord(trace, ms.database.Workload(mod), [1.0], TARGET, []))
        assert json_trace_hash(json.loads(json.dumps(body))[0]) == trace_hash(trace)


# Versions and targets


def put_version(folder: Path, version: str, seconds: float, decision: int = 0) -> None:
    store = RecordStore(folder, TARGET)
    chosen = candidate(workload(8), decision)
    trial = Trial(
        workload_hash(workload(8)), trace_hash(chosen.sch.trace), "template", "board", "measured", version, seconds
    )
    entry = ms.database.Workload(workload(8))
    record = ms.database.TuningRecord(chosen.sch.trace, entry, [seconds], TARGET, chosen.args_info)
    store.append(trial, record, workload(8))


def test_records_of_another_tvm_are_refused_by_name(tmp_path):
    put_version(tmp_path, "0.26.0", 1e-6)
    with pytest.raises(RecordMismatch, match=rf"are of TVM 0\.26\.0, this is {TVM_VERSION}") as caught:
        RecordStore(tmp_path, TARGET)
    assert f"tvm-shufflenet tune ... --records {tmp_path}-{TVM_VERSION}" in str(caught.value)


def test_shipped_records_of_another_tvm_are_left_out_by_name_and_stop_nobody(tmp_path):
    put_version(tmp_path / "old", TVM_VERSION, 1e-6)
    lines = [
        msgspec.structs.replace(best, trial=msgspec.structs.replace(best.trial, tvm="0.26.0"))
        for best in RecordStore(tmp_path / "old", TARGET).best("measured")
    ]
    write_best(tmp_path / "shipped", lines)
    store = RecordStore(tmp_path / "own", TARGET, tmp_path / "shipped")
    assert store.refusal.startswith(f"left out: 1 records in {tmp_path}/shipped are of TVM 0.26.0, this is ")
    with pytest.raises(RecordMismatch, match=r"of TVM 0\.26\.0"):
        RecordStore(tmp_path / "shipped", TARGET)


def test_records_of_another_tvm_among_ours_are_not_used(tmp_path):
    put_version(tmp_path, TVM_VERSION, 8e-6)
    put_version(tmp_path, "0.26.0", 1e-6, decision=1)
    store = RecordStore(tmp_path, TARGET)
    assert all_us(store) == [8.0] and store.other_versions == {"0.26.0": 1}
    assert store.refusal == (
        f"left out: 1 records in {tmp_path} are of TVM 0.26.0, this is {TVM_VERSION}; tune again to have them anew"
    )
    assert len(store.trials(workload_hash(workload(8)), "measured")) == 1


def test_failures_for_another_target_are_not_ours(tmp_path):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=None, cause=Cause.RUN.value)
    other = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"})
    shash = workload_hash(workload(8))
    assert [len(RecordStore(tmp_path, target).trials(shash, "measured")) for target in (TARGET, other)] == [1, 0]


# Rights and locks


@contextlib.contextmanager
def as_nobody():
    """File rights do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def reachable():
    """A folder outside of pytest's, which only its owner may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_folder_is_told_before_anything_is_measured(reachable):
    folder = reachable / "records"
    put(RecordStore(folder, TARGET), workload(8), seconds=8e-6)
    for path in folder.iterdir():
        path.chmod(0o666)
    for path, mode in ((folder, 0o555), (folder / JOURNAL, 0o444)):
        path.chmod(mode)
        with as_nobody():
            store = RecordStore(folder, TARGET)
            assert all_us(store) == [8.0], "it can be read"
            with pytest.raises(BadInput, match=r"cannot write .*records.*(Permission denied|Read-only)"):
                store.prepare()
        path.chmod(0o777)
    with as_nobody(), pytest.raises(BadInput, match="cannot write"):
        RecordStore(Path("/proc/records"), TARGET).prepare()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has none, as NFS without its lock daemon and some FUSE mounts."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_a_file_stands_in_and_the_user_is_told(tmp_path, no_locks):
    store = RecordStore(tmp_path, TARGET)
    store.prepare()
    assert len(store.notes) == 1 and "has no file locks" in store.notes[0]
    put(store, workload(8), seconds=8e-6)
    assert all_us(RecordStore(tmp_path, TARGET)) == [8.0] and not (tmp_path / lines.OWNER).exists()


def test_without_locks_a_killed_run_is_named_not_overrun(tmp_path, no_locks, monkeypatch):
    monkeypatch.setattr(lines, "PATIENCE_S", 0.1)
    (tmp_path / lines.OWNER).write_text("process 12 on elsewhere\n")
    with pytest.raises(BadInput, match=r"process 12 on elsewhere.*if it has ended, remove .*\.writer"):
        RecordStore(tmp_path, TARGET).prepare()


def test_a_record_that_nobody_can_read_is_no_knowledge(tmp_path, monkeypatch):
    put(RecordStore(tmp_path, TARGET), workload(8), search="this one")
    store = RecordStore(tmp_path, TARGET)
    earlier = store.hide("this one")

    def unreadable(*_arguments):
        raise ValueError("not what TVM wrote")

    monkeypatch.setattr(RecordFolder, "record", unreadable)
    ((trial, record),) = earlier.reveal()
    assert trial.seconds == 0.5 and record is None
    assert "not what TVM wrote" in str(store.skipped)


# Size


def test_a_large_file_is_read_in_little_memory(tmp_path):
    """Of a gigabyte it is the same; one line of it is longer than any of ours."""
    folder = RecordFolder(tmp_path)
    for number in range(2):
        write(folder, number)
    line = (tmp_path / RECORDS).read_bytes().splitlines()[0] + b"\n"
    with open(tmp_path / RECORDS, "ab") as file:
        for _ in range(5 * 2**20 // len(line)):
            file.write(line)
        file.write(b"[" * (60 * 2**20) + b"\n")
    tracemalloc.start()
    folder = RecordFolder(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(folder.entries), len(folder.skipped)) == (2, 1)
    assert peak_bytes < 5 * lines.LONGEST_BYTES < (tmp_path / RECORDS).stat().st_size
    tracemalloc.start()
    steps = []
    assert len(upkeep.verify(folder, lambda *step: steps.append(step))) == 1 and steps == [(0, 2), (1, 2)]
    changes = upkeep.prune(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert changes.records > 1000 and changes.lines == 1 and peak_bytes < 5 * lines.LONGEST_BYTES
    assert RecordFolder(tmp_path).skipped == [] and len(RecordFolder(tmp_path).entries) == 2


# records list, best, merge, prune, verify


@pytest.fixture
def two_folders(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, channels, us in ((one, 8, 8), (one, 12, 12), (two, 12, 6), (two, 16, 16)):
        put(RecordStore(folder, TARGET), workload(channels), seconds=us * 1e-6, kind="modelled", decision=us == 6)
    put(RecordStore(two, TARGET), workload(16), seconds=None, cause=Cause.WRONG.value, kind="modelled", decision=1)
    return one, two


def call(*words: object) -> int:
    return cli.main(["records", *map(str, words)])


def facts(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_merging_makes_the_union_once(two_folders, tmp_path, capsys):
    one, two = two_folders
    before = {path: path.read_bytes() for folder in two_folders for path in folder.iterdir()}
    assert call("merge", one, two, "--into", tmp_path / "all", "--json", "-") == 0
    assert facts(capsys) == {"schema": 1, "records": 4, "trials": 1, "lines": 0}
    assert call("merge", one, two, "--into", tmp_path / "all") == 0
    assert "0 records and 0 failed trials added" in capsys.readouterr().out
    store = RecordStore(tmp_path / "all", TARGET)
    assert all_us(store, MODELLED) == [6.0, 8.0, 12.0, 16.0] and store.skipped == []
    assert len(store.trials(workload_hash(workload(16)), MODELLED)) == 2
    assert {path: path.read_bytes() for folder in two_folders for path in folder.iterdir()} == before
    assert call("merge", one, "--into", one) == 2 and call("merge", tmp_path / "none", "--into", one) == 2


def test_listing_and_the_best(two_folders, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # narrower tables fold long names
    assert call("list", *two_folders) == 0
    text = capsys.readouterr().out
    assert "emulated:cortex-a72" in text and "failed trials: 1 wrong" in text
    assert call("list", two_folders[1], "--json", "-") == 0
    (group,) = facts(capsys)["folders"][0]["groups"]
    assert (group["workloads"], group["records"], group["tvm"]) == (2, 2, "0.27")
    assert call("best", *two_folders, "--json", "-") == 0
    assert [round(1e6 * row["seconds"]) for row in facts(capsys)["records"]] == [12, 8, 16, 6]
    shipped = TUNING_LOGS / "cortex-a53"
    assert call("best", shipped) == 0 and "1x24x56x56" in capsys.readouterr().out


def test_pruning_keeps_the_fastest_and_what_was_tried(two_folders, tmp_path, capsys):
    everything = tmp_path / "all"
    call("merge", *two_folders, "--into", everything)
    for name in FILES:
        content = (everything / name).read_bytes()
        (everything / name).write_bytes(b"{torn\n" + content if name == JOURNAL else content + b"[torn")
    writer = RecordStore(everything, TARGET)
    before = (everything / RECORDS).read_bytes()
    capsys.readouterr()
    assert call("prune", everything, "--keep", 1) == 0
    assert "1 records, 0 trials, 3 damaged lines dropped" in capsys.readouterr().out
    assert (everything / f"{RECORDS}~").read_bytes() == before
    store = RecordStore(everything, TARGET)
    assert all_us(store, MODELLED) == [6.0, 8.0, 16.0] and store.skipped == []
    assert len(store.trials(workload_hash(workload(12)), MODELLED)) == 2, "the slower one is not tried again"
    put(writer, workload(20), seconds=2e-6, kind="modelled")  # a run that had the folder open all the time
    again = RecordStore(everything, TARGET)
    assert all_us(again, MODELLED) == [2.0, 6.0, 8.0, 16.0] and again.skipped == []
    assert call("verify", everything) == 0
    content = {name: (everything / name).read_bytes() for name in FILES}
    assert call("prune", everything) == 0
    assert {name: (everything / name).read_bytes() for name in FILES} == content, "nothing is left to drop"


def test_a_damaged_workload_that_is_pruned_moves_no_other(two_folders):
    one, _ = two_folders
    content = (one / WORKLOADS).read_bytes()
    (one / WORKLOADS).write_bytes(b"torn" + content)
    assert call("prune", one) == 0
    store = RecordStore(one, TARGET)
    assert store.skipped == [] and best_us(store, workload(12)) == 12.0
    assert len(ms.database.JSONDatabase(str(one / WORKLOADS), str(one / RECORDS))) == 1


def test_verifying_names_what_is_wrong_and_the_next_command(two_folders, capsys):
    one, two = two_folders
    assert call("verify", one, two) == 0 and "no bad lines" in capsys.readouterr().out
    edit(one / JOURNAL, lambda line: line | {"device": "board"})
    assert call("verify", one, two) == 2
    captured = capsys.readouterr()
    assert f"{JOURNAL}, line 1: its checksum is another" in captured.out
    assert captured.err.count("\n") == 1 and f"records prune {one}" in captured.err
    assert call("verify", *(TUNING_LOGS).glob("cortex-*")) == 0


def test_verifying_replays_every_schedule(tmp_path, capsys):
    trial, body = small_trial(0)
    body[0][0][0][2] = ["another block", "main"]
    trial = msgspec.structs.replace(trial, trace=json_trace_hash(body[0]))
    folder = RecordFolder(tmp_path)
    with folder.ours():
        folder.write(trial, body, SMALL)
    assert call("verify", tmp_path) == 2
    assert "its schedule does not apply" in capsys.readouterr().out


def test_journal_lines_of_both_schemas(tmp_path):
    trial = Trial("1", "a", "template", "board", "measured", "0.27", seconds=0.5)
    assert decode(msgspec.json.encode(trial)) == decode(encode(trial)) == trial
    assert json.loads(encode(trial))["schema"] == journal.SCHEMA
