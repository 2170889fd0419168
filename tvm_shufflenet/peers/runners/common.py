"""Shared by all runners: the request protocol, and how a latency sample is taken.

A runner is a process that loads one converted network and answers, in lines of JSON on standard output, the lines on
its standard input: ``time WARMUP SAMPLES`` or ``count WARMUP``. Its first answer, without being asked, says what was
loaded; by then the files that ``--outputs`` names hold the outputs of a first inference. It ends with its standard
input.

Standard library and NumPy only: this runs in environments that have nothing of ours, and in the emulated guest.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import sys
import time

# As many runs as fit in this time are averaged into one sample, as TVM's time_evaluator does for our own libraries.
SAMPLE_SECONDS = 0.02
# The counting plugin's marks: a system call with an argument that the kernel refuses.
MARK = 0x7E57


class Engine:
    """One loaded network. ``options`` has ``artifact``, ``threads``, ``inputs``; these are set when it is loaded."""

    def __init__(self, options: argparse.Namespace):
        import numpy as np

        self.options = options
        self.inputs = [np.load(path) for path in options.inputs]

    def run(self) -> None:
        """One inference on the inputs that are already in place."""
        raise NotImplementedError

    def outputs(self) -> list:
        """The last inference's outputs as arrays, in the network's order."""
        raise NotImplementedError

    def facts(self) -> dict:
        """Version of the engine, and what its threads were set to."""
        raise NotImplementedError

    def time(self, warmup: int, samples: int) -> dict:
        """Wall-clock samples in microseconds, each the mean of as many runs as fit in SAMPLE_SECONDS."""
        for _ in range(warmup):
            self.run()
        once = min(self._seconds(1) for _ in range(3))
        number = max(1, math.ceil(SAMPLE_SECONDS / once))
        gc.collect()
        gc.disable()
        try:
            return {"samples_us": [1e6 * self._seconds(number) / number for _ in range(samples)]}
        finally:
            gc.enable()

    def _seconds(self, number: int) -> float:
        run = self.run
        started = time.perf_counter()
        for _ in range(number):
            run()
        return time.perf_counter() - started

    def count(self, warmup: int) -> dict:
        """One inference between the plugin's marks, after ``warmup`` unmarked ones."""
        for _ in range(warmup):
            self.run()
        gc.collect()
        gc.disable()
        _mark(0)
        self.run()
        _mark(1)
        return {"counted": True}


def _mark(number: int) -> None:
    with contextlib.suppress(OSError):
        os.getpriority(MARK, number)


def serve(engine_class: type[Engine]) -> None:
    """Load the network that the command line names, and answer until standard input ends."""
    options = _options()
    answers = _private_stdout()
    if options.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in options.cpus.split(",")})
    import numpy as np

    engine = engine_class(options)
    engine.run()
    for path, output in zip(options.outputs, engine.outputs(), strict=True):
        np.save(path, np.asarray(output))
    affinity = sorted(os.sched_getaffinity(0))
    print(json.dumps(engine.facts() | {"affinity": affinity}), file=answers, flush=True)
    for line in sys.stdin:
        verb, *numbers = line.split()
        answer = getattr(engine, {"time": "time", "count": "count"}[verb])(*map(int, numbers))
        print(json.dumps(answer), file=answers, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", required=True, help="the converted network")
    parser.add_argument("--inputs", required=True, nargs="+", help="its inputs in order, .npy")
    parser.add_argument("--outputs", required=True, nargs="+", help="where the first outputs go, .npy")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", default="", help="CPUs to stay on, separated by commas; all without")
    parser.add_argument("--device", default="local", help="for our own libraries only")
    return parser.parse_args()


def _private_stdout():
    """Standard output for answers only: what an engine prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers
