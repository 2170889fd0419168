"""Wrong code that was kept, once more."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import DeployError, WrongResult
from .command import Command
from .options import device_options
from .output import console_of


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what the message named")
    device_options(parser, threads=False)


def run(options) -> None:
    from ..devices.checking import checking_device
    from ..verification.reproducer import read_finding, target_of
    from ..workflow.replay import replay

    finding, console = read_finding(options.folder), console_of(options)
    console.print(f"{finding.kind} {finding.name} for {finding.target}, found on {finding.device}", markup=False)
    console.print(finding.what, markup=False)
    with checking_device(target_of(finding), options.device) as device:
        if isinstance(device, DeployError):
            raise device
        if finding.kind == "network":
            text = f"its library is machine code by whoever made {options.folder}; a session of {device.name} runs it"
            console.print(text, markup=False)
        wrong = replay(options.folder, device)
    if wrong is not None:
        raise WrongResult(f"{finding.name} is wrong on {device.name}: {wrong}", "", "report the folder")
    console.print(f"{finding.name} computes on {device.name} what it should", markup=False)


COMMAND = Command("replay", "run wrong code again that tune or compile kept a reproducer of", add_options, run)
