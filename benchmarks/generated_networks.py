"""Thousands of random networks (tests/helpers/generated.py) against PyTorch: not one wrong number, not one crash.

    python benchmarks/generated_networks.py --networks 2000 --jobs 2
    python benchmarks/generated_networks.py --first 46 --networks 1      # one again

Each is compiled for this machine by the templates' first choices and by random schedules, and runs twice on each of
several inputs. A network that the importer refuses in words is counted apart. Exit code 1 where anything was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import program

TESTS = Path(__file__).parents[1] / "tests"
BLOCK = 50  # networks of one process
RIGHT, REFUSED, WRONG = "right", "refused", "WRONG"


def work(seeds: range) -> None:
    """Print a line for each network: seed, outcome, and what was found."""
    from helpers.generated import Generated
    from helpers.proving import wrong
    from tvm_shufflenet.errors import ImportFailed

    for seed in seeds:
        network, found = None, None
        try:
            network = Generated(seed)
            found = wrong(network) or wrong(network, seed)
        except ImportFailed as exc:
            print(seed, REFUSED, str(exc).splitlines()[0], flush=True)
            continue
        except Exception as exc:
            found = f"{type(exc).__name__}: {' '.join(str(exc).split())[-300:]}"
        what = f"{found}; {network and (network.shape, network.parts)}" if found else ""
        print(seed, WRONG if found else RIGHT, what, flush=True)


def outcomes(seeds: range) -> list[str]:
    """The lines of ``work``, with one for each network that ended its process."""
    lines: list[str] = []
    while len(lines) < len(seeds):
        rest = seeds[len(lines) :]
        command = [sys.executable, __file__, "--first", str(rest.start), "--networks", str(len(rest)), "--worker"]
        environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        found = done.stdout.splitlines()
        if done.returncode != 0 and len(found) < len(rest):
            found.append(f"{rest[len(found)]} {WRONG} the process ended with {done.returncode}")
        lines += found
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.networks)
    if options.worker:
        work(seeds)
        return 0
    started, counted = time.monotonic(), Counter()
    blocks = [seeds[begin : begin + BLOCK] for begin in range(0, len(seeds), BLOCK)]
    with ThreadPoolExecutor(options.jobs) as jobs:
        for lines in jobs.map(outcomes, blocks):
            for line in lines:
                counted[line.split()[1]] += 1
                if line.split()[1] != RIGHT:
                    print(line, flush=True)
    summary = ", ".join(f"{counted[outcome]} {outcome.lower()}" for outcome in (RIGHT, REFUSED, WRONG))
    print(f"{len(seeds)} networks: {summary}; {time.monotonic() - started:.0f} s")
    return 1 if counted[WRONG] else 0


if __name__ == "__main__":
    program.run(main)
