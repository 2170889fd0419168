"""Tuning records on disk: round trips, stock MetaSchedule's view of them, and every kind of damage."""

from __future__ import annotations

import json

import pytest
import tvm
from tvm.s_tir import meta_schedule as ms

from helpers.recording import MODELLED, TARGET, all_us, best_us, candidate, complaints, put, workload
from tvm_shufflenet.errors import BadInput, RecordMismatch
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.tuning.measuring.trial import Cause
from tvm_shufflenet.tuning.records import lines
from tvm_shufflenet.tuning.records.store import (
    JOURNAL,
    RECORDS,
    WORKLOADS,
    RecordStore,
    trace_hash,
    workload_hash,
)
from tvm_shufflenet.workflow.schedules import records_folders

OTHER_TARGET = find_target("cortex-a76").tvm()


@pytest.fixture
def folder(tmp_path):
    """Two workloads with two records each, and one failure, on disk."""
    store = RecordStore(tmp_path / "logs", TARGET)
    for channels in (8, 12):
        put(store, workload(channels), seconds=channels * 1e-6)
        put(store, workload(channels), seconds=channels * 2e-6, decision=1)
    put(store, workload(8), seconds=None, decision=1, cause=Cause.RUN.value)
    return tmp_path / "logs"


def damage(path, number: int, content: bytes) -> None:
    """Put ``content`` in the place of line ``number``, counted from 1."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = content
    path.write_bytes(b"".join(lines))


# Round trips


def test_records_survive_the_disk(folder):
    store = RecordStore(folder, TARGET)
    assert store.skipped == [] and store.other_targets == 0
    assert all_us(store) == [8.0, 12.0, 16.0, 24.0]
    assert best_us(store, workload(8)) == 8.0 and best_us(store, workload(12)) == 12.0
    assert best_us(store, workload(16)) is None


def test_a_record_s_trace_replays_to_the_schedule_that_was_measured(folder):
    mod = workload(8)
    record = RecordStore(folder, TARGET).database().query_tuning_record(mod, TARGET, "main")
    replayed = tvm.s_tir.Schedule(mod)
    record.trace.apply_to_schedule(replayed, remove_postproc=False)
    tvm.ir.assert_structural_equal(replayed.mod, candidate(mod).sch.mod)
    assert trace_hash(record.trace) == trace_hash(candidate(mod).sch.trace)


def test_stock_metaschedule_reads_what_is_written(folder):
    database = ms.database.JSONDatabase(str(folder / WORKLOADS), str(folder / RECORDS))
    assert len(database) == 4
    assert 1e6 * float(database.query_tuning_record(workload(12), TARGET, "main").run_secs[0]) == pytest.approx(12.0)


def test_what_stock_metaschedule_writes_is_read_as_measured(tmp_path):
    database = ms.database.JSONDatabase(str(tmp_path / WORKLOADS), str(tmp_path / RECORDS))
    mod = workload()
    chosen, entry = candidate(mod), database.commit_workload(mod)
    database.commit_tuning_record(ms.database.TuningRecord(chosen.sch.trace, entry, [3e-6], TARGET, chosen.args_info))
    store = RecordStore(tmp_path, TARGET)
    assert store.skipped == []
    assert best_us(store, mod) == 3.0 and all_us(store, MODELLED) == []


def test_an_empty_or_missing_folder_has_no_records(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        store = RecordStore(folder, TARGET)
        assert len(store.database()) == 0 and store.skipped == []
        assert store.trials(workload_hash(workload()), "measured") == []
    assert not (tmp_path / "missing").exists(), "reading makes nothing"


def test_a_reopened_store_goes_on_where_it_ended(folder):
    before = {name: (folder / name).read_bytes() for name in (WORKLOADS, RECORDS, JOURNAL)}
    store = RecordStore(folder, TARGET)
    put(store, workload(8), seconds=1e-6)
    put(store, workload(16), seconds=16e-6)
    assert best_us(store, workload(8)) == 1.0, "what was appended is used at once"
    for name, content in before.items():
        assert (folder / name).read_bytes().startswith(content), f"{name} is only ever appended to"
    assert len((folder / WORKLOADS).read_bytes().splitlines()) == 3, "a workload is written once"
    assert [best_us(RecordStore(folder, TARGET), workload(n)) for n in (8, 12, 16)] == [1.0, 12.0, 16.0]


def test_two_stores_that_write_to_one_folder_do_not_mix_up_workloads(tmp_path):
    """Two tuning runs side by side, each with an operator that the other has not seen."""
    first, second = (RecordStore(tmp_path, TARGET) for _ in range(2))
    put(first, workload(8), seconds=8e-6)
    put(second, workload(12), seconds=12e-6)
    put(first, workload(16), seconds=16e-6)
    store = RecordStore(tmp_path, TARGET)
    assert [best_us(store, workload(n)) for n in (8, 12, 16)] == [8.0, 12.0, 16.0]


# Damage


TORN = b'[1,[[[["GetSBlock",[],["pointwise","ma'
DAMAGED_LINES = {
    "torn": TORN + b"\n",
    "blank": b"\n",
    "garbage": b"\xff\xfe\x00 what is this\n",
    "an object": b'{"a": 1}\n',
    "a number": b"17\n",
    "null": b"null\n",
    "a list of nothing": b"[]\n",
    "nonsense in place": b'[0,[[[],[]],[1],"nothing",[]]]\n',
}


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_record_is_reported_by_its_line_and_the_others_are_used(folder, name):
    damage(folder / RECORDS, 1, DAMAGED_LINES[name])
    content = (folder / RECORDS).read_bytes()
    store = RecordStore(folder, TARGET)
    assert complaints(store) == {(RECORDS, 1)}
    assert f"{RECORDS}, line 1" in str(store.skipped[0])
    assert all_us(store) == [12.0, 16.0, 24.0]
    assert (folder / RECORDS).read_bytes() == content, "never deleted"


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_journal_line_is_reported(folder, name):
    damage(folder / JOURNAL, 5, DAMAGED_LINES[name])
    store = RecordStore(folder, TARGET)
    assert complaints(store) == {(JOURNAL, 5)}
    assert len(store.trials(workload_hash(workload(8)), "measured")) == 2


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_workload_costs_its_own_records_alone(folder, name):
    """The lines after it keep their numbers, and what is appended gets the right one."""
    damage(folder / WORKLOADS, 1, DAMAGED_LINES[name])
    store = RecordStore(folder, TARGET)
    assert complaints(store) == {(WORKLOADS, 1), (RECORDS, 1), (RECORDS, 2)}
    assert all_us(store) == [12.0, 24.0]
    put(store, workload(16), seconds=16e-6)
    put(store, workload(8), seconds=4e-6)
    again = RecordStore(folder, TARGET)
    assert complaints(again) == complaints(store)
    assert [best_us(again, workload(n)) for n in (8, 12, 16)] == [4.0, 12.0, 16.0]


def test_a_torn_last_line_is_closed_not_joined(folder):
    for name in (WORKLOADS, RECORDS, JOURNAL):
        with open(folder / name, "ab") as file:
            file.write(TORN)
    store = RecordStore(folder, TARGET)
    torn = {(WORKLOADS, 3), (RECORDS, 5), (JOURNAL, 6)}
    assert complaints(store) == torn
    put(store, workload(16), seconds=16e-6)
    again = RecordStore(folder, TARGET)
    assert complaints(again) == torn
    assert best_us(again, workload(16)) == 16.0 and best_us(again, workload(12)) == 12.0
    assert TORN in (folder / RECORDS).read_bytes().splitlines()


def test_a_line_torn_before_its_end_was_written_is_still_whole(folder):
    """Only the newline is missing: the record is good, and stays so when another follows."""
    content = (folder / RECORDS).read_bytes()
    (folder / RECORDS).write_bytes(content.rstrip(b"\n"))
    store = RecordStore(folder, TARGET)
    assert len(all_us(store)) == 4 and store.skipped == []
    put(store, workload(16), seconds=16e-6)
    assert len(all_us(RecordStore(folder, TARGET))) == 5


def test_a_folder_of_garbage_still_takes_records(tmp_path):
    for name in (WORKLOADS, RECORDS, JOURNAL):
        (tmp_path / name).write_bytes(bytes(range(256)))
    store = RecordStore(tmp_path, TARGET)
    assert {line.file for line in store.skipped} == {WORKLOADS, RECORDS, JOURNAL}
    put(store, workload(8), seconds=8e-6)
    assert all_us(RecordStore(tmp_path, TARGET)) == [8.0]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(BadInput, match="cannot read"):
        RecordStore(tmp_path / "logs", TARGET)


def test_a_failed_write_is_told(tmp_path, monkeypatch):
    store = RecordStore(tmp_path, TARGET)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lines.os, "fsync", full)
    with pytest.raises(BadInput, match=r"cannot write .*No space left"):
        put(store, workload())


# Targets


def test_records_of_another_target_alone_are_refused(folder):
    with pytest.raises(RecordMismatch, match="4 records") as refused:
        RecordStore(folder, OTHER_TARGET)
    assert refused.value.exit_code == 2


def test_records_of_another_target_among_ours_are_skipped(folder):
    put(RecordStore(folder, TARGET), workload(8), seconds=1e-6, decision=1, target=OTHER_TARGET)
    store = RecordStore(folder, TARGET)
    assert store.other_targets == 1 and best_us(store, workload(8)) == 8.0
    other = RecordStore(folder, OTHER_TARGET)
    assert other.other_targets == 4 and all_us(other) == [1.0]


def test_the_number_of_cores_makes_no_other_target(folder):
    config = find_target("arm64").tvm_config | {"num-cores": 64}
    assert len(all_us(RecordStore(folder, tvm.target.Target(config)))) == 4


@pytest.mark.parametrize("change", [{"mcpu": "cortex-a53"}, {"mattr": ["+neon", "+dotprod"]}, {"mtriple": "x86_64"}])
def test_another_cpu_feature_or_triple_does(folder, change):
    with pytest.raises(RecordMismatch):
        RecordStore(folder, tvm.target.Target(find_target("arm64").tvm_config | change))


# Kinds of clock


def test_modelled_and_measured_times_never_compete(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=1e-6, kind="modelled", decision=0)
    put(store, workload(8), seconds=5e-6, kind="measured", decision=1)
    put(store, workload(12), seconds=2e-6, kind="modelled")
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert all_us(opened, MODELLED) == [1.0, 2.0] and all_us(opened, "measured") == [5.0]
        assert all_us(opened) == [5.0], "where anything was measured, only that"


def test_a_record_whose_journal_line_is_damaged_belongs_to_no_clock(folder):
    """It may have been modelled, and must then not pass for measured."""
    damage(folder / JOURNAL, 1, TORN + b"\n")
    store = RecordStore(folder, TARGET)
    assert all_us(store) == all_us(store, "measured") == [12.0, 16.0, 24.0]
    assert all_us(store, MODELLED) == []


def test_without_measured_times_modelled_ones_serve(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=1e-6, kind="modelled")
    assert all_us(store) == all_us(store, MODELLED) == [1.0] and all_us(store, "measured") == []


@pytest.mark.parametrize("order", [("modelled", "measured"), ("measured", "modelled")])
def test_one_schedule_timed_by_both_clocks_keeps_them_apart(tmp_path, order):
    """The template's default is tried first on every device, so this happens to everyone who tunes on two."""
    seconds = {"modelled": 1e-6, "measured": 5e-6}
    store = RecordStore(tmp_path, TARGET)
    for kind in order:
        put(store, workload(8), seconds=seconds[kind], kind=kind)
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert all_us(opened, MODELLED) == [1.0] and all_us(opened, "measured") == [5.0]
        assert all_us(opened) == [5.0]


def test_two_modelled_cores_are_two_clocks(tmp_path):
    other = "emulated:cortex-a53"
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=1e-6, kind="modelled")
    put(store, workload(8), seconds=9e-6, kind="modelled", device=other, decision=1)
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert all_us(opened, MODELLED) == [1.0] and all_us(opened, other) == [9.0]
        preferred = opened.database(other).get_all_tuning_records()
        assert [round(1e6 * float(record.run_secs[0]), 6) for record in preferred] == [9.0]
        assert len(opened.database("emulated:cortex-a55").get_all_tuning_records()) == 1, "better than none"


# Threads


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_records_for_another_number_of_threads_are_no_records(tmp_path, order):
    """Not even of one and the same schedule, and the other number's trials are not counted."""
    store = RecordStore(tmp_path, TARGET)
    for threads in order:
        put(store, workload(8), seconds=8e-6 / threads, threads=threads)
    for opened in (store, RecordStore(tmp_path, TARGET)):
        for threads, us in ((1, [8.0]), (2, [4.0]), (4, [])):
            database = opened.database(threads=threads)
            assert [1e6 * float(r.run_secs[0]) for r in database.get_all_tuning_records()] == pytest.approx(us)
            assert len(opened.database_of("measured", threads)) == len(us)
            assert len(opened.trials(workload_hash(workload(8)), "measured", threads)) == len(us)


def test_a_journal_line_from_before_threads_were_noted_means_one(folder):
    assert all("threads" not in json.loads(line) for line in (folder / JOURNAL).read_text().splitlines())
    store = RecordStore(folder, TARGET)
    assert all_us(store) == [8.0, 12.0, 16.0, 24.0] and len(store.database(threads=2)) == 0


def test_a_clock_with_records_for_other_threads_alone_is_passed_over(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=1e-6, kind="modelled")
    put(store, workload(8), seconds=5e-6, kind="measured", threads=2, decision=1)
    assert all_us(store) == [1.0]


# Trials


def test_trials_are_counted_by_workload_clock_and_device(tmp_path):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), device="board")
    put(store, workload(8), device="other", decision=1)
    put(store, workload(8), kind="modelled")
    put(store, workload(12))
    shash = workload_hash(workload(8))
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert [trial.device for trial in opened.trials(shash, "measured")] == ["board", "other"]
        assert [trial.device for trial in opened.trials(shash, MODELLED)] == [MODELLED]
        assert opened.trials(workload_hash(workload(16)), "measured") == []


@pytest.mark.parametrize(("cause", "counts"), [("build", 1), ("run", 1), ("device", 0), ("timeout", 0)])
def test_a_failed_schedule_is_not_tried_again_but_one_that_a_device_failed_is(tmp_path, cause, counts):
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), seconds=None, cause=Cause(cause).value)
    assert all_us(store) == []
    assert not (tmp_path / RECORDS).exists() or not (tmp_path / RECORDS).read_bytes()
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert len(opened.trials(workload_hash(workload(8)), "measured")) == counts


def test_a_trial_is_one_line_of_plain_json(tmp_path):
    put(RecordStore(tmp_path, TARGET), workload(8), seconds=0.25, kind="modelled", device="emulated:cortex-a72")
    (line,) = (tmp_path / JOURNAL).read_text().splitlines()
    trial = json.loads(line)
    assert (trial["seconds"], trial["kind"], trial["device"]) == (0.25, "modelled", "emulated:cortex-a72")
    assert trial["workload"] == workload_hash(workload(8)) and "error" not in trial


def test_hashes_tell_workloads_and_decisions_apart():
    assert workload_hash(workload(8)) == workload_hash(workload(8)) != workload_hash(workload(12))
    mod = workload(8)
    first, same, other = (trace_hash(candidate(mod, decision).sch.trace) for decision in (0, 0, 1))
    assert first == same != other


# Shipped records


def test_shipped_records_are_read_and_never_written(folder, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    own = tmp_path / "own"
    store = RecordStore(own, TARGET, shipped=folder)
    assert best_us(store, workload(8)) == 8.0
    put(store, workload(8), seconds=2e-6)
    put(store, workload(16), seconds=16e-6)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    alone = RecordStore(own, TARGET)
    assert alone.skipped == [] and all_us(alone) == [2.0, 16.0], "complete without the shipped ones"
    both = RecordStore(own, TARGET, shipped=folder)
    assert [best_us(both, workload(n)) for n in (8, 12, 16)] == [2.0, 12.0, 16.0]
    assert len(both.trials(workload_hash(workload(8)), "measured")) == 4


def test_a_shipped_folder_that_is_the_own_one_is_read_once(folder):
    assert len(all_us(RecordStore(folder, TARGET, shipped=folder))) == 4


def test_a_missing_shipped_folder_is_no_matter(folder, tmp_path):
    assert len(all_us(RecordStore(folder, TARGET, shipped=tmp_path / "none"))) == 4


def test_the_shipped_records_are_found_wherever_the_tool_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    written, shipped = records_folders(find_target("arm64"), None)
    assert written == tmp_path / "data/tvm-shufflenet/tuning_logs/arm64"
    assert (shipped.parent / "README.md").is_file()
