"""Builds and times a network with alternative records for its operators, and stores the choice with the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tvm_ffi

from ..clock.counts import Counts
from ..devices.base import Device
from ..devices.network import Network, timed, undisturbed
from ..graph.pipeline import Fused
from ..hardware.boards import Board
from ..hardware.targets import Target
from ..latency import Latency
from ..library.build import build
from ..library.scheduling import Scheduled, schedule_tuned
from ..library.symbols import read_code
from ..profiling.counted import Counted
from ..tuning.records.choices import Choice
from ..tuning.records.journal import Setting
from ..tuning.records.store import RecordStore, workload_hash
from ..tuning.search import decision
from ..tuning.search.decision import Decision
from ..verification.networks import check
from .compare import NETWORK_REPEATS, ROUNDS
from .compile import operator_entry
from .imported import Imported
from .schedules import meet, schedule_network


def decide_schedules(
    imported: Imported,
    target: Target,
    device: Device,
    store: RecordStore,
    threads: int = 1,
    announce: Callable[[str], None] = lambda text: None,
) -> Decision | None:
    """Let the network's own time on a started ``device`` decide which of the records that are nearly equal it is built
    with, and keep that in the folder. None where nothing is to be decided, or was before by the same records."""
    fused = imported.fused(target)
    network, setting = meet(store, fused.tasks), Setting(device.clock, threads)
    workloads = {workload_hash(task.mod): task for task in fused.tasks}
    ranked = {key: trials for key, trials in store.fastest(setting).items() if key in workloads}
    if not ranked or store.is_decided(network, setting, workloads):
        return None
    shipped = store.shipped_traces(device.clock, threads)
    timed = {key: [(each.trace, each.seconds) for each in trials if each.seconds] for key, trials in ranked.items()}
    candidates = {key: decision.near(trials, shipped.get(key)) for key, trials in timed.items()}
    weights = {key: workloads[key].occurrences * trials[0][1] for key, trials in timed.items()}
    with TemporaryDirectory(prefix="tvm-shufflenet-") as name:
        networks = _Networks(imported, fused, device, store, setting, Path(name), announce)
        found = decision.decide(candidates, shipped, networks.timed, weights)
    fastest = {key: trials[0].trace for key, trials in ranked.items()}
    chosen = dict(found.chosen or {})
    store.choose(Choice(network, *setting, chosen, fastest, found.chosen is None, found.chosen_us, found.shipped_us))
    return found


class _Networks:
    """Builds a network with one record or another for each operator, checks it and times it."""

    def __init__(self, imported: Imported, fused: Fused, device: Device, store: RecordStore, setting, folder, say):
        self.imported, self.fused, self.device, self.store = imported, fused, device, store
        self.setting, self.folder, self.say = setting, folder, say
        self._known: dict[int, decision.Timed] = {}
        self._shipped: Path | None = None
        self._shipped_us = 0.0

    def timed(self, chosen: Mapping[str, str] | None) -> decision.Timed:
        """By the records ``chosen``, or by what is shipped alone. Raises WrongResult, DeviceFailed."""
        scheduled = self._scheduled(chosen)
        key = tvm_ffi.structural_hash(scheduled.module, skip_tensor_content=True)
        if key not in self._known:
            number = len(self._known)
            self.say(f"timing the whole network, {'as shipped' if chosen is None else f'choice {number}'}")
            self._known[key] = self._timed(scheduled, self.folder / str(number))
        return self._known[key]

    def _scheduled(self, chosen: Mapping[str, str] | None) -> Scheduled:
        clock, threads = self.setting
        if chosen is None:
            return schedule_network(self.fused, self.store, clock, threads=threads, own=False)
        database = self.store.assigned(chosen, self.setting)
        return schedule_tuned(self.fused, database, threads, self.store.neighbours(threads))

    def _timed(self, scheduled: Scheduled, folder: Path) -> decision.Timed:
        folder.mkdir()
        library = build(scheduled, folder / f"{self.imported.model.name}.so")
        with Network(self.device, library, self.imported.signature) as network:
            check(network, self.imported.answers, "tuned")
        model = self.device.cost_model
        if model is None:
            return decision.Timed(self._beside_shipped(library))
        with undisturbed(self.device, library, self.imported.signature, self.imported.inputs) as network:
            latency, counts = network.latency(1), network.counts()
        return decision.Timed(latency.median_us, self._operators_us(model.board, scheduled, library, counts))

    def _beside_shipped(self, library: Path) -> float:
        """Microseconds, as if the device still kept the pace at which it ran what is shipped the first time."""
        if self._shipped is None:
            self._shipped, self._shipped_us = library, self._latency(library).median_us
            return self._shipped_us
        times: dict[Path, list[float]] = {each: [] for each in (self._shipped, library)}
        for each in list(times) * ROUNDS:
            times[each] += self._latency(each).samples_us
        return self._shipped_us * median(times[library]) / median(times[self._shipped])

    def _latency(self, library: Path) -> Latency:
        repeats = NETWORK_REPEATS // ROUNDS
        return timed(self.device, library, self.imported.signature, self.imported.inputs, repeats)

    def _operators_us(self, board: Board, scheduled: Scheduled, library: Path, counts: Counts) -> dict[str, float]:
        """What each workload took in an inference."""
        entries = [operator_entry(operator) for operator in scheduled.operators]
        code = read_code(library, [entry.name for entry in entries])
        counted = Counted.of(board, entries, code, counts)
        hashes = {name: workload_hash(mod) for name, mod in scheduled.workloads.items()}
        return {hashes[cost.entry.name]: cost.time_us for cost in counted.operators() if cost.entry.name in hashes}
