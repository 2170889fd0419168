"""benchmarks/strategies.py: which operators it takes, what it counts, and one search of each strategy."""

from __future__ import annotations

import json
import sys

import pytest

from helpers.scripts import load
from tvm_shufflenet.support import toolchain

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
FACTORY = """
import torch

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1))
"""


@pytest.fixture(scope="module")
def script():
    return load("strategies")


def course(script, operator: str, strategy: str, us: float | None):
    return script.Course(operator, "pointwise", 1, strategy, {8: None, 16: us}, 16, {}, 1.0, shipped_us=8.0)


def test_milestones_end_with_the_number_of_trials(script):
    assert [script.milestones(trials) for trials in (4, 8, 20, 64)] == [[4], [8], [8, 16, 20], [8, 16, 32, 64]]


def test_a_failed_trial_is_no_time(script):
    assert script.best_us([None, 2e-6, 3e-6]) == pytest.approx(2.0) and script.best_us([None]) is None


def test_the_summary_leaves_out_what_one_strategy_did_not_manage(script):
    found = [
        course(script, "a", "template", 10.0),
        course(script, "a", "ansor", 40.0),
        course(script, "b", "template", 10.0),
        course(script, "b", "ansor", 10.0),
        course(script, "c", "template", 10.0),
        course(script, "c", "ansor", None),
    ]
    ansor, shipped = script.summary(found)
    assert ansor == "ansor's best takes 2.00 times the template's, geometric mean of 2"
    assert shipped == (
        "the template's best takes 1.250 times the shipped record's, geometric mean of 3, at most 1.250; "
        "all occurrences together 1.250"
    )
    assert list(script.summary([])) == []


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_both_strategies_search_one_operator_from_nothing(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "net.py").write_text(FACTORY)
    words = ["--model", f"{tmp_path / 'net.py'}:network", "--count", "1", "--trials", "2", "--operators", "pointwise"]
    monkeypatch.setattr(sys, "argv", ["strategies", *words, "--json", str(tmp_path / "facts.json")])
    assert script.main() == 0
    courses = json.loads((tmp_path / "facts.json").read_text())["courses"]
    assert [(each["strategy"], each["kind"], each["trials"]) for each in courses] == [
        ("template", "pointwise", 2),
        ("ansor", "pointwise", 2),
    ]
    assert "geometric mean of 1" in capsys.readouterr().out
