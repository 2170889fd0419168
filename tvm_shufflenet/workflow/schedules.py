"""Selects the records that a network is scheduled with, and their location."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ..errors import BadInput
from ..graph.pipeline import Fused
from ..graph.tasks import OperatorTask
from ..hardware.targets import Target, find_target
from ..latency import MEASURED
from ..library.scheduling import Scheduled, schedule_tuned
from ..support.activity import doing
from ..tuning.records.choices import network_hash
from ..tuning.records.store import RecordStore, workload_hash


def records_folders(target: Target, chosen: Path | None) -> tuple[Path, Path]:
    """The folder that records are written to, and a second one that is only read: the shipped records.

    The first is ``chosen`` (--records), else ``tuning_logs/<target>`` of the current folder where there is a
    ``tuning_logs``, else a folder of the user's; the second those shipped for the target or for the one whose records
    serve it (Target.shipped).
    """
    shipped = Path(str(resources.files("tvm_shufflenet.tuning_logs"))) / (target.shipped or target.name)
    if chosen is not None:
        return chosen, shipped
    if Path("tuning_logs").is_dir():
        return Path("tuning_logs") / target.name, shipped
    from platformdirs import user_data_path

    return user_data_path("tvm-shufflenet") / "tuning_logs" / target.name, shipped


def open_records(target: Target, chosen: Path | None, must_exist: bool = False) -> RecordStore:
    """The record store for a target. Raises RecordMismatch, BadInput where ``--records`` names nothing."""
    folder, shipped = records_folders(target, chosen)
    if must_exist and chosen is not None and not chosen.is_dir():
        raise BadInput(f"there is no folder {chosen}", "", "tvm-shufflenet tune ... --records " + str(chosen))
    lender = find_target(target.shipped).tvm() if target.shipped else None
    store = RecordStore(folder, target.tvm(), shipped, lender)
    if chosen is not None:
        store.refuse_useless()
    return store


def meet(store: RecordStore, tasks: Sequence[OperatorTask]) -> str:
    """Make the shipped records of a network's operators usable; returns the hash that its choices go by."""
    store.meet(task.mod for task in tasks)
    return network_hash((workload_hash(task.mod), task.occurrences) for task in tasks)


def best_records(fused: Fused, store: RecordStore, *clocks: str, threads: int = 1, own: bool = True):
    """The records that a library of the network is built with, see ``RecordStore.database``, and those that guide where
    there is none."""
    network = meet(store, fused.tasks)
    own = own and store.uses_own(network, *clocks, threads=threads)
    return store.database(*clocks, threads=threads, network=network, own=own), store.neighbours(threads, own)


@doing("scheduling operators")
def schedule_network(fused: Fused, store: RecordStore, *clocks: str, threads: int = 1, own: bool = True) -> Scheduled:
    """The network with its operators scheduled by the records of ``store``, and by what stands in for them; without
    ``own``, by what is shipped alone."""
    database, neighbours = best_records(fused, store, *clocks, threads=threads, own=own)
    return schedule_tuned(fused, database, threads, neighbours)


def default_clock(target: Target) -> str:
    """The clock of the device that a target is tuned on when none is named."""
    return f"emulated:{target.board}" if target.board else MEASURED
