"""The worker processes that run trials."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from tvm.support.popen_pool import PopenWorker

from .trial import Cause, Job, Outcome, prepare_worker, run_trial

# TVM's compiler grows a little with every module; a worker starts anew long before that matters.
TRIALS_PER_PROCESS = 300


class Workers:
    """``count`` long-lived processes with TVM loaded. A trial that outlives ``trial_seconds`` costs its process."""

    def __init__(self, count: int, trial_seconds: float):
        self._trial_seconds = trial_seconds
        self._all = [
            PopenWorker(
                prepare_worker,
                maximum_uses=TRIALS_PER_PROCESS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(count)
        ]
        self._free: queue.SimpleQueue[PopenWorker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count)
        # Loading TVM takes seconds: let it happen while the caller prepares the first candidates.
        for worker in self._all:
            self._threads.submit(self._warm_up, worker)

    def _warm_up(self, worker: PopenWorker) -> None:
        worker.send(prepare_worker)
        worker.recv()
        self._free.put(worker)

    def submit(self, jobs: Iterable[Job]) -> list[Future[Outcome]]:
        """Queue the trials; each future's result is an Outcome, whatever happens to its process."""
        return [self._threads.submit(self._run, job) for job in jobs]

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
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.kill()
