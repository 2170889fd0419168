"""A runner as a process: start, request, pause while others are timed, end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from ..errors import PeerFailed
from ..support.processes import end_with_parent

LOAD_LIMIT_S = 600
ANSWER_LIMIT_S = 600


def last_words(text: str) -> str:
    """The line of a program's standard error that most likely says what was wrong."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line.partition(" ")[0] or "rror:" in line]
    return " ".join((telling or lines or ["it ended without a word"])[-1].split())[:300]


class Runner:
    """``with Runner("ncnn", command) as runner: runner.ask("time 5 10")``; ``facts`` is its first answer.

    It has a process group of its own and ends with this process, however this process ends.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: Path | None = None):
        self.name = name
        self._command, self._environment, self._folder = command, environment, folder
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Runner:
        self._stderr = tempfile.TemporaryFile()  # read when the process has failed
        self._process = subprocess.Popen(
            self._command, env=self._environment, cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._stderr, text=True, errors="replace", start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.facts = self._answer(LOAD_LIMIT_S)
        except BaseException:  # Ctrl-C too
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc) -> None:
        self._signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._stderr.close()

    def ask(self, request: str) -> dict:
        """Raises PeerFailed where the process died or does not answer in time."""
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise self._failed("died") from exc
        return self._answer(ANSWER_LIMIT_S)

    def pause(self) -> None:
        """Its threads may otherwise spin for a while, waiting for work, on the cores that another one is timed on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")

    def _answer(self, limit_s: float) -> dict:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._failed(f"did not answer within {limit_s:.0f} s") from None
            if not line:
                raise self._failed("died")
            with contextlib.suppress(ValueError):
                return json.loads(line)

    def _failed(self, what: str) -> PeerFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        by = f" by {signal.Signals(-status).name}" if status is not None and status < 0 else ""
        size = os.fstat(self._stderr.fileno()).st_size
        words = last_words(os.pread(self._stderr.fileno(), 8192, max(0, size - 8192)).decode(errors="replace"))
        return PeerFailed(f"{self.name} {what}{by}: {words}", "", "leave it out with --peers")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
