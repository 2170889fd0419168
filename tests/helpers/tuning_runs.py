"""Tuning as a command in a process of its own, and as a function on a unit of three operators."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import psutil
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.graph.tasks import OperatorTask
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.measuring.measurer import Measurer
from tvm_shufflenet.tuning.records.store import JOURNAL, workload_hash

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
SHAPE = (1, 48, 8, 8)
ARM64 = find_target("arm64")


def operators(unit, target=ARM64) -> list[OperatorTask]:
    return fuse(unit.module, target).tasks


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@I.ir_module
class Crash:
    @T.prim_func
    def main(B: T.Buffer((64,), "float32")):
        T.func_attr({"global_symbol": "main"})
        B[T.int64(1099511627776)] = T.float32(1)


class Sabotaged(Measurer):
    """The first two schedules that the search proposes crash, or compute nothing, however often they are tried."""

    wrong = False

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.victims = []

    def _job(self, mod, endpoint, reference):
        made = super()._job(mod, endpoint, reference)
        schedule = workload_hash(mod)
        if reference is self._probe_reference:
            return made
        if len(self.victims) < 2 and schedule not in self.victims:
            self.victims.append(schedule)
        if schedule in self.victims:
            idle = tvm.IRModule({"main": mod["main"].with_body(tvm.tirx.Evaluate(0))})
            return replace(made, module_json=tvm.ir.save_json(idle if self.wrong else Crash))
        return made


def tune_command(model: str, folder: Path, *more: str) -> list[str]:
    words = ["tvm-shufflenet", "tune", "--model", model, "--input-shape", "1,48,8,8", "--target", "arm64"]
    return [*words, "--trials", "200", "--records", str(folder), *more]


class Command:
    """A command in a session of its own, as a shell starts it, and every process that it starts."""

    def __init__(self, words: list[str]):
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvm_shufflenet.cli", *words],
            env=os.environ | {"TVM_SHUFFLENET_TEST": self.mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Tests may themselves run in the background, where SIGINT is ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.descendants: set[psutil.Process] = set()

    def watch(self, until, limit_s: float = 90) -> None:
        """Note the processes it starts until something is so."""
        deadline = time.monotonic() + limit_s
        while not until() and self.process.poll() is None and time.monotonic() < deadline:
            self.note()
            time.sleep(0.05)
        self.note()
        assert until() and self.process.poll() is None, self.process.stderr.read()

    def note(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.descendants |= set(psutil.Process(self.process.pid).children(recursive=True))

    def left(self, limit_s: float = 3) -> list[psutil.Process]:
        """What is still running of it after a moment: seen before, or with the mark that all but qemu inherit."""
        found = set(self.descendants)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TVM_SHUFFLENET_TEST") == self.mark:
                    found.add(process)
        _, alive = psutil.wait_procs(found, timeout=limit_s)
        return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
