"""Chooses a device on which a new library can be verified: one that executes it, with or without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..errors import DeployError, ToolMissing
from ..hardware.boards import USUAL, find_board
from ..hardware.targets import Target, host_machine
from . import find_device
from .bare import BareEmulator
from .base import Device
from .local import LocalDevice


@contextmanager
def checking_device(target: Target, spec: str | None = None, threads: int = 1) -> Iterator[Device | DeployError]:
    """The device that ``spec`` names, started; without one, whatever here executes the target's code, or why nothing
    does. Raises what starting a named device raises.
    """
    with ExitStack() as stack:
        if spec is not None:
            yield stack.enter_context(_named(spec, target, threads))
            return
        reason: DeployError = ToolMissing(
            f"nothing here executes {target.machine} code", "", "run tvm-shufflenet bench PACKAGE where something does"
        )
        for device in _candidates(target, threads):
            device.target = target
            try:
                found = stack.enter_context(device)
            except DeployError as exc:
                reason = exc
                continue
            break
        else:
            found = reason
        yield found


def _named(spec: str, target: Target, threads: int) -> Device:
    device = find_device(spec, target, threads)
    if not spec.startswith("emulated"):
        return device
    bare = BareEmulator(device.cost_model.board, threads)
    bare.target = target
    return bare


def _candidates(target: Target, threads: int) -> Iterator[Device]:
    """This machine first: it may lack what the target's CPU has."""
    if target.machine == host_machine():
        yield LocalDevice(threads)
    if target.is_arm:
        yield BareEmulator(find_board(target.board or USUAL), threads)
