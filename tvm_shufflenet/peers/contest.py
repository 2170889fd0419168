"""Times our libraries and the peers on one network: each is verified against PyTorch, then they take turns."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..devices import find_device
from ..devices.facts import DeviceFacts
from ..errors import BadInput, DeployError, PeerFailed, WrongResult
from ..hardware.targets import Target
from ..latency import MEASURED, Latency
from ..library.build import build
from ..support.toolchain import TVM_VERSION
from ..text import counted
from ..tuning.records.store import RecordStore
from ..workflow.contest import OURS, Contest, Contestant
from ..workflow.contest import OWN as OWN_LIBRARIES
from ..workflow.imported import Imported
from ..workflow.schedules import schedule_network
from .catalogue import RUNNERS, Peer
from .environments import OWN, Announce, clean_environment
from .handover import Handover
from .process import Runner

UNTUNED_ADVICE = "compile it --untuned, and report the network"
PACKAGE_PARENT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Effort:
    """``rounds`` turns for each contestant, each of ``warmup`` untimed runs and ``samples`` samples."""

    rounds: int = 5
    samples: int = 10
    warmup: int = 5


def build_ours(
    imported: Imported, target: Target, store: RecordStore, clock: str, folder: Path, threads: int = 1
) -> Path:
    """The library that takes part, from the records of ``store``, for ``threads``. Raises DeployError."""
    library = folder / f"ours-{target.name}-{threads}.so"
    if not library.exists():
        build(schedule_network(imported.fused(target), store, clock, threads=threads), library)
    return library


def local_contest(
    model: str,
    handover: Handover,
    libraries: Mapping[str, Path],
    peers: Sequence[Peer],
    threads: int,
    effort: Effort,
    announce: Announce,
) -> Contest:
    """On this machine, by its clock: our ``libraries``, ``ours`` among them, and the peers. Whoever fails gets an entry
    with the reason; the others go on."""
    cpus = first_cpus(threads)
    others = {peer.name: peer for peer in peers}
    with ExitStack() as stack:
        entries, runners = {}, {}
        for name in (*libraries, *others):
            peer = others.get(name)
            entries[name] = Contestant(name, peer.version if peer else f"TVM {TVM_VERSION}")
            try:
                if peer is None:
                    command = _library_command(handover, name, libraries[name])
                else:
                    command = _command(peer, handover, announce)
                announce(f"loading {model} in {name}")
                options = ["--threads", str(threads), "--cpus", ",".join(map(str, cpus))]
                own = peer is None or peer.environment == OWN
                runner = Runner(name, [*command, *options], runner_environment(threads, own))
                runners[name] = stack.enter_context(runner)
                entries[name] = checked(entries[name], runner.facts, handover)
                runner.pause()
            except DeployError as exc:
                entries[name] = replace(entries[name], failure=exc)
        contestants = {name: runners[name] for name in entries if entries[name].failure is None}
        announce(f"timing {model}, {counted(threads, 'thread')}: {', '.join(contestants)}")
        _time(contestants, entries, effort)
    return Contest(model, DeviceFacts("local", MEASURED), threads, handover.tolerance, tuple(entries.values()))


def first_cpus(count: int) -> list[int]:
    """The first ``count`` CPUs that this process may use. Raises BadInput where there are fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    if count > len(allowed):
        raise BadInput(f"--threads {count}, but only {len(allowed)} CPUs may be used here", "", "use fewer threads")
    return allowed[:count]


def runner_environment(threads: int, own: bool) -> dict[str, str]:
    """For a runner in this tool's ``own`` Python or another one. OpenMP and BLAS take their threads from here."""
    variables = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    return clean_environment() | variables | ({"PYTHONPATH": PACKAGE_PARENT} if own else {})


def checked(entry: Contestant, facts: dict, handover: Handover) -> Contestant:
    """The entry with what its runner said of itself. Raises WrongResult where its output is not PyTorch's."""
    is_ours = entry.name in OWN_LIBRARIES
    answer = handover.ours if is_ours else handover.peers
    files = zip(answer.expected, output_files(handover, entry.name), strict=True)
    found = answer.difference({name: np.load(path) for name, path in files})
    if not found.right:
        raise WrongResult(
            f"{entry.name} is off by {found.error:.3g} from PyTorch, {found.tolerance:.3g} is allowed",
            "its conversion or its kernels compute something else",
            "report the records that did it" if is_ours else "report it to its makers",
        )
    affinity, settings = tuple(facts["affinity"]), facts["settings"]
    return replace(entry, version=facts["version"], settings=settings, affinity=affinity, max_abs_err=found.error)


def output_files(handover: Handover, name: str) -> list[Path]:
    return [handover.folder / f"output{index}-{name}.npy" for index in range(len(handover.ours.expected))]


def _time(contestants: dict[str, Runner], entries: dict[str, Contestant], effort: Effort) -> None:
    """In turn, every round in another order, so that what else the machine does meets them all alike."""
    order = list(contestants)
    for number in range(effort.rounds):
        for name in order[number % len(order) :] + order[: number % len(order)] if order else ():
            if entries[name].failure is None:
                entries[name] = _one_turn(entries[name], contestants[name], effort)


def _steady(entry: Contestant, answer: dict) -> dict:
    """What a runner answered to a request for times. Raises WrongResult where our library did not do again what it did
    at first."""
    if answer.get("fault"):
        what = f"{entry.name} {answer['fault']}"
        raise WrongResult(what, "it writes into memory that is not its own", UNTUNED_ADVICE)
    return answer


def _one_turn(entry: Contestant, runner: Runner, effort: Effort) -> Contestant:
    runner.resume()
    try:
        samples = _steady(entry, runner.ask(f"time {effort.warmup} {effort.samples}"))["samples_us"]
    except (PeerFailed, WrongResult) as exc:
        return replace(entry, failure=exc, latency=None)
    finally:
        runner.pause()
    rounds = (*entry.rounds_us, tuple(samples))
    return replace(entry, rounds_us=rounds, latency=Latency(tuple(us for turn in rounds for us in turn), MEASURED))


def _command(peer: Peer, handover: Handover, announce: Announce) -> list[str]:
    python, artifact = peer.python(announce), peer.convert(handover, announce)
    return [str(python), str(peer.script), *_files(handover, peer.name, artifact)]


def _library_command(handover: Handover, name: str, library: Path, device: str = "local") -> list[str]:
    script = str(RUNNERS / "run_ours.py")
    return [sys.executable, script, *_files(handover, name, library), "--device", device]


def _files(handover: Handover, name: str, artifact: Path) -> list[str]:
    outputs = output_files(handover, name)
    for output in outputs:
        output.unlink(missing_ok=True)
    return ["--artifact", str(artifact), "--inputs", *map(str, handover.inputs), "--outputs", *map(str, outputs)]


def emulated_contest(
    model: str,
    handover: Handover,
    libraries: Mapping[str, Path],
    peers: Sequence[Peer],
    core: str,
    target: Target,
    announce: Announce,
) -> Contest:
    """On an emulated core, one thread, by its cost model: one inference each, which always comes to the same figure."""
    from .guest import count_in_guest

    entries = [_emulated_library(handover, name, library, core, announce) for name, library in libraries.items()]
    for peer in peers:
        entry = Contestant(peer.name, peer.version)
        try:
            artifact = peer.convert(handover, announce)
            announce(f"counting {model} in {peer.name} on {core}")
            facts, cost = count_in_guest(peer, artifact, handover, core, output_files(handover, peer.name), announce)
            entry = _modelled(checked(entry, facts, handover), cost)
        except DeployError as exc:
            entry = replace(entry, failure=exc, latency=None)
        entries.append(entry)
    device = find_device(f"emulated:{core}", target).facts
    return Contest(model, device, 1, handover.tolerance, tuple(entries))


def _emulated_library(handover: Handover, name: str, library: Path, core: str, announce: Announce) -> Contestant:
    entry = Contestant(name, f"TVM {TVM_VERSION}")
    announce(f"counting our own library on {core}{'' if name == OURS else f', {name}'}")
    try:
        command = _library_command(handover, name, library, f"emulated:{core}")
        with Runner(name, command, runner_environment(1, own=True)) as runner:
            entry = checked(entry, runner.facts, handover)
            return _modelled(entry, _steady(entry, runner.ask("count 1"))["cost"])
    except DeployError as exc:
        return replace(entry, failure=exc)


def _modelled(entry: Contestant, cost: dict) -> Contestant:
    # Where the runner stays is the host's affair, not the modelled core's.
    return replace(entry, cost=cost, affinity=(), latency=Latency((cost["nanoseconds"] / 1e3,), "modelled"))
