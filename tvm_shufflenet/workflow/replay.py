"""Runs a reproducer again, for the command ``replay``."""

from __future__ import annotations

import math
from pathlib import Path

from ..devices.base import Device
from ..devices.network import Network, second_run
from ..devices.operands import SUMS
from ..errors import BadInput, DeviceFailed
from ..graph.serialized import NotOperators, check_module
from ..library.link import trial_command
from ..support.files import open_file, read_file
from ..tuning.measuring.trial import Cause, Job, run_trial
from ..verification.operators import Reference
from ..verification.reproducer import Digests, Reproducer, read_network, read_reproducer, target_of

REPLAY_SECONDS = 120.0


def replay(folder: Path, device: Device) -> str | None:
    """Do again what a reproducer was kept of, on a started device: what is wrong, None where nothing is any more.

    Raises BadInput, DeviceFailed.
    """
    folder, reproducer = Path(folder), read_reproducer(folder)
    try:
        return (_replay_operator if reproducer.kind == "operator" else _replay_network)(folder, reproducer, device)
    except (OSError, ValueError, MemoryError) as exc:
        raise BadInput(f"{folder} is not whole", str(exc), "copy it again") from exc


def _replay_operator(folder: Path, reproducer: Reproducer, device: Device) -> str | None:
    job = Job(
        _operator(folder / "scheduled.json"), reproducer.target_config, tuple(trial_command(target_of(reproducer))),
        reproducer.machine, device.endpoint(), 1, 1, 0, REPLAY_SECONDS, _expected(reproducer),
    )  # fmt: skip
    outcome = run_trial(job)
    if outcome.cause not in (None, Cause.WRONG):
        raise DeviceFailed(f"{reproducer.name} cannot be run again: {outcome.error}")
    return outcome.error or None


def _operator(path: Path) -> str:
    """The JSON of a scheduled operator. Raises BadInput where it is more than that."""
    text = read_file(path).decode()
    try:
        check_module(text)
    except NotOperators as exc:
        raise BadInput(f"{path} is no operator of ours: {exc}", "it was edited, or made by another", "") from exc
    return text


def _expected(reproducer: Reproducer) -> Reference:
    """What the unscheduled operator computed when it was kept; it is not run again, where it would run here.

    Raises BadInput.
    """
    parts = (reproducer.expected, reproducer.allowed, reproducer.again)
    whole = all(len(each) == SUMS for part in parts for each in part)
    if not reproducer.expected or len({len(part) for part in parts}) > 1 or not whole:
        raise BadInput(
            f"{reproducer.name}'s reproducer does not say what was expected", "it was edited", "copy it again"
        )

    def numbers(digests: Digests) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(math.nan if each is None else each for each in sums) for sums in digests)

    return Reference(*map(numbers, parts))


def _replay_network(folder: Path, reproducer: Reproducer, device: Device) -> str | None:
    kept = read_network(folder, reproducer)
    open_file(folder / "library.so").close()  # a FIFO in its place would be waited for
    with Network(device, folder / "library.so", kept.signature) as network:
        found = kept.answer.difference(network.run(kept.inputs))
        fault, _ = second_run(network, kept.inputs)
    return fault if found.right else f"off by {found.error:.3g}, {found.tolerance:.3g} is allowed"
