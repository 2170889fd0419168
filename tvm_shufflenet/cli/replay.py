"""The command ``replay``: run a reproducer again."""

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
    from ..verification.reproducer import read_reproducer, target_of
    from ..workflow.replay import replay

    reproducer, console = read_reproducer(options.folder), console_of(options)
    console.print(
        f"{reproducer.kind} {reproducer.name} for {reproducer.target}, found on {reproducer.device}", markup=False
    )
    console.print(reproducer.what, markup=False)
    with checking_device(target_of(reproducer), options.device) as device:
        if isinstance(device, DeployError):
            raise device
        if reproducer.kind == "network":
            text = f"its library is machine code by whoever made {options.folder}; a session of {device.name} runs it"
            console.print(text, markup=False)
        wrong = replay(options.folder, device)
    if wrong is not None:
        raise WrongResult(f"{reproducer.name} is wrong on {device.name}: {wrong}", "", "report the folder")
    console.print(f"{reproducer.name} computes on {device.name} what it should", markup=False)


COMMAND = Command("replay", "run wrong code again that tune or compile kept a reproducer of", add_options, run)
