"""Experiments of the papers: their networks and figures, what is made of them, and what becomes of one that fails."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tvm_shufflenet import cli, workflow
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.errors import BadInput, UnknownName
from tvm_shufflenet.experiments.catalogue import EXPERIMENTS, Case, Experiment, find_experiment, without_shuffle, zoo
from tvm_shufflenet.experiments.findings import findings
from tvm_shufflenet.experiments.results import Results, Row
from tvm_shufflenet.experiments.run import run
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.library.package import Manifest, OperatorEntry
from tvm_shufflenet.models import names
from tvm_shufflenet.report.reproduction import print_reproduction
from tvm_shufflenet.report.reproduction_page import reproduction_page
from tvm_shufflenet.targets import find_target

A72 = {"name": "emulated:cortex-a72", "kind": "modelled", "model_error_percent": 4.7}
SMALL = (32, 32)


def manifest(macs_m: float) -> Manifest:
    operators = (OperatorEntry("a", 2, "record", multiply_adds=round(macs_m * 4e5)),)
    operators += (OperatorEntry("b", 1, "template", multiply_adds=round(macs_m * 2e5)),)
    return Manifest(
        schema=3, plan="plan", model="net", input_shape=(1, 3, 224, 224), output_shape=(1, 10), seed=0, target="arm64",
        target_config={}, machine="aarch64", tuned=True, records=None, tvm="0.27", ffi="0.1", linker=(),
        library="net.so", operators=operators, activation_bytes=1, weight_bytes=1, tolerance=1e-4, hashes={},
    )  # fmt: skip


def row(case: Case, ms: float, macs_m: float, untuned_ms: float | None = None) -> Row:
    untuned = Latency((1e3 * untuned_ms,), "modelled") if untuned_ms else None
    return Row(case, manifest(macs_m), Latency((1e3 * ms,), "modelled"), untuned, 1e-7)


def table8() -> Results:
    experiment = EXPERIMENTS["table8"].at([(224, 224)])
    figures = ((8.0, 38), (26.0, 140), (100.0, 524), (160.0, 720))
    rows = [row(case, *pair) for case, pair in zip(experiment.cases, figures, strict=False)]
    rows.append(Row(experiment.cases[4], failure=BadInput("it has no picture", "", "draw one")))
    return Results(experiment, "cortex-a72", A72, 1, tuple(rows))


def shuffle() -> Results:
    experiment = EXPERIMENTS["shuffle"]
    rows = [
        row(case, 20.2 if case.against else 20.0, 137, 260.0 if case.against else 200.0) for case in experiment.cases
    ]
    return Results(experiment, "cortex-a72", A72, 1, tuple(rows))


class TestCatalogue:
    def test_table_8_as_printed(self):
        cases = {(case.label, case.size): case for case in EXPERIMENTS["table8"].cases}
        assert len(cases) == 15
        assert cases["ShuffleNet 0.5x (g=3)", (224, 224)].paper_ms == 15.2
        assert cases["AlexNet", (720, 1280)].paper_ms == 3633.9
        assert cases["1.0 MobileNet-224", (480, 640)].paper_ms == 612.0

    def test_every_case_is_compared_with_one_of_its_own_experiment(self):
        for experiment in EXPERIMENTS.values():
            there = {(case.label, case.size) for case in experiment.cases}
            assert len(there) == len(experiment.cases)
            for case in experiment.cases:
                assert case.against is None or (case.against, case.size) in there

    def test_names(self):
        assert find_experiment("table8").name == "table8"
        with pytest.raises(UnknownName, match="table8"):
            find_experiment("table7")
        with pytest.raises(BadInput, match="720x1280"):
            EXPERIMENTS["table8"].at([(1, 1)])

    def test_without_shuffle_is_another_network_of_the_same_weights(self):
        name = "shufflenet_v1_g3_x0_25"
        assert name in names()
        with_it, without = zoo(name)(SMALL), without_shuffle(name)(SMALL)
        data = np.random.default_rng(0).standard_normal((1, 3, *SMALL), dtype=np.float32)
        assert np.abs(with_it(data) - without(data)).max() > 1e-3 and without.name != with_it.name
        for unit in without.module.units:
            unit.shuffle_groups = 3
        np.testing.assert_array_equal(without(data), with_it(data))


def groups() -> Results:
    experiment = EXPERIMENTS["groups"]
    rows = [row(case, 20.0 + index, 140) for index, case in enumerate(experiment.cases)]
    return Results(experiment, "cortex-a72", A72, 1, tuple(rows))


class TestResults:
    def test_speedups_are_over_the_same_network(self):
        results = table8()
        first = results.speedups(results.rows[0])
        assert (first.ours, first.paper) == (pytest.approx(20), pytest.approx(184 / 15.2))
        assert first.theory == pytest.approx(720 / 38) and first.untuned is None
        assert results.speedups(results.rows[4]).ours is None

    def test_json(self):
        facts = json.loads(json.dumps(table8().to_json()))
        first, *_, failed = facts["rows"]
        assert first["latency_us"]["kind"] == "modelled" and first["paper_ms"] == 15.2
        assert first["scheduled_by"] == {"record": 1, "template": 1} and first["multiply_adds"] == 38e6
        assert failed["latency_us"] is None and "no picture" in failed["failure"]

    def test_what_a_shuffle_costs_in_words(self):
        said = findings(shuffle())
        assert len(said) == 4 and all(
            "+0.20 ms (+1.0 %) once it is fused, +60.00 ms (+30.0 %) in TVM" in line for line in said
        )
        assert findings(table8()) == []


class TestReports:
    @pytest.mark.parametrize("make", [table8, shuffle, groups])
    def test_the_table_fits_80_columns(self, make):
        from rich.console import Console

        console = Console(file=io.StringIO(), width=80, highlight=False)
        print_reproduction(console, make())
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        assert {table8: "184.0", shuffle: "260.0", groups: "24.000"}[make] in text
        assert ("no picture" in text) == (make is table8) and ("paper:" in text) == (make is table8)

    def test_the_page_has_ours_beside_the_papers(self):
        page = reproduction_page(table8(), "tvm-shufflenet reproduce table8")
        (section,) = page.sections
        rows = list(csv.DictReader(io.StringIO(section.table.csv())))
        assert rows[3]["ours_ms"] == "160.0" and rows[3]["paper_ms"] == "184.0" and rows[4]["failure"]
        ElementTree.fromstring(section.plot)
        assert "<pattern" in section.plot and section.plot.count(">the paper's<") == 5
        text = page.html("x")
        ids = re.findall(r'\bid="(.*?)"', text)
        assert len(ids) == len(set(ids)) and "another device" in text


@pytest.mark.slow
class TestRun:
    def test_one_that_fails_is_a_row_and_the_others_go_on(self, tmp_path):
        def raising(size):
            raise BadInput("it has no picture")

        target = find_target("local")
        cases = (Case("broken", raising, SMALL), Case("small", zoo("shufflenet_v1_g3_x0_25"), SMALL, against="broken"))
        experiment = Experiment("made", "Made up", "nowhere", cases)
        said, so_far = [], []
        with find_device("local", target) as device:
            store = workflow.open_records(target, tmp_path)
            results = run(experiment, target, device, store, repeats=2, announce=said.append, on_row=so_far.append)
        assert [len(each.rows) for each in so_far] == [1, 2] and so_far[-1] == results
        broken, small = results.rows
        assert "no picture" in str(broken.failure) and broken.latency is None
        assert small.latency.kind == "measured" and small.max_abs_err <= 1e-4 and small.multiply_adds > 1e5
        assert said == ["1 of 2: broken at 32x32", "2 of 2: small at 32x32"]


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["table7"], "unknown table 'table7'"),
            (["table8", "--sizes", "1x1"], "has no size 1x1"),
            (["table8", "--sizes", "large"], "no list of sizes"),
            (["table8", "--target", "arm65"], "unknown target"),
            (["table8", "--device", "emulated:cortex-a7"], "unknown core"),
            (["table8", "--target", "local", "--device", "emulated"], "do not match"),
            (["table8", "--html", "/no/such/folder/x.html"], "cannot write"),
        ],
    )
    def test_a_wrong_word_is_refused_at_once(self, words, text, capsys):
        assert cli.main(["reproduce", *words]) == 2
        assert text in capsys.readouterr().err
