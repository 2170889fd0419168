"""Experiments of the papers: their networks and figures, what is made of them, and what becomes of one that fails."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from helpers.reproductions import A72, manifest, row, table8
from helpers.scripts import load
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.errors import BadInput, UnknownName
from tvm_shufflenet.experiments.catalogue import EXPERIMENTS, Case, Experiment, find_experiment, without_shuffle, zoo
from tvm_shufflenet.experiments.findings import findings, verdict
from tvm_shufflenet.experiments.results import Results, Row
from tvm_shufflenet.experiments.run import run
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.models import Model, names
from tvm_shufflenet.packages.manifest import OperatorEntry
from tvm_shufflenet.report.documents import ReproductionDocument
from tvm_shufflenet.report.reproduction import print_reproduction
from tvm_shufflenet.report.reproduction_page import reproduction_page
from tvm_shufflenet.tuning.records.store import JOURNAL
from tvm_shufflenet.workflow.schedules import open_records

SMALL = (32, 32)


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
        (shuffled,), (plain,) = with_it(data), without(data)
        assert np.abs(shuffled - plain).max() > 1e-3 and without.name != with_it.name
        for unit in without.module.units:
            unit.shuffle_groups = 3
        np.testing.assert_array_equal(without(data)[0], shuffled)


GUIDELINES = [name for name, experiment in EXPERIMENTS.items() if experiment.guideline]


def guideline(name: str, costs: list[float], calls: int = 10, schedule: str = "record", spread: float = 0.0) -> Results:
    """An experiment of a guideline in which each case takes 20 ms and its share of ``costs`` more, in their order."""
    experiment = EXPERIMENTS[name]
    rows = []
    for case, cost in zip(experiment.cases, costs, strict=True):
        count = calls if cost else 10
        entry = OperatorEntry("a", count, schedule, multiply_adds=1000 // count)
        ms = 20 * (1 + cost)
        latency = Latency((1e3 * ms * (1 - spread), 1e3 * ms, 1e3 * ms * (1 + spread)), "modelled")
        made = msgspec.structs.replace(manifest(1), operators=(entry,))
        rows.append(Row(case, made, latency, None, 1e-7))
    return Results(experiment, "cortex-a72", A72, 1, tuple(rows))


def weights(model: Model) -> int:
    return sum(each.weight.numel() for each in model.module.modules() if isinstance(each, torch.nn.Conv2d))


class TestGuidelines:
    @pytest.mark.parametrize("name", GUIDELINES)
    def test_every_stack_has_the_multiply_adds_of_the_one_it_is_compared_with(self, name):
        """As near as whole channels allow: within six of a hundred."""
        experiment = EXPERIMENTS[name]
        models = {case.label: case.make((4, 4)) for case in experiment.cases}
        macs = {label: weights(model) for label, model in models.items()}  # of a convolution, each at every point
        follower = macs[experiment.cases[0].against]
        assert all(abs(value / follower - 1) < 0.06 for value in macs.values())
        assert len({model.name for model in models.values()}) == len(models)

    def test_stacks_are_what_their_tables_say(self):
        def layers(name, label):
            (case,) = (case for case in EXPERIMENTS[name].cases if case.label == label)
            return [each for each in case.make((4, 4)).module.modules() if isinstance(each, torch.nn.Conv2d)]

        assert [(c.in_channels, c.out_channels) for c in layers("g1", "1:12 (9, 108)")] == [(9, 108), (108, 9)] * 10
        assert [(c.in_channels, c.groups) for c in layers("g2", "g=4 (c=128)")] == [(128, 4)] * 10
        assert len(layers("g3", "4-fragment-series")) == len(layers("g3", "4-fragment-parallel")) == 40
        assert sorted(c.kernel_size[0] for c in layers("g4", "neither")) == [1] * 20 + [3] * 10

    @pytest.mark.parametrize("label", ["ReLU, shortcut", "ReLU", "shortcut", "neither"])
    def test_a_bottleneck_has_the_relus_and_shortcuts_of_its_label(self, label):
        (case,) = (case for case in EXPERIMENTS["g4"].cases if case.label == label)
        block = case.make((4, 4)).module[0]
        data = torch.randn(1, 64, 4, 4)
        for layer in (block.first, block.middle, block.last):
            torch.nn.init.zeros_(layer.weight), torch.nn.init.constant_(layer.bias, -1.0)
        with torch.no_grad():
            expected = data - 1 if "shortcut" in label else torch.full_like(data, -1)
            torch.testing.assert_close(block(data), expected.relu() if "ReLU" in label else expected)

    def test_the_papers_figures_are_milliseconds_of_what_it_printed(self):
        paper = {case.label: case.paper_ms for name in (*GUIDELINES, "networks") for case in EXPERIMENTS[name].cases}
        assert paper["1:1 (32, 32)"] == pytest.approx(1000 / 76.2)
        assert paper["2-fragment-parallel"] == pytest.approx(1000 / 33.4)
        assert paper["ShuffleNet v2 0.5x"] == pytest.approx(1000 / 57.0)

    @pytest.mark.parametrize(
        ("costs", "options", "expected"),
        [
            ([0.3, 0.2, 0.1, 0.0], {}, "holds"),
            ([0.3, 0.01, 0.1, 0.0], {}, "holds in part"),
            ([0.01, 0.01, -0.1, 0.0], {}, "overturned by fusion"),
            ([0.01, 0.01, 0.005, 0.0], {"calls": 20}, "does not hold"),
            ([0.3, 0.2, 0.1, 0.0], {"spread": 0.5}, "overturned by fusion"),
            ([0.3, 0.2, 0.1, 0.0], {"schedule": "template"}, "undecided"),
        ],
    )
    def test_the_verdict_is_that_of_the_figures(self, costs, options, expected):
        results = guideline("g4", costs, **options)
        assert verdict(results) == expected == ReproductionDocument.of(results).verdict
        assert expected in findings(results)[0]

    def test_nothing_is_fused_where_there_is_nothing_to_fuse(self):
        assert verdict(guideline("g1", [0.0, 0.01, 0.01, 0.01])) == "does not hold"

    def test_a_network_that_failed_leaves_it_undecided(self):
        results = guideline("g1", [0.0, 0.1, 0.1, 0.1])
        assert verdict(results) == "holds"
        rows = (*results.rows[:-1], Row(results.rows[-1].case, failure=BadInput("no", "", "")))
        assert verdict(replace(results, rows=rows)) == "undecided"
        assert verdict(replace(results, rows=results.rows[:1])) == "undecided" and verdict(table8()) is None

    def test_operators_that_became_slower_in_a_network_leave_it_undecided(self):
        results = guideline("g4", [0.3, 0.2, 0.1, 0.0])
        first = results.rows[0]
        for alone_us, expected in ((2600.0, "holds"), (2000.0, "undecided")):
            entry = OperatorEntry("a", 10, "record", record_us=alone_us, multiply_adds=100)
            slowed = replace(first, manifest=msgspec.structs.replace(first.manifest, operators=(entry,)))
            found = replace(results, rows=(slowed, *results.rows[1:]))
            assert slowed.alone_us == 10 * alone_us and verdict(found) == expected
            assert ("1.30 times what its operators took alone, 20.000 ms" in findings(found)[-1]) == (
                expected == "undecided"
            )

    def test_the_fastest_of_each_level(self):
        experiment = EXPERIMENTS["networks"]
        rows = tuple(
            row(case, 10.0 if "v1 1x" in case.label else 20.0 + i, 140) for i, case in enumerate(experiment.cases)
        )
        said = findings(Results(experiment, "cortex-a72", A72, 1, rows))
        assert len(said) == 4 and "ShuffleNet v2 0.5x is fastest, as in the paper" in said[0]
        assert "ShuffleNet v1 1x is fastest, in the paper ShuffleNet v2 1x" in said[1]


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
        facts = msgspec.to_builtins(ReproductionDocument.of(table8()))
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

    def test_how_near_the_limit_each_network_is(self):
        results = table8()
        rows = tuple(replace(row, limit_us=6500.0) for row in results.rows)
        (said,) = findings(replace(results, rows=rows))
        assert said.startswith(
            "times what multiply-adds and memory take at least, at 224x224: ShuffleNet 0.5x (g=3) 1.23"
        )
        assert said.count(",") == 4, "the network that failed is not among them"


class TestReports:
    @pytest.mark.parametrize("name", GUIDELINES)
    def test_a_guideline_has_its_verdict_in_the_table_and_on_the_page(self, name):
        from rich.console import Console

        count = len(EXPERIMENTS[name].cases)
        follower = next(i for i, case in enumerate(EXPERIMENTS[name].cases) if case.label == case.against)
        results = guideline(name, [0.0 if i == follower else 0.1 for i in range(count)])
        console = Console(file=io.StringIO(), width=80, highlight=False)
        print_reproduction(console, results)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        assert f"{name.upper()}, {results.experiment.guideline}: holds" in text
        (section,) = reproduction_page(results, f"tvm-shufflenet reproduce {name}").sections
        assert findings(results)[0] in section.notes and section.title == "56x56"

    @pytest.mark.parametrize("make", [table8, shuffle, groups])
    def test_the_table_fits_80_columns(self, make):
        from rich.console import Console

        console = Console(file=io.StringIO(), width=80, highlight=False)
        print_reproduction(console, make())
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        assert {table8: "184.0", shuffle: "260.0", groups: "24.000"}[make] in text
        assert ("no picture" in text) == (make is table8) and ("paper:" in text) == (make is table8)

    def test_the_tables_of_the_documentation(self, tmp_path, monkeypatch, capsys):
        made = (table8(), shuffle(), groups(), guideline("g4", [0.3, 0.2, 0.1, 0.0]))
        paths = [tmp_path / f"{results.experiment.name}.json" for results in made]
        for path, results in zip(paths, made, strict=True):
            path.write_text(json.dumps(msgspec.to_builtins(ReproductionDocument.of(results))))
        monkeypatch.setattr("sys.argv", ["papers.py", *map(str, paths)])
        load("papers").main()
        text = capsys.readouterr().out
        assert "| ShuffleNet 1x (g=3) | 26.000 | 37.8 | 6.15 | 4.87 | 5.14 |" in text
        assert "| 1.0 MobileNet-224 | failed | 110.0 |" in text
        assert "| 1x (g=8) | 20.000 | 20.200 | +1.0 % | 200.0 | 260.0 | 60.0 |" in text
        assert "| ReLU | +20.0 % | +7.4 % |" in text and "ShuffleNet 1x (g=8) | 24.000 |" in text

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
            store = open_records(target, tmp_path)
            results = run(experiment, target, device, store, repeats=2, announce=said.append, on_row=so_far.append)
        assert [len(each.rows) for each in so_far] == [1, 2] and so_far[-1] == results
        broken, small = results.rows
        assert "no picture" in str(broken.failure) and broken.latency is None
        assert small.latency.kind == "measured" and small.max_abs_err <= 1e-4 and small.multiply_adds > 1e5
        assert said == ["1 of 2: broken at 32x32", "2 of 2: small at 32x32"]

    def test_a_guideline_end_to_end(self, tmp_path):
        """A real stack on a small feature map: searched for, checked, and timed; alone it decides nothing."""
        whole = EXPERIMENTS["g1"]
        experiment = replace(whole, cases=(replace(whole.cases[0], size=SMALL),))
        target = find_target("local")
        with find_device("local", target) as device:
            store = open_records(target, tmp_path)
            results = run(experiment, target, device, store, repeats=2, trials=1)
        (found,) = results.rows
        assert found.failure is None and found.max_abs_err <= 1e-4 and found.scheduled_by == {"record": 1}
        assert found.multiply_adds == 20 * 32 * 32 * 32 * 32 and found.calls == 20 and found.alone_us > 0
        assert len((tmp_path / JOURNAL).read_text().splitlines()) == 1
        assert verdict(results) == "undecided" and findings(results) == []


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
