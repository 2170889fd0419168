"""The worker processes that run trials."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tvm.support.popen_pool import PopenWorker, kill_child_processes

from ...support.files import is_free
from .trial import Cause, Job, Outcome, prepare_worker, run_trial

# TVM's compiler grows a little with every module; a worker starts anew long before that matters.
TRIALS_PER_PROCESS = 300
PROGRAM = "tvm_shufflenet.tuning.measuring.worker_process"
FOLDER_PREFIX, LOCK = "tvm-shufflenet-trials-", "owner"


class _Worker(PopenWorker):
    """TVM's, with a main program of our own."""

    def _start(self) -> None:
        if self._proc is not None:
            return
        our_end, answers = os.pipe()
        requests, their_end = os.pipe()
        self._proc = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(requests), str(answers)],
            pass_fds=(requests, answers),
            stdout=self._stdout,
            stderr=self._stderr,
        )
        os.close(requests)
        os.close(answers)
        self._reader, self._writer = os.fdopen(our_end, "rb"), os.fdopen(their_end, "wb")


class Workers:
    """``count`` long-lived processes with TVM loaded. A trial that outlives ``trial_seconds`` costs its process."""

    def __init__(self, count: int, trial_seconds: float):
        self._trial_seconds = trial_seconds
        # Where trials write: a process that is killed cannot tidy up after itself. Nor can this one.
        remove_abandoned()
        self._folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        self._lock = open(Path(self._folder, LOCK), "w")  # noqa: SIM115  (held as long as this process lives)
        with contextlib.suppress(OSError):  # a file system without locks: what a killed run leaves there stays
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._all = [
            _Worker(
                prepare_worker,
                (self._folder,),
                maximum_uses=TRIALS_PER_PROCESS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(count)
        ]
        self._free: queue.SimpleQueue[PopenWorker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count)
        self._urgent = ThreadPoolExecutor(1)  # it waits for a free process, not for a place in the queue
        # Loading TVM takes seconds: let it happen while the caller prepares the first candidates.
        self._futures: list[Future] = [self._threads.submit(self._warm_up, worker) for worker in self._all]

    def _warm_up(self, worker: PopenWorker) -> None:
        try:
            with contextlib.suppress(ChildProcessError):  # the first trial starts it again
                worker.send(prepare_worker, (self._folder,))
                worker.recv()
        finally:
            self._free.put(worker)

    def submit(self, job: Job, urgent: bool = False) -> Future[Outcome]:
        """Queue a trial, an ``urgent`` one before all others; the future's result is an Outcome, whatever happens to
        its process.
        """
        submitted = (self._urgent if urgent else self._threads).submit(self._run, job)
        self._futures = [*(future for future in self._futures if not future.done()), submitted]
        return submitted

    def _run(self, job: Job) -> Outcome:
        worker = self._free.get()
        try:
            worker.send(run_trial, (job,), timeout=self._trial_seconds)
            return worker.recv()
        except TimeoutError:
            return Outcome(cause=Cause.TIMEOUT, error=f"the trial took over {self._trial_seconds:.0f} s")
        except ChildProcessError:
            return Outcome(cause=Cause.BUILD, error="the compiler crashed, and its worker process with it")
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """Drop what is queued and end the processes, whatever they are doing."""
        for threads in (self._threads, self._urgent):
            threads.shutdown(wait=False, cancel_futures=True)
        # PopenWorker.kill() waits for an answer that a thread is waiting for: so end the process first, then the thread
        # gives up. It may just have started another.
        while not all(future.done() for future in self._futures):
            for process in filter(None, [worker._proc for worker in self._all]):
                kill_child_processes(process.pid)
                process.kill()
            time.sleep(0.02)
        for worker in self._all:
            worker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()
        remove_abandoned()


def remove_abandoned() -> None:
    """Folders of tuning runs that were killed outright: nobody holds their lock any more."""
    for lock in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{LOCK}"):
        if is_free(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)
