"""The documentation builds without a warning, and what it tells people to type works."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.support import toolchain

ROOT = Path(__file__).parents[1]
MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "NO_MKDOCS_2_WARNING": "1",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


def test_every_page_is_in_the_site(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages and all((site / page).is_file() for page in pages)


def test_the_reference_has_every_command_and_the_functions_behind_them(site):
    commands = (site / "reference/commands.html").read_text()
    for name in (
        "models",
        "targets",
        "doctor",
        "tune",
        "compile",
        "run",
        "bench",
        "profile",
        "compare",
        "deploy",
        "serve",
    ):
        assert f'id="{name}"' in commands and f"usage: tvm-shufflenet {name}" in commands
    python = (site / "reference/python.html").read_text()
    assert "tvm_shufflenet.workflow.compile.compile_package" in python and "Write a package to" in python


# In place of the pages' networks and trials: the same commands, in a tenth of the time.
SMALL = """
from torch import nn
from tvm_shufflenet.models.zoo.shufflenet_v2 import ShuffleUnit

def network():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), ShuffleUnit(16, 16, 1), *pooled)
"""
REPLACED = {
    "--model shufflenet_v2_x0_5": "--model small.py:network --input-shape 1,3,16,16",
    "1,3,224,224": "1,3,16,16",
    "--trials 24": "--trials 4",
    "shufflenet_v2_x0_5_bench": "small_network_bench",
}


needs_emulator = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


def typed(page: str) -> list[str]:
    """What a page says to type, for the small network."""
    text = (ROOT / "docs" / page).read_text()
    for old, new in REPLACED.items():
        text = text.replace(old, new)
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


def exit_code(command: str) -> int:
    """What is typed here, where ours do not have to import PyTorch and TVM anew."""
    program, *words = shlex.split(command)
    return cli.main(words) if program == "tvm-shufflenet" else subprocess.run([program, *words]).returncode


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.mark.slow
@needs_emulator
def test_what_the_tutorial_says_to_type_works(tmp_path, monkeypatch, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    commands = typed("tutorial.md")
    assert len(commands) > 7 and sum("small" in command for command in commands) > 2
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert exit_code(command) == 0, f"{command}: {capsys.readouterr().err[-2000:]}"


def block(language: str) -> str:
    return re.search(rf"^```{language}\n(.+?)^```", (ROOT / "docs/ci.md").read_text(), re.MULTILINE | re.DOTALL)[1]


@pytest.mark.slow
@needs_emulator
def test_the_gate_refuses_what_is_slower(tmp_path, monkeypatch):
    """Than a baseline that is 1 % faster than it was; what passes is in test_baseline.py."""
    (tmp_path / "model.py").write_text(SMALL)
    (tmp_path / "gate.sh").write_text(block("sh").replace("1,3,224,224", "1,3,16,16"))
    (baseline,) = typed("ci.md")
    monkeypatch.chdir(tmp_path)
    assert exit_code(baseline) == 0
    facts = json.loads((tmp_path / "latency.json").read_text())
    facts["latency_us"]["tuned"]["median"] *= 0.99
    (tmp_path / "latency.json").write_text(json.dumps(facts))
    gate = run(["sh", "gate.sh"], tmp_path)
    assert gate.returncode == 7 and "Slower." in gate.stdout, gate.stderr
    verdict = json.loads((tmp_path / "now.json").read_text())["baseline"]
    assert verdict["slower_percent"] == pytest.approx(100 / 0.99 - 100) and (tmp_path / "report.html").exists()


def test_the_job_installs_what_the_doctor_wants_and_runs_the_gate():
    (job,) = yaml.safe_load(block("yaml"))["jobs"].values()
    said = "\n".join(step.get("run", "") for step in job["steps"])
    wanted = [
        re.sub("llvm-[0-9]+", "llvm-", tool.install) for tool in toolchain.all_tools() if "apt-get" in tool.install
    ]
    assert len(wanted) > 4 and "sh gate.sh" in said
    assert all(
        package in said for install in wanted for package in install.split("--no-install-recommends ")[1].split()
    )
