"""Shipped records: small, found by hash, lent to targets like their own, and tried where they compete with own ones."""

from __future__ import annotations

import json

import msgspec
import pytest

from helpers.recording import MODELLED, TARGET, all_us, candidate, put, workload
from tvm_shufflenet.errors import RecordMismatch
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.targets import find_target, targets
from tvm_shufflenet.tuning.records import store as records
from tvm_shufflenet.tuning.records.journal import Setting
from tvm_shufflenet.tuning.records.shipped import BEST, Best, write_best
from tvm_shufflenet.tuning.records.store import RecordStore, trace_hash, workload_hash
from tvm_shufflenet.tuning.search.curve import Curve, curves
from tvm_shufflenet.workflow import schedules
from tvm_shufflenet.workflow.schedules import open_records

A72, A76 = (find_target(name).tvm() for name in ("cortex-a72", "cortex-a76"))


@pytest.fixture
def shipped(tmp_path):
    """The best records of two workloads, tuned for a Cortex-A72; of the first, there was a slower one and a failure."""
    store = RecordStore(tmp_path / "work", A72)
    put(store, workload(8), seconds=9e-6, kind="modelled", target=A72)
    put(store, workload(8), seconds=8e-6, kind="modelled", target=A72, decision=1)
    put(store, workload(8), seconds=None, kind="modelled", cause="wrong")
    put(store, workload(12), seconds=12e-6, kind="modelled", target=A72)
    folder = tmp_path / "shipped"
    write_best(folder, store.best(MODELLED))
    return folder


def us(store: RecordStore, *channels: int, clocks=(), threads: int = 1) -> list[float | None]:
    """What a compilation of a network with these workloads would choose."""
    store.meet(workload(n) for n in channels)
    database = store.database(*clocks, threads=threads)
    found = [database.query_tuning_record(workload(n), TARGET, "main") for n in channels]
    return [None if record is None else round(1e6 * float(record.run_secs[0]), 6) for record in found]


def test_the_best_of_each_workload_is_one_short_line(shipped):
    lines = [msgspec.json.decode(line, type=Best) for line in (shipped / BEST).read_bytes().splitlines()]
    assert sorted(line.trial.seconds for line in lines) == [8e-6, 12e-6]
    assert (shipped / BEST).stat().st_size < 2 * 4000
    first = next(line for line in lines if line.trial.seconds == 8e-6)
    assert first.trial.trace == trace_hash(candidate(workload(8), 1).sch.trace)
    assert trace_hash(first.record(workload(8)).trace) == first.trial.trace


def test_they_are_used_for_their_own_target_and_replay(shipped, tmp_path):
    for store in (RecordStore(shipped, A72), RecordStore(tmp_path / "own", A72, shipped)):
        assert us(store, 8, 12, 16) == [8.0, 12.0, None] and store.skipped == []
        assert us(store, 8, threads=2) == [None]
        assert all_us(store, MODELLED) == [8.0, 12.0], "a search on the same clock learns from them"
        assert store.trials(workload_hash(workload(8)), MODELLED) == [], "a search tries them itself"


def test_curves_are_of_own_searches_in_the_order_they_were_made(shipped, tmp_path):
    store = RecordStore(tmp_path / "own", A72, shipped)
    for decision, seconds in enumerate((9e-6, None, 7e-6)):
        cause = None if seconds else "run"
        put(store, workload(8), seconds, "modelled", decision, cause, target=A72)
    put(store, workload(8), 1e-6, target=A72, threads=2)
    task = OperatorTask("operator", workload(8), 3)
    for opened in (store, RecordStore(tmp_path / "own", A72, shipped)):
        (found,) = curves([task], opened, Setting(MODELLED, 1))
        assert found == Curve("operator", 3, "template", (9.0, 9.0, 7.0), 1)
        assert list(curves([task], opened, Setting(MODELLED, 4))) == []


def test_own_records_compete_with_those_of_their_clock(shipped, tmp_path):
    store = RecordStore(tmp_path / "own", A72, shipped)
    put(store, workload(8), seconds=7e-6, kind="modelled", target=A72)
    put(store, workload(12), seconds=20e-6, kind="modelled", target=A72)
    assert us(store, 8, 12) == [7.0, 12.0]


def test_they_stand_in_where_another_clock_has_no_record(shipped, tmp_path):
    store = RecordStore(tmp_path / "own", A72, shipped)
    put(store, workload(8), 50e-6, target=A72, decision=1)
    assert us(store, 8, 12) == [50.0, 12.0], "the shipped schedule was tried on this clock"


def test_another_target_borrows_them_where_it_has_none_of_its_own(shipped, tmp_path):
    store = RecordStore(tmp_path / "own", TARGET, shipped, A72)
    assert us(store, 8, 12) == [8.0, 12.0]
    assert all_us(store, MODELLED) == [], "their times mean nothing for it"
    assert store.trials(workload_hash(workload(8)), MODELLED) == []
    assert store.stand_in(workload(8), MODELLED) is not None and store.stand_in(workload(16), MODELLED) is None
    put(store, workload(8), 50e-6, "modelled", decision=1)
    assert us(store, 8, 12) == [50.0, 12.0] and store.stand_in(workload(8), MODELLED) is not None


def test_a_few_trials_do_not_hide_a_shipped_record_that_was_not_among_them(shipped, tmp_path):
    """The first of them measured the default: that it is slower than what is shipped, nothing has shown."""
    store = RecordStore(tmp_path / "own", TARGET, shipped, A72)
    put(store, workload(8), 5e-6, "modelled")
    assert us(store, 8, 12) == [8.0, 12.0]
    assert any("1 operator by shipped records" in note and "fewer than 32 trials" in note for note in store.notes)


def test_many_trials_do(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PROVEN", 2)
    store = RecordStore(tmp_path / "own", TARGET, shipped, A72)
    put(store, workload(8), 50e-6, "modelled")
    assert us(store, 8) == [8.0]
    put(store, workload(8), 40e-6, "modelled")
    assert us(store, 8, 12) == [40.0, 12.0] and store.notes == []


def test_a_shipped_schedule_that_lost_or_failed_here_does_not_come_back(shipped, tmp_path):
    for name, seconds, cause in (("lost", 90e-6, None), ("failed", None, "wrong")):
        store = RecordStore(tmp_path / name, TARGET, shipped, A72)
        put(store, workload(8), 50e-6, "modelled")
        put(store, workload(8), seconds, "modelled", decision=1, cause=cause)
        assert us(store, 8) == [50.0]


def test_what_another_machine_measured_competes_by_no_time(tmp_path):
    """Its clock is real, as this one's is; its microseconds say nothing here."""
    work = RecordStore(tmp_path / "work", A72)
    put(work, workload(8), 1e-6, target=A72, decision=1)
    write_best(tmp_path / "shipped", work.best("measured"))
    store = RecordStore(tmp_path / "own", A72, tmp_path / "shipped")
    assert all_us(store, "measured") == [] and us(store, 8) == [1.0]
    put(store, workload(8), 50e-6, target=A72)
    put(store, workload(8), 60e-6, target=A72, decision=1)
    assert us(store, 8) == [50.0]


def test_without_own_records_what_is_shipped_is_left(shipped, tmp_path):
    store = RecordStore(tmp_path / "own", TARGET, shipped, A72)
    put(store, workload(8), 50e-6, "modelled", decision=1)
    put(store, workload(16), 16e-6, "modelled")
    store.meet(map(workload, (8, 12, 16)))
    found = [record.run_secs for record in store.database(own=False).get_all_tuning_records()]
    assert sorted(round(1e6 * float(seconds[0])) for seconds in found) == [8, 12]
    assert len(store.neighbours()) == 4 and len(store.neighbours(own=False)) == 2


def test_they_must_be_for_exactly_the_target_that_they_are_shipped_for(shipped, tmp_path):
    with pytest.raises(RecordMismatch, match="2 records"):
        RecordStore(shipped, TARGET)
    with pytest.raises(RecordMismatch):
        RecordStore(tmp_path / "own", TARGET, shipped, A76)


def test_a_damaged_line_is_reported_and_the_others_are_used(shipped):
    with open(shipped / BEST, "a") as file:
        file.write('{"trial": 1}\ntorn')
    store = RecordStore(shipped, A72)
    assert [(line.file, line.number) for line in store.skipped] == [(BEST, 3), (BEST, 4)]
    assert us(store, 8) == [8.0]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("trace", [[["Annotate", ["l16", 1], []]], []]),
        ("trace", [[], {}]),
        ("trace", [[["Nonsense", [], [], []]], []]),
        ("trace", [[["GetSBlock", [], [], []]], []]),
        ("target", "arm64"),
        ("arguments", [[[0, 3], "float32"]]),
    ],
)
def test_a_line_that_is_no_record_is_reported_when_it_is_read(shipped, part, value):
    path = shipped / BEST
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    at = next(number for number, line in enumerate(lines) if line["trial"]["seconds"] == 8e-6)
    lines[at][part] = value
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    store = RecordStore(shipped, A72)
    assert [(line.file, line.number) for line in store.skipped] == [(BEST, at + 1)]
    assert us(store, 8, 12) == [None, 12.0]
    assert [(line.file, line.number) for line in store.skipped] == [(BEST, at + 1)]


def test_every_target_is_lent_records_of_an_equal_machine():
    for target in targets().values():
        if target.shipped is not None:
            lender = targets()[target.shipped]
            assert lender.shipped is None
            assert lender.isa == target.isa
    borrowers = {name: target.shipped for name, target in targets().items() if target.is_arm and target.shipped}
    assert borrowers["arm64"] == borrowers["android-arm64"] == borrowers["raspberry-pi-4b"] == "cortex-a72"
    assert (borrowers["raspberry-pi-3b"], borrowers["raspberry-pi-5"]) == ("cortex-a53", "cortex-a76")


@pytest.mark.parametrize("folder", ["with tuning_logs", "without"])
def test_a_command_finds_those_that_serve_its_target(shipped, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(schedules.resources, "files", lambda _: tmp_path / "installed")
    (tmp_path / "installed").mkdir()
    shipped.rename(tmp_path / "installed/cortex-a72")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if folder == "with tuning_logs":
        (tmp_path / "tuning_logs").mkdir()
    for name in ("arm64", "raspberry-pi-4b", "android-arm64"):
        assert us(open_records(find_target(name), None), 8) == [8.0]
    store = open_records(find_target("arm64"), None)
    assert store.sources == "the records shipped for cortex-a72", "there is no folder of one's own to name"
    put(store, workload(16), 16e-6)
    assert store.sources.endswith("arm64, else by the records shipped for cortex-a72")
    chosen = open_records(find_target("arm64"), tmp_path / "chosen")
    assert us(chosen, 8) == [8.0] and chosen.folder == tmp_path / "chosen", "--records says where one's own are"
    assert us(open_records(find_target("cortex-a53"), None), 8) == [None]


def test_a_line_is_plain_json_with_the_journal_s_facts(shipped):
    line = json.loads((shipped / BEST).read_bytes().splitlines()[0])
    assert line["trial"]["kind"] == "modelled" and line["trial"]["device"] == MODELLED
    assert line["target"]["mcpu"] == "cortex-a72" and line["trace"]
