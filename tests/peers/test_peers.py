"""Ours against other engines: the figures of a table, and what becomes of peers that fail or are wrong."""

from __future__ import annotations

import dataclasses
import io
import re
import runpy
import sys
import textwrap
import types
from pathlib import Path

import msgspec
import numpy as np
import pytest

from helpers.scripts import load
from helpers.tensors import OUTPUT, only, signature
from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.facts import DeviceFacts
from tvm_shufflenet.errors import DeviceFailed, PeerFailed, ToolMissing, UnknownName, WrongResult
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.peers import contest as contests
from tvm_shufflenet.peers.catalogue import PEERS, RUNNERS, Peer, find_peers
from tvm_shufflenet.peers.comparison import compare_with_peers, comparison_of
from tvm_shufflenet.peers.environments import OWN, PINS, installed
from tvm_shufflenet.peers.handover import NOT_TRACED, write_handover
from tvm_shufflenet.peers.process import Runner, last_words
from tvm_shufflenet.report.documents import ComparisonDocument, ContestDocument
from tvm_shufflenet.verification.answers import Answer, Answers
from tvm_shufflenet.verification.probes import REFERENCE
from tvm_shufflenet.workflow.contest import OURS, UNTUNED, Contest, Contestant, geometric_mean, geometric_means
from tvm_shufflenet.workflow.imported import Imported

REPOSITORY = Path(__file__).parents[2]
LOCAL = DeviceFacts("local", "measured")


def entry(name: str, *ms: float, **fields) -> Contestant:
    latency = Latency(tuple(1e3 * value for value in ms), "measured") if ms else None
    return Contestant(name, "1.0", latency, max_abs_err=1e-7 if ms else None, **fields)


def contest(*entries: Contestant, model: str = "net", threads: int = 1) -> Contest:
    return Contest(model, LOCAL, threads, 1e-4, entries)


class TestFigures:
    def test_the_ratio_is_of_medians_against_the_fastest_peer(self):
        found = contest(entry("ours", 1, 2, 9), entry("slow", 8), entry("fast", 2, 3, 4))
        assert found.fastest_peer.name == "fast" and found.ratio == 1.5

    def test_who_has_no_latency_is_nobodys_fastest_peer(self):
        failed = entry("broken", failure=PeerFailed("it broke"))
        assert contest(entry("ours", 2), failed, entry("fast", 3)).ratio == 1.5
        assert contest(entry("ours", 2), failed).ratio is None
        assert contest(entry("ours", failure=DeviceFailed("it died")), entry("fast", 3)).ratio is None

    def test_the_geometric_mean(self):
        assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
        assert geometric_mean([1.0, 2.0, 4.0]) == pytest.approx(2.0)

    def test_means_never_mix_threads_and_leave_out_what_has_no_ratio(self):
        one = [contest(entry("ours", 1), entry("peer", ms), model=f"net{ms}") for ms in (2, 8)]
        two = [contest(entry("ours", 1), entry("peer", 3), threads=2), contest(entry("ours", 1), threads=2)]
        means = geometric_means([*one, *two])
        assert [(mean.threads, mean.models) for mean in means] == [(1, ("net2", "net8")), (2, ("net",))]
        assert [mean.ratio for mean in means] == pytest.approx([4.0, 3.0])

    def test_json_has_every_sample_with_its_kind_and_the_reason_of_a_failure(self):
        found = contest(
            entry("ours", 1, 2, rounds_us=((1000.0,), (2000.0,))), entry("broken", failure=PeerFailed("it broke"))
        )
        ours, broken = msgspec.to_builtins(ContestDocument.of(found))["entries"]
        assert ours["latency_us"]["kind"] == "measured" and ours["rounds_us"] == ((1000.0,), (2000.0,))
        assert broken["latency_us"] is None and broken["failure"] == "it broke"

    def test_tables_fit_80_columns_and_name_failures(self):
        from rich.console import Console

        from tvm_shufflenet.report.peers import print_contest, print_means

        cost = {"core_cycles": 12.3e6, "l1_misses": 2_000_000, "l2_misses": 400_000}
        modelled = Latency((23456.789,), "modelled")
        device = DeviceFacts("emulated:cortex-a72", "modelled", 10.0)
        entries = [Contestant(name, "TVM 0.27.0.post1", modelled, 1e-7, cost=cost) for name in ("ours", "onnxruntime")]
        found = [
            contest(
                entry("ours", 123.456), entry("torch-compile", 456.789), entry("x", failure=PeerFailed("it broke"))
            ),
            Contest("shufflenet_v1_g3_x1_0", device, 1, 1e-4, tuple(entries)),
        ]
        console = Console(file=io.StringIO(), width=80, highlight=False)
        for one in found:
            print_contest(console, one)
        print_means(console, found, geometric_means(found))
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        assert "x: it broke" in text and "3.70" in text

    def test_colour_is_for_terminals_that_want_it(self, coloured):
        from rich.console import Console

        from tvm_shufflenet.report.peers import print_contest

        found = contest(entry("ours", 1), entry("x", failure=PeerFailed("it broke")))
        for terminal in (True, False):
            console = Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)
            print_contest(console, found)
            assert ("\x1b[31m" in console.file.getvalue()) == (coloured and terminal)
            assert terminal or "\x1b" not in console.file.getvalue()


class TestCatalogue:
    def test_every_peer_has_its_pins_and_programs(self):
        for peer in PEERS.values():
            assert peer.version and peer.script.exists()
            assert peer.environment == OWN or peer.environment in PINS
            assert peer.converter is None or (RUNNERS / f"{peer.converter}.py").exists()

    def test_the_emulated_core_runs_the_same_versions(self):
        for peer in find_peers("all", emulated=True):
            assert f"{peer.package}=={peer.version}" in peer.guest_pins

    def test_the_extra_has_the_versions_of_the_environments_that_agree(self):
        from packaging.requirements import Requirement

        text = (REPOSITORY / "pyproject.toml").read_text()
        pins = re.search(r"^peers = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1)
        assert {str(Requirement(pin)) for pin in re.findall('"(.+?)"', pins)} == {*PINS["onnx"], *PINS["ncnn"]}

    def test_what_is_installed_here_is_used(self):
        assert installed((f"numpy=={np.__version__}",))
        assert not installed(("numpy==0.1",)) and not installed(("no-such-package==1",))

    def test_names(self):
        assert [peer.name for peer in find_peers("ncnn, onnxruntime,ncnn")] == ["ncnn", "onnxruntime"]
        assert len(find_peers("all")) == 6 and len(find_peers("all", emulated=True)) == 3
        with pytest.raises(UnknownName, match="onnxruntime"):
            find_peers("onnxrt")
        with pytest.raises(UnknownName, match="emulated"):
            find_peers("openvino", emulated=True)


@pytest.fixture(scope="module")
def command():
    return load("peers")


class TestCommand:
    @pytest.mark.parametrize(
        "words, text",
        [
            (["--peers", "onnxrt"], "unknown peer 'onnxrt', nearest: onnxruntime"),
            (["--device", "emulated:cortex-a72", "--peers", "openvino"], "unknown peer on the emulated core"),
            (["--device", "emulated:cortex-a7"], "nearest: cortex-a7"),
            (["--device", "rpc://board:9090"], "unknown device"),
            (["--networks", "shufflenet_v3"], "unknown model"),
            (["--records", "/no/such/folder"], "there is no folder"),
        ],
    )
    def test_a_wrong_word_is_refused_at_once(self, command, words, text, capsys):
        assert command.main(words) == 2
        assert text in capsys.readouterr().err

    def test_only_a_failure_of_ours_fails_it(self, command):
        good = contest(entry("ours", 1), entry("broken", failure=PeerFailed("it broke")))
        wrong = contest(entry("ours", failure=WrongResult("off by 1")), entry("peer", 1))
        assert command._exit_code([good]) == 0 and command._exit_code([good, wrong]) == 5


class TestRunner:
    def start(self, code: str):
        return Runner("peer", [sys.executable, "-c", textwrap.dedent(code)], {})

    def test_answers_may_come_between_chatter(self):
        with self.start(
            """
            print("loading"); print('{"version": "1"}', flush=True)
            for line in __import__("sys").stdin: print('{"heard": "%s"}' % line.strip(), flush=True)
            """
        ) as runner:
            assert runner.facts == {"version": "1"}
            runner.pause()
            runner.resume()
            assert runner.ask("time 1 2") == {"heard": "time 1 2"}

    def test_death_carries_the_last_words(self):
        with (
            pytest.raises(PeerFailed, match=r"died.*ValueError: no such layer"),
            self.start("raise ValueError('no such layer')"),
        ):
            pass

    def test_death_by_a_signal_names_it(self):
        aborting = self.start("import os; print('{}', flush=True); input(); os.abort()")
        with aborting as runner, pytest.raises(PeerFailed, match="SIGABRT"):
            runner.ask("time 1 1")

    def test_last_words(self):
        assert last_words("Traceback\n  File x\nRuntimeError: bad\nINFO: bye\n") == "RuntimeError: bad"
        assert last_words("") == "it ended without a word"


RUNNER = """
import os, sys
sys.path.insert(0, {runners!r})
import numpy as np
from common import Engine, serve

class Fake(Engine):
    def run(self): {run}
    def outputs(self): return [{output}]
    def facts(self): return {{"version": "1.0", "settings": {{}}}}

serve(Fake)
"""


def fake_peer(folder, name: str, output: np.ndarray, run: str = "sum(range(10000))") -> Peer:
    """A peer that runs in this Python, and whose network answers ``output``."""
    np.save(folder / f"{name}.npy", output)
    loaded = f"np.load({str(folder / name)!r} + '.npy')"
    (folder / f"{name}.py").write_text(RUNNER.format(runners=str(RUNNERS), run=run, output=loaded))
    return Peer(name, "numpy", OWN, str(folder / name), "model.pt2")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The smallest network of the zoo at 32x32, our libraries of it, and their target."""
    from tvm_shufflenet.hardware.targets import find_target
    from tvm_shufflenet.models import find_model
    from tvm_shufflenet.workflow.compare import all_libraries
    from tvm_shufflenet.workflow.imported import import_model
    from tvm_shufflenet.workflow.schedules import open_records

    imported = import_model(find_model("shufflenet_v1_g3_x0_25", input_shape=(1, 3, 32, 32)))
    target = find_target("local")
    store = open_records(target, tmp_path_factory.mktemp("records"))
    with all_libraries(imported, target, store, "measured") as both:
        yield imported, both, target


@pytest.fixture(scope="module")
def tiny(network, tmp_path_factory):
    imported, both, _ = network
    return write_handover(imported, tmp_path_factory.mktemp("tiny")), {OURS: both.tuned.library}


def run_contest(tiny, *peers: Peer):
    effort = contests.Effort(rounds=2, samples=2, warmup=1)
    found = contests.local_contest("tiny", *tiny, peers, 1, effort, lambda text: None)
    return found, {entry.name: entry for entry in found.entries}


@pytest.fixture(scope="module")
def mixed(tiny, tmp_path_factory):
    folder, right = tmp_path_factory.mktemp("runners"), only(tiny[0].ours.expected)
    return run_contest(
        tiny,
        fake_peer(folder, "good", right),
        fake_peer(folder, "wrong", np.zeros((1, 1000), "float32")),
        fake_peer(folder, "misshapen", np.zeros((1, 7), "float32")),
        fake_peer(folder, "crashing", right, run="os.abort()"),
        Peer("unconvertible", "numpy", OWN, "run_torch", "model.none", str(folder / "missing")),
    )


@pytest.mark.slow
class TestContest:
    def test_who_fails_or_is_wrong_has_a_reason_and_no_latency(self, mixed):
        found, entries = mixed
        assert entries["ours"].failure is None and entries["good"].failure is None
        assert found.fastest_peer.name == "good" and found.ratio > 0
        for name, error, text in (
            ("wrong", WrongResult, "from PyTorch"),
            ("misshapen", WrongResult, "inf"),
            ("crashing", PeerFailed, "SIGABRT"),
            ("unconvertible", PeerFailed, "could not be converted"),
        ):
            assert entries[name].latency is None and isinstance(entries[name].failure, error)
            assert text in str(entries[name].failure)

    def test_runs_alternate_on_pinned_cpus(self, mixed):
        for name in ("ours", "good"):
            found = mixed[1][name]
            assert [len(turn) for turn in found.rounds_us] == [2, 2]
            assert list(found.affinity) == contests.first_cpus(1)
            assert found.max_abs_err <= 1e-4

    def test_ours_is_checked_as_well(self, tiny):
        handover, libraries = tiny
        wrong = dataclasses.replace(handover.ours, expected={OUTPUT: only(handover.ours.expected) + 1})
        shifted = dataclasses.replace(handover, ours=wrong)
        found, entries = run_contest((shifted, libraries))
        assert isinstance(entries["ours"].failure, WrongResult) and found.ratio is None

    def test_onnxruntime_in_its_own_environment(self, tiny):
        try:
            _, entries = run_contest(tiny, PEERS["onnxruntime"])
        except ToolMissing as exc:
            pytest.skip(str(exc))
        found = entries["onnxruntime"]
        if isinstance(found.failure, ToolMissing):
            pytest.skip(str(found.failure))
        assert found.failure is None and found.version == PEERS["onnxruntime"].version
        assert found.settings == {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
        assert found.max_abs_err <= 1e-4 and len(found.latency.samples_us) == 4


@pytest.mark.slow
class TestComparison:
    """``compare --peers``: tuned and untuned code take turns with the peers."""

    def test_figures_of_everyone(self, network, tmp_path):
        imported, both, target = network
        wrong = fake_peer(tmp_path, "wrong", np.zeros((1, 1000), "float32"))
        device, effort = find_device("local", target), contests.Effort(rounds=2, samples=2, warmup=1)
        peers = fake_peer(tmp_path, "good", only(imported.reference)), wrong
        comparison = compare_with_peers(imported, both, target, device, 1, peers, effort, lambda text: None)
        facts = msgspec.to_builtins(ComparisonDocument.of(comparison))
        assert [entry.name for entry in comparison.contest.entries] == [OURS, UNTUNED, "good", "wrong"]
        assert facts["speedup"] > 1 and facts["latency_us"]["tuned"]["samples"] == 4
        good, bad = facts["peers"]
        assert good["latency_us"]["kind"] == "measured" and good["version"] == "1.0" and good["max_abs_err"] == 0
        assert bad["latency_us"] is None and "from PyTorch" in bad["failure"]
        assert facts["host"]["cpu"] and facts["threads"] == 1

    def test_a_wrong_library_of_ours_has_no_figures(self):
        wrong = entry(UNTUNED, failure=WrongResult("off by 1"))
        for ours in (entry(OURS, 1), entry(OURS, failure=DeviceFailed("it died"))):
            with pytest.raises(WrongResult):
                comparison_of(None, contest(ours, wrong))

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["local", "--peers", "onnxrt"], "unknown peer 'onnxrt', nearest: onnxruntime"),
            (["arm64", "--peers", "openvino"], "unknown peer on the emulated core"),
            (["arm64", "--peers", "--threads", "2"], "run on one emulated core, not on 2"),
            (["arm64", "--device", "rpc://board:9090", "--peers", "ncnn"], "cannot be run on rpc://board:9090"),
        ],
    )
    def test_refused_before_anything_is_built(self, words, text, capsys):
        assert cli.main(["compare", "--target", *words]) == 2
        assert text in capsys.readouterr().err


class TestHandover:
    def test_a_network_that_cannot_be_traced_fails_ncnn_alone(self, tmp_path):
        (tmp_path / NOT_TRACED).write_text("torch.jit.trace: no such thing")
        with pytest.raises(SystemExit, match="no such thing"), pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "pnnx", types.SimpleNamespace(EXEC_PATH="none"))
            patch.setattr(sys, "argv", ["convert_ncnn.py", str(tmp_path), str(tmp_path / "model.param")])
            runpy.run_path(str(RUNNERS / "convert_ncnn.py"))

    def test_an_onnx_file_is_handed_over_as_it_is(self, tmp_path):
        onnx = pytest.importorskip("onnx")
        from tvm_shufflenet.models.sources.onnx_files import OnnxModel

        proto = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
        takes, data = signature((1, 1), (1, 1)), np.zeros((1, 1), "float32")
        imported = Imported(OnnxModel("net", (1, 1), proto=proto), None, takes, {OUTPUT: data})
        answer = Answer(REFERENCE, imported.reference, {OUTPUT: 1e-4})
        imported.__dict__["answers"] = Answers(imported.inputs, (answer,), {OUTPUT: 0.0}, {OUTPUT: 1.0})
        (given,) = write_handover(imported, tmp_path).inputs
        np.testing.assert_array_equal(np.load(given), only(imported.inputs))
        assert onnx.load(tmp_path / "model.onnx") == proto and not (tmp_path / "model.pt2").exists()


class TestGuestMachine:
    def test_it_describes_the_core_that_is_modelled(self):
        from tvm_shufflenet.hardware.boards import BOARDS
        from tvm_shufflenet.peers.guest import _machine

        assert len({board.core.part for board in BOARDS.values()}) == len({board.core.cpu for board in BOARDS.values()})
        for board in BOARDS.values():
            cpuinfo = _machine(board)["proc/cpuinfo"]
            assert f"CPU part\t: 0x{board.core.part:03x}\n" in cpuinfo
            assert ("asimddp" in cpuinfo) == (board.core.cpu in ("cortex-a55", "cortex-a76"))
