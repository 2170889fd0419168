"""The last choices of a search: by the network's own time, never slower than what ships, and kept for compilation."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest

from helpers.factories import FACTORY
from helpers.recording import MODELLED, TARGET, candidate, put, workload
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.models import find_model
from tvm_shufflenet.report.documents import ComparisonDocument, DecisionDocument
from tvm_shufflenet.report.tables import speedups
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records import upkeep
from tvm_shufflenet.tuning.records.choices import CHOICES, Choice, network_hash
from tvm_shufflenet.tuning.records.journal import Setting, checksum
from tvm_shufflenet.tuning.records.shipped import write_best
from tvm_shufflenet.tuning.records.store import RecordStore, trace_hash, workload_hash
from tvm_shufflenet.tuning.search.decision import NETWORKS, Timed, decide, near
from tvm_shufflenet.workflow.bench import bench_package
from tvm_shufflenet.workflow.compare import compare_network
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.decide import decide_schedules
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.profile import profile_package
from tvm_shufflenet.workflow.tune import tune_network

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
SETTING = Setting(MODELLED, 1)
# What each candidate takes in a network; by themselves, the first of each is the fastest.
IN_NETWORK = {"a": {"a0": 10.0, "a1": 8.0}, "b": {"b0": 5.0, "b1": 6.0, "b2": 4.0}, "c": {"c0": 3.0}}
CANDIDATES = {workload: list(traces) for workload, traces in IN_NETWORK.items()}
WEIGHTS = {"a": 10.0, "b": 5.0, "c": 3.0}


class Network:
    """Times a network of the operators above; ``as_shipped`` is what they take as they are shipped."""

    def __init__(self, as_shipped: dict[str, str], counted: bool, in_network=IN_NETWORK):
        self.as_shipped, self.counted, self.in_network = as_shipped, counted, in_network
        self.asked: list[dict | None] = []

    def __call__(self, chosen) -> Timed:
        self.asked.append(chosen)
        traces = self.as_shipped if chosen is None else chosen
        each = {workload: self.in_network[workload][trace] for workload, trace in traces.items()}
        return Timed(sum(each.values()), each if self.counted else {})


@pytest.mark.parametrize("counted", [True, False])
def test_the_best_in_the_network_is_chosen_not_the_best_by_itself(counted):
    network = Network({"a": "a0", "b": "b1", "c": "c0"}, counted)
    found = decide(CANDIDATES, network.as_shipped, network, WEIGHTS)
    assert found.chosen == {"a": "a1", "b": "b2", "c": "c0"}
    assert (found.shipped_us, found.fastest_us, found.chosen_us) == (19.0, 18.0, 15.0)
    assert len(network.asked) == found.networks <= NETWORKS
    assert "chosen, 0.015 ms" in found.describe() and max(map(len, found.describe().splitlines())) <= 80
    assert DecisionDocument.of(found).kept == "chosen" and DecisionDocument.of(found).latency_us.shipped == 19.0


@pytest.mark.parametrize("counted", [True, False])
def test_what_ships_is_kept_where_nothing_beats_it(counted):
    """A shipped schedule that is no candidate, as one of another template, is not lost for it."""
    network = Network({"a": "s", "b": "b2", "c": "c0"}, counted, {**IN_NETWORK, "a": {"a0": 10.0, "a1": 8.0, "s": 7.0}})
    found = decide(CANDIDATES, network.as_shipped, network, WEIGHTS)
    assert found.chosen is None and found.chosen_us == found.shipped_us == 14.0
    assert "the shipped schedules are kept" in found.describe()


@pytest.mark.parametrize("counted", [True, False])
def test_networks_are_bounded(counted):
    in_network = {str(n): {f"{n}-{k}": 10.0 - k for k in range(3)} for n in range(30)}
    candidates = {workload: list(traces) for workload, traces in in_network.items()}
    network = Network({workload: traces[1] for workload, traces in candidates.items()}, counted, in_network)
    found = decide(candidates, network.as_shipped, network, dict.fromkeys(candidates, 1.0))
    assert found.networks == len(network.asked) <= NETWORKS
    assert found.chosen_us < found.shipped_us
    if counted:
        assert found.chosen == {workload: traces[2] for workload, traces in candidates.items()}


def test_a_clock_of_its_own_is_believed_no_more_than_it_can_tell():
    in_network = {"a": {"a0": 10.0, "a1": 9.99}}
    network = Network({"a": "a0"}, False, in_network)
    assert decide({"a": ["a0", "a1"]}, {"a": "a0"}, network, {"a": 1.0}).chosen_us == 10.0


def test_candidates_are_nearly_as_fast_or_shipped():
    ranked = [("0", 1.0), ("1", 1.04), ("2", 1.2), ("3", 1.3)]
    assert near(ranked, None) == near(ranked, "elsewhere") == near(ranked, "1") == ["0", "1"]
    assert near(ranked, "3") == ["0", "1", "3"]


# What is kept


def traces(*decisions: int) -> list[str]:
    return [trace_hash(candidate(workload(8), decision).sch.trace) for decision in decisions]


def decided(chosen: int, fastest: int = 0, shipped: bool = False) -> Choice:
    shash, (one, other) = workload_hash(workload(8)), traces(chosen, fastest)
    return Choice("n", MODELLED, 1, {} if shipped else {shash: one}, {shash: other}, shipped, 9.0, 9.5)


@pytest.fixture
def store(tmp_path):
    """Two records of a workload, and a choice of the one that is slower by itself."""
    store = RecordStore(tmp_path, TARGET)
    put(store, workload(8), 8e-6, "modelled")
    put(store, workload(8), 9e-6, "modelled", decision=1)
    store.choose(decided(1))
    return store


def us(store: RecordStore, network: str | None = "n") -> float:
    store.meet([workload(8)])
    own = network is None or store.uses_own(network)
    record = store.database(network=network, own=own).query_tuning_record(workload(8), TARGET, "main")
    return round(1e6 * float(record.run_secs[0]), 6)


def test_a_choice_is_for_its_network_and_outlives_the_run(store, tmp_path):
    for opened in (store, RecordStore(tmp_path, TARGET)):
        assert us(opened) == 9.0 and us(opened, "another") == us(opened, None) == 8.0
        assert opened.is_decided("n", SETTING, [workload_hash(workload(8))])
        assert not opened.is_decided("n", Setting(MODELLED, 2), [workload_hash(workload(8))])
        assert opened.skipped == []


def test_a_faster_record_ends_it(store, tmp_path):
    put(store, workload(8), 7e-6, "modelled")
    put(store, workload(8), 6e-6, "modelled", decision=1)
    assert us(store) == 6.0 and not store.is_decided("n", SETTING, [workload_hash(workload(8))])
    store.choose(decided(0, 1))
    assert us(store) == us(RecordStore(tmp_path, TARGET)) == 7.0, "the last decision counts"


def test_what_ships_may_be_chosen_for_the_whole_network(store, tmp_path):
    work = RecordStore(tmp_path / "work", TARGET)
    put(work, workload(8), 5e-6, decision=1)
    write_best(tmp_path / "shipped", work.best("measured"))
    opened = RecordStore(tmp_path, TARGET, tmp_path / "shipped")
    opened.choose(decided(0, 0, shipped=True))
    assert us(opened) == 5.0 and not opened.uses_own("n")
    put(opened, workload(8), 4e-6, "modelled", decision=1)
    assert us(opened) == 4.0 and opened.uses_own("n")


@pytest.mark.parametrize("damage", ["torn", "edited", "another schema", "no object", "a field of another kind"])
def test_a_damaged_line_is_reported_and_not_used(store, tmp_path, damage):
    line = (tmp_path / CHOICES).read_text()
    value = json.loads(line)
    damaged = {
        "torn": line[: len(line) // 2],
        "edited": json.dumps(value | {"network_us": 1.0}),
        "another schema": json.dumps(value | {"schema": 2}),
        "no object": "[1]",
        "a field of another kind": json.dumps(value | {"chosen": 1}),
    }[damage]
    (tmp_path / CHOICES).write_text(damaged + "\n")
    opened = RecordStore(tmp_path, TARGET)
    assert us(opened) == 8.0
    assert [(each.file, each.number) for each in opened.skipped] == [(CHOICES, 1)]
    assert [each.file for each in upkeep.verify(upkeep.open_folder(tmp_path))] == [CHOICES]


@pytest.mark.parametrize(
    "change",
    [{"chosen": {"0" * 16: "1" * 16}}, {"chosen": {workload_hash(workload(8)): "1" * 16}}, {"fastest": {}}],
    ids=["no workload of the folder", "no record of the folder", "nothing was fastest"],
)
def test_a_choice_chooses_among_the_records_that_are_admitted_and_no_others(store, change):
    store.choose(msgspec.structs.replace(decided(1), **change))
    assert us(store) == 8.0


def test_another_target_s_or_tvm_s_choices_are_not_used(store, tmp_path):
    line = json.loads((tmp_path / CHOICES).read_text())
    for changed in ({"target": "0" * 16}, {"tvm": "0.26.0"}):
        value = {key: each for key, each in (line | changed).items() if key != "crc32"}
        (tmp_path / CHOICES).write_text(json.dumps(value | {"crc32": checksum(value)}) + "\n")
        assert us(RecordStore(tmp_path, TARGET)) == 8.0


def test_merging_takes_choices_along_and_pruning_keeps_what_they_name(store, tmp_path):
    into = tmp_path / "into"
    for _ in range(2):
        upkeep.merge([tmp_path], into)
    assert len((into / CHOICES).read_text().splitlines()) == 1
    upkeep.prune(into, keep=1)
    assert us(RecordStore(into, TARGET)) == 9.0
    (into / CHOICES).unlink()
    upkeep.prune(into, keep=1)
    assert us(RecordStore(into, TARGET)) == 8.0 and len(RecordStore(into, TARGET).database()) == 1


def test_a_network_is_known_by_its_operators_in_any_order():
    pairs = [("1", 2), ("2", 1), ("3", 1)]
    assert len({network_hash(order) for order in itertools.permutations(pairs)}) == 1
    assert network_hash(pairs) != network_hash([("1", 1), *pairs[1:]])


# The whole line


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_few_trials_end_with_no_less_than_ships_and_every_command_agrees(tmp_path):
    """Tuning, compilation, bench, profile and compare: one network, one modelled time."""
    (tmp_path / "tiny.py").write_text(FACTORY)
    unit = import_model(find_model(f"{tmp_path}/tiny.py:unit", input_shape=(1, 48, 14, 14)))
    target, a72 = find_target("arm64"), find_target("cortex-a72")
    with find_device("emulated", target) as device:
        lender = RecordStore(tmp_path / "lender", a72.tvm())
        tune_network(
            fuse(unit.module, a72), device, lender, strategy="template", trials=6, seed=3, on_progress=lambda _: None
        )
        write_best(tmp_path / "shipped", lender.best(MODELLED))
        store = RecordStore(tmp_path / "own", target.tvm(), tmp_path / "shipped", a72.tvm())
        result = tune_network(
            fuse(unit.module, target), device, store, strategy="template", trials=4, seed=0, on_progress=lambda _: None
        )
        first = {trial.workload: trial.trace for trial in reversed(store._own.trials)}
        shipped = store.shipped_traces(MODELLED)
        assert shipped and {key: first[key] for key in shipped} == shipped and result.measured == 4
        found = decide_schedules(unit, target, device, store)
        assert found.chosen_us <= found.shipped_us
        assert decide_schedules(unit, target, device, store) is None, "it was decided before, by the same records"
        comparison = compare_network(unit, target, device, store)
        reopened = RecordStore(tmp_path / "own", target.tvm(), tmp_path / "shipped", a72.tvm())
        package = compile_package(unit, target, reopened, tmp_path / "package")
        bench = bench_package(package, device, 1, warmup=3, repeats=2)
        profile = profile_package(package, device, 1)
    assert comparison.gain >= 1 and set(ComparisonDocument.of(comparison).latency_us) == {"untuned", "shipped", "tuned"}
    times = {found.chosen_us, comparison.tuned.median_us, bench.latency.median_us, profile.latency.median_us}
    assert len(times) == 1 and profile.sum_us == pytest.approx(bench.latency.median_us, rel=1e-4)
    assert "against what is shipped" in speedups(comparison) or "tuned is what is shipped" in speedups(comparison)
