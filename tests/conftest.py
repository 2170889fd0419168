"""What the tests share: the flag that rewrites golden files, a terminal, the processes that run trials."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

import pytest

# Threads that have nothing to do sleep: spinning, those of PyTorch's OpenMP and of TVM take most of a core that several
# processes share. Set before either is loaded; the processes that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden anew instead of comparing")


def pytest_collection_modifyitems(items):
    """Files with slow tests first, then those with many: begun last, one of them would keep a single process busy."""
    tests = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path], item.path))


@pytest.fixture(scope="session", autouse=True)
def reproducers(tmp_path_factory) -> Path:
    """Where wrong code is kept during the tests: not among what the user has found."""
    folder = tmp_path_factory.mktemp("kept") / "reproducers"
    os.environ["TVM_SHUFFLENET_REPRODUCERS"] = str(folder)
    return folder


@pytest.fixture
def golden(request):
    """The text of a golden file, given its name and what would be written; with --rewrite-golden it is written."""

    def read(name: str, current: str) -> str:
        path = GOLDEN / name
        if request.config.getoption("--rewrite-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(current.rstrip() + "\n")
        assert path.exists(), f"{path} is missing; pytest --rewrite-golden writes it, then read what it wrote"
        return path.read_text()

    return read


@pytest.fixture(params=[({}, True), ({"NO_COLOR": "1"}, False)], ids=["colour", "NO_COLOR"])
def coloured(request, monkeypatch) -> bool:
    """Whether what is shown on a terminal should be coloured, in an environment that says so."""
    environment, wanted = request.param
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return wanted


@pytest.fixture(scope="module")
def workers():
    """They load TVM, which takes longer than what they do in most tests."""
    from tvm_shufflenet.tuning.measuring.workers import Workers

    made = Workers(2, 45.0)
    yield made
    made.close()


@pytest.fixture
def kept_workers(workers, monkeypatch):
    """Searches use these, and start none of their own."""
    monkeypatch.setattr("tvm_shufflenet.tuning.search.driver.start_workers", lambda *_: contextlib.nullcontext(workers))
