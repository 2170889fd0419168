"""Ten seconds of fuzzing each target, from its corpus; benchmarks/fuzz.py does it for as long as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import load

from tvm_shufflenet.errors import ToolMissing

ROOT = Path(__file__).parents[1]
SECONDS = 10


@pytest.fixture(scope="module")
def fuzz():
    return load("fuzz")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["manifest", "archive", "records", "cli", "server"])
def test_nothing_breaks_it(fuzz, target):
    try:
        fuzz.command_of(target)
    except ToolMissing as exc:
        pytest.skip(str(exc))
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--seconds", str(SECONDS), target]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]


def test_corpora_are_small(fuzz):
    for target in (*fuzz.PYTHON_TARGETS, fuzz.SERVER):
        files = list((ROOT / "tests" / "fuzz" / "corpus" / target).iterdir())
        assert files and sum(path.stat().st_size for path in files) <= fuzz.CORPUS_BYTES
