"""benchmarks/ship_records.py: what it collects, how it groups, and that a run goes on where the last one ended."""

from __future__ import annotations

import re
import sys

import pytest

from helpers.scripts import load
from tvm_shufflenet import models
from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.shipped import BEST
from tvm_shufflenet.tuning.records.store import JOURNAL, RecordStore

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
A72 = find_target("cortex-a72")
FACTORY = """
import torch

def network():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 8, 3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 1)
    return torch.nn.Sequential(*layers)
"""


@pytest.fixture(scope="module")
def script():
    return load("ship_records")


@pytest.fixture
def network(tmp_path) -> str:
    (tmp_path / "net.py").write_text(FACTORY)
    return f"{tmp_path / 'net.py'}:network"


def test_the_published_networks_are_29(script):
    published = [name for name in models.names() if script.PUBLISHED.fullmatch(name)]
    assert len(published) == 29 and not [name for name in published if name.endswith(("relu", "megvii", "biased"))]


def test_operators_are_collected_once_and_grouped_by_worth_and_kind(script, network):
    tasks = [each.task for each in script.operators(network, A72, 4)]
    wanted = script.collect([network, network], A72, 4)
    assert len({each.workload for each in wanted}) == len(wanted) >= 2
    assert sum(each.task.occurrences for each in wanted) == 2 * sum(t.occurrences for t in tasks)
    assert all(each.trials == 4 for each in wanted)
    groups = script.groups(wanted)
    assert sorted(each.workload for group in groups for each in group) == sorted(each.workload for each in wanted)
    assert all(len({each.kind for each in group}) == 1 for group in groups)


def test_heavy_operators_of_a_network_of_width_one_get_more_trials(script, network, monkeypatch):
    assert script.FAVOURED.fullmatch("shufflenet_v2_x1_0") and not script.FAVOURED.fullmatch("shufflenet_v2_x0_5")
    assert {each.trials for each in script.operators(network, A72, 4)} == {4}
    monkeypatch.setattr(script, "FAVOURED", re.compile(re.escape(network)))
    monkeypatch.setattr(script, "FAVOURED_SHARE", 0.4)
    found = list(script.operators(network, A72, 4))
    assert {each.trials for each in found} == {4, 12}
    assert max(found, key=lambda each: each.task.occurrences * each.task.flops).trials == 12


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_a_second_run_goes_on_where_the_first_ended(script, network, tmp_path, monkeypatch, capsys):
    words = ["ship_records", "--target", "cortex-a72", "--models", network, "--limit", "1", "--trials"]
    folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    journal = tmp_path / "work" / JOURNAL
    for trials, expected in ((1, 1), (1, 1), (2, 2)):
        monkeypatch.setattr(sys, "argv", [*words, str(trials), *folders])
        assert script.main() == 0 and len(journal.read_text().splitlines()) == expected
        assert len((tmp_path / "out" / BEST).read_text().splitlines()) == 1
    assert f"{BEST}: 1 of " in capsys.readouterr().out
    store = RecordStore(tmp_path / "out", A72.tvm())
    (wanted,) = [each for each in script.collect([network], A72, 1) if each.workload in store._shipped.lines]
    store.meet([wanted.task.mod])
    assert len(store.database()) == 1


def test_a_target_that_reads_another_s_records_is_refused(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ship_records", "--target", "raspberry-pi-4b"])
    with pytest.raises(BadInput, match="reads the records shipped for cortex-a72"):
        script.main()
