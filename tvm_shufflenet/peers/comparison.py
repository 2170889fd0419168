"""Compares tuned, shipped and untuned code with other engines, on this machine or on one emulated core."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..devices.base import Device
from ..devices.emulated import EmulatedDevice
from ..errors import BadInput, WrongResult
from ..hardware.targets import Target
from ..workflow.compare import Comparison, Libraries
from ..workflow.contest import OURS, OWN, SHIPPED, UNTUNED, Contest
from ..workflow.imported import Imported
from .catalogue import Peer, find_peers
from .contest import Effort, emulated_contest, first_cpus, local_contest
from .environments import Announce
from .handover import write_handover


def peers_for(names: str, device: Device, threads: int) -> list[Peer]:
    """The peers that ``--peers`` names, if they run on that device. Raises UnknownName, BadInput."""
    emulated = isinstance(device, EmulatedDevice)
    if device.name != "local" and not emulated:
        what = f"other engines cannot be run on {device.name}"
        raise BadInput(what, "they are known to this machine only", "use --device local or emulated:CORE")
    if emulated and threads > 1:
        what = f"other engines run on one emulated core, not on {threads}"
        raise BadInput(what, "their threads cannot be counted apart", "use --threads 1, or leave --peers out")
    if device.name == "local":
        first_cpus(threads)
    return find_peers(names, emulated)


def compare_with_peers(
    imported: Imported,
    libraries: Libraries,
    target: Target,
    device: Device,
    threads: int,
    peers: Sequence[Peer],
    effort: Effort,
    announce: Announce,
) -> Comparison:
    """As ``workflow.compare_libraries``, with the peers taking turns with our libraries. Each library runs on a device
    of its own; ``device`` says which. Raises what kept our own libraries from a latency."""
    own = {OURS: libraries.tuned.library, SHIPPED: libraries.shipped, UNTUNED: libraries.untuned}
    own = {name: library for name, library in own.items() if library is not None}
    name = imported.model.name
    with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-peers-") as folder:
        handover = write_handover(imported, Path(folder))
        if device.cost_model is not None:
            contest = emulated_contest(name, handover, own, peers, device.cost_model.board.name, target, announce)
        else:
            contest = local_contest(name, handover, own, peers, threads, effort, announce)
    return replace(comparison_of(libraries, contest), blind=imported.answers.blind)


def comparison_of(libraries: Libraries, contest: Contest) -> Comparison:
    """Raises what kept one of our libraries from a latency, a wrong result first."""
    ours = [entry for entry in contest.entries if entry.name in OWN]
    for entry in sorted(ours, key=lambda entry: not isinstance(entry.failure, WrongResult)):
        if entry.failure is not None:
            raise entry.failure
    times = {entry.name: entry.latency for entry in ours}
    error = max(entry.max_abs_err for entry in ours)
    return Comparison(
        libraries.tuned.manifest, contest.device, contest.threads, times[UNTUNED], times[OURS], error, contest,
        times.get(SHIPPED, times[OURS]),
    )  # fmt: skip
