"""The gate against an earlier comparison: what it refuses, and what it lets pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.errors import BadInput, Slower
from tvm_shufflenet.report.baseline import Conditions, Verdict, read_baseline, refuse_unlike
from tvm_shufflenet.report.documents import VerdictDocument

CONDITIONS = Conditions("net", (1, 3, 32, 32), "local", "measured", 1, ("a CPU", 2))
FACTS = {
    "schema": 1,
    "model": "net",
    "input_shape": [1, 3, 32, 32],
    "device": {"name": "local", "kind": "measured", "model_error_percent": None},
    "host": {"cpu": "a CPU", "cpus": 2},
    "threads": 1,
    "latency_us": {"tuned": {"median": 1000.0, "kind": "measured"}, "untuned": {"median": 9000.0}},
}


def write(folder: Path, **changes) -> Path:
    path = folder / "old.json"
    path.write_text(json.dumps(FACTS | changes))
    return path


class TestRefusals:
    def test_its_own_setting_passes(self, tmp_path):
        path = write(tmp_path)
        refuse_unlike(read_baseline(path), CONDITIONS, path)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"model": "other"}, "model other there, net here"),
            ({"input_shape": [1, 3, 64, 64]}, "input 1x3x64x64"),
            ({"threads": 2}, "threads 2 there, 1 here"),
            ({"device": {"name": "rpc://board:9090", "kind": "measured"}}, "device rpc://board:9090"),
            ({"device": {"name": "local", "kind": "modelled"}}, "clock modelled"),
            ({"latency_us": {"tuned": {"median": 1.0, "kind": "modelled"}}}, "latency modelled"),
            ({"host": {"cpu": "another CPU", "cpus": 2}}, "another CPU"),
            ({"host": {"cpu": "a CPU", "cpus": 64}}, "64"),
        ],
    )
    def test_anything_else_that_differs_is_named(self, tmp_path, changes, text):
        path = write(tmp_path, **changes)
        with pytest.raises(BadInput, match=text):
            refuse_unlike(read_baseline(path), CONDITIONS, path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"latency_us": {}},
            {"latency_us": {"tuned": {"median": 0}}},
            {"latency_us": {"tuned": {"median": "fast"}}},
            {"schema": 2},
            {"threads": None},
            {"device": "local"},
        ],
    )
    def test_no_comparison(self, tmp_path, changes):
        with pytest.raises(BadInput):
            read_baseline(write(tmp_path, **changes))

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    def test_no_json(self, tmp_path, content):
        path = tmp_path / "old.json"
        path.write_bytes(content)
        with pytest.raises(BadInput):
            read_baseline(path)

    def test_no_file(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.json"):
            with pytest.raises(BadInput, match="cannot read"):
                read_baseline(path)


class TestVerdict:
    @pytest.mark.parametrize(
        ("now_us", "allowed", "passed"),
        [(1000, 0, True), (1000.1, 0, False), (1050, 5, True), (1051, 5, False), (500, 0, True), (2000, 100, True)],
    )
    def test_the_limit_itself_passes(self, now_us, allowed, passed):
        verdict = Verdict(Path("old.json"), 1000, now_us, allowed)
        assert verdict.passed == passed and VerdictDocument.of(verdict).passed == passed
        if passed:
            verdict.check()
        else:
            with pytest.raises(Slower, match=r"slower, .*allowed"):
                verdict.check()


@pytest.fixture
def compare(tmp_path, monkeypatch, capfd):
    """Compare a small network on this machine: exit code, standard error, facts."""
    monkeypatch.chdir(tmp_path)
    words = "compare --model shufflenet_v1_g3_x0_25 --input-shape 1,3,32,32 --target local --repeat 2 --json new.json"

    def compare(*more: object) -> tuple[int, str, dict]:
        Path("new.json").unlink(missing_ok=True)
        code = cli.main([*words.split(), *map(str, more)])
        facts = json.loads(Path("new.json").read_text()) if Path("new.json").exists() else None
        return code, capfd.readouterr().err, facts

    return compare


@pytest.mark.slow
class TestCommand:
    def test_refused_before_anything_is_timed(self, compare):
        facts = FACTS | {"model": "shufflenet_v1_g3_x0_25", "threads": 2}
        Path("old.json").write_text(json.dumps(facts))
        code, error, written = compare("--baseline", "old.json")
        assert code == 2 and "threads 2 there, 1 here" in error and written is None

    def test_fail_slower_alone(self, compare):
        code, error, _ = compare("--fail-slower", "5")
        assert code == 2 and "goes with --baseline" in error
        with pytest.raises(SystemExit):
            compare("--baseline", "old.json", "--fail-slower", "some")
