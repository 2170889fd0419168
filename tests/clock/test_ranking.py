"""benchmarks/ranking.py: ranks, extrapolation, and one operator from end to end."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from helpers.scripts import load
from tvm_shufflenet.support import toolchain

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]


@pytest.fixture(scope="module")
def script():
    return load("ranking")


def test_equal_values_share_a_rank(script):
    assert script.ranks([30, 10, 20, 20]).tolist() == [4, 1, 2.5, 2.5]
    assert script.spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert script.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_what_no_stretch_holds_costs_the_average(script):
    short, long, unseen = (1,), (1, 2, 3), (4, 5)
    stretches = [[(short, 2), (long, 4)], [(long, 6), (short, 4)]]
    assert script.extrapolated(stretches, Counter({short: 10, long: 100})) == 10 * 3 + 100 * 5
    assert script.extrapolated(stretches, Counter({unseen: 10})) == 10 * 2 * 2  # 16 cycles for 8 instructions


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_the_model_is_near_the_timeline(script, tmp_path, monkeypatch, capsys):
    words = ["--operators", f"{script.V1}:pooling3", "--schedules", "3", "--strategies", "template"]
    monkeypatch.setattr(sys, "argv", ["ranking", *words, "--json", str(tmp_path / "facts.json")])
    assert script.main() == 0
    (ranking,) = json.loads((tmp_path / "facts.json").read_text())["rankings"]
    assert [point["default"] for point in ranking["points"]] == [True, False, False]
    for point in ranking["points"]:
        assert point["core_cycles"] == pytest.approx(point["timeline_cycles"], rel=0.15)
        assert point["total_cycles"] > point["core_cycles"]
    assert f"{script.V1}:pooling3" in capsys.readouterr().out
