"""llvm-mca: forked or started, it says the same, and no process of it outlives its use."""

from __future__ import annotations

import gc
import threading

import psutil
import pytest

from tvm_shufflenet.clock import mca
from tvm_shufflenet.clock.mca import Mca
from tvm_shufflenet.errors import DeviceFailed, LinkFailed
from tvm_shufflenet.hardware.cores import CORTEX_A72
from tvm_shufflenet.support import toolchain

LOOP = ["fmla\tv0.4s, v1.4s, v2.4s", "add\tx0, x0, #16", "b.ne\t#-8"] * 20
SEQUENCES = [LOOP, ["nop"], LOOP[:7]]

pytestmark = pytest.mark.skipif(toolchain.find_llvm_mca().path is None, reason="missing: llvm-mca")


def moments(of: Mca) -> list[list[tuple[int, int]]]:
    found = of.timelines(SEQUENCES)
    return [[(each.cycle_issued, each.cycle_retired) for each in timeline] for timeline in found]


def loaded_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "llvm-mca" in " ".join(child.cmdline())]


@pytest.fixture
def started(monkeypatch) -> list[list[tuple[int, int]]]:
    """What it says where nothing can be preloaded."""

    def refuse():
        raise LinkFailed("it did not build", "a test", "no way")

    with monkeypatch.context() as patch:
        patch.setattr(mca, "fork_server", refuse)
        said = moments(Mca(CORTEX_A72))
    assert not loaded_processes()
    return said


def test_forked_it_says_what_it_says_when_started(started):
    assert [len(timeline) for timeline in started] == [60, 1, 7]
    forked = Mca(CORTEX_A72)
    for _ in range(3):
        assert moments(forked) == started
    assert len(loaded_processes()) == 1
    del forked
    gc.collect()
    assert not loaded_processes()


def test_threads_do_not_wait_for_each_other_nor_mix_their_answers(started):
    shared, wrong = Mca(CORTEX_A72), []

    def ask():
        wrong.extend(1 for _ in range(5) if moments(shared) != started)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(loaded_processes()) <= 4


def test_where_what_was_loaded_is_killed_it_is_started(started):
    robbed = Mca(CORTEX_A72)
    assert moments(robbed) == started
    for process in loaded_processes():
        process.kill()
        process.wait()
    assert moments(robbed) == started
    assert not loaded_processes()


def test_a_failure_of_what_was_forked_is_reported(tmp_path, monkeypatch):
    broken = tmp_path / "llvm-mca-99"
    broken.write_text("#!/bin/sh\necho it broke >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("TVM_SHUFFLENET_LLVM_MCA", str(broken))
    with pytest.raises(DeviceFailed, match="it broke"):
        Mca(CORTEX_A72).timelines(SEQUENCES)
