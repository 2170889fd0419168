"""The documentation builds without a warning, and what it tells people to type works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_shufflenet import toolchain

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
    assert "tvm_shufflenet.workflow.compile_package" in python and "Write a package to" in python


# In place of the tutorial's network and its trials: the same commands, in a tenth of the time.
SMALL = """
from torch import nn
from tvm_shufflenet.models.shufflenet_v2 import ShuffleUnit

def network():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), ShuffleUnit(16, 16, 1), *pooled)
"""
REPLACED = {
    "--model shufflenet_v2_x0_5": "--model small.py:network --input-shape 1,3,16,16",
    "--trials 24": "--trials 4",
    "shufflenet_v2_x0_5_bench": "small_network_bench",
}


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_what_the_tutorial_says_to_type_works(tmp_path):
    commands = re.findall(r"^\$ (.+)$", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE)
    (tmp_path / "small.py").write_text(SMALL)
    assert len(commands) > 7 and all(any(old in command for command in commands) for old in REPLACED)
    for command in commands:
        for old, new in REPLACED.items():
            command = command.replace(old, new)
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
