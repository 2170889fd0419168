"""An emulated core that ``tvm-shufflenet serve`` serves: reached at its address or by a tracker, it can do what a local
one can, or the command says why not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tvm.rpc.tracker import Tracker

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices.lending import registered
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.support import toolchain

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")

UNIT = """
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
def unit():
    return ShuffleUnit(12, 12, 3, 1, 3)
"""
CORE = {"name": "emulated:cortex-a72", "kind": "modelled"}
CORE |= {"model_error_percent": find_board("cortex-a72").model_error_percent}


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of a core that a process of its own serves."""
    words = [sys.executable, "-m", "tvm_shufflenet.cli", "serve", "--core", "cortex-a72", "--port", "0", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield server.stdout.readline().removeprefix("listening ").strip()
        finally:
            server.terminate()


@pytest.fixture(scope="module", params=["rpc", "tracker"])
def device(request) -> Iterator[str]:
    """What ``--device`` names it by."""
    if request.param == "rpc":
        with serving() as address:
            yield f"rpc://{address}"
        return
    tracker = Tracker(host="127.0.0.1", port=22990, port_end=23990, silent=True)
    try:
        with serving("--tracker", f"127.0.0.1:{tracker.port}", "--key", "a72"):
            deadline = time.monotonic() + 20
            while not registered("127.0.0.1", tracker.port, "a72") and time.monotonic() < deadline:
                time.sleep(0.1)
            yield f"tracker://127.0.0.1:{tracker.port}/a72"
    finally:
        tracker.terminate()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> list[str]:
    """The words for a small network and its target."""
    path = tmp_path_factory.mktemp("model") / "unit.py"
    path.write_text(UNIT)
    return ["--model", f"{path}:unit", "--input-shape", "1,12,8,8", "--target", "cortex-a72"]


@pytest.fixture(scope="module")
def package(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("package") / "unit"
    assert cli.main(["compile", *model, "-o", str(path)]) == 0
    return path


def facts_of(path: Path, *words: str | Path) -> dict:
    """What a command writes as JSON."""
    assert cli.main([*map(str, words), "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_bench(device, package, tmp_path, capsys):
    facts = facts_of(tmp_path / "bench.json", "bench", package, "--device", device)
    assert facts["device"] == CORE and facts["latency_us"]["kind"] == "modelled"
    assert facts["unmodelled"] is not None and facts["cold_us"] is None
    assert f"at {device}" in capsys.readouterr().out


def test_profile(device, package, tmp_path):
    facts = facts_of(tmp_path / "profile.json", "profile", package, "--device", device, "--asm")
    assert facts["device"] == CORE and facts["kind"] == "modelled"
    assert facts["sum_us"] == pytest.approx(facts["latency_us"]["median"], abs=1e-3) and facts["runtime"] is not None
    assert all(row["cycles"] > 0 for row in facts["operators"]) and facts["assembly"][0]["blocks"]


def test_a_page_and_the_next_comparison(device, model, tmp_path):
    words = ["compare", *model, "--device", device]
    facts = facts_of(tmp_path / "first.json", *words, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert facts["device"] == CORE and f"--device {device}" in page and "Roofline" in page
    again = facts_of(tmp_path / "again.json", *words, "--baseline", tmp_path / "first.json", "--fail-slower", "5")
    assert again["baseline"]["passed"]


def test_peers_are_refused(device, model, capsys):
    assert cli.main(["compare", *model, "--device", device, "--peers", "ncnn"]) == 2
    assert f"other engines cannot be run on {device}" in capsys.readouterr().err
