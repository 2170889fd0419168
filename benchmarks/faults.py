"""A tuning run among faults: do the records equal those of an undisturbed run, is anything left behind?

    python benchmarks/faults.py --faults 200

It kills and stops the device servers, their emulators and sessions, the tracker, the tuner and its workers, resets
connections in mid-upload, flips bits on the wire, fills the disk and sets the clock, by a seeded schedule, while one
network is tuned on two emulated devices at a tracker (fault_campaign.py). Exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

import fault_campaign
import program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--trials", type=int, help="trials of the run (three for every fault, and twenty)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where it fails, copy records and logs there")
    options = parser.parse_args()
    trials = options.trials or 3 * options.faults + 20
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and tidy up
    started = time.monotonic()
    with fault_campaign.scratch() as folder:
        calm, rough = fault_campaign.campaign(
            folder, trials, options.seed, options.faults, lambda line: print(line, flush=True), options.keep
        )
    for kind, count in sorted(rough.faults.items()):
        print(f"{count:5} {kind}")
    print(f"{sum(rough.faults.values())} faults in {rough.seconds:.0f} s, undisturbed it takes {calm.seconds:.0f} s")
    print(f"the tuner was started again after {rough.tuner_endings or 'nothing'}")
    print(f"the tuner's largest size: {rough.tuner_mb:.0f} MB, undisturbed {calm.tuner_mb:.0f} MB")
    print(f"same records, nothing left behind, {time.monotonic() - started:.0f} s")
    if sum(rough.faults.values()) < options.faults:
        raise RuntimeError(f"the run ended before {options.faults} faults: give it more --trials")
    return 0


if __name__ == "__main__":
    program.run(main)
