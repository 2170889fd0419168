"""Searches schedules for a network's operators."""

from __future__ import annotations

from collections.abc import Callable

from ..devices.base import Device
from ..graph.pipeline import Fused
from ..support.activity import doing
from ..tuning.measuring.measurer import TRIAL_SECONDS
from ..tuning.records.store import RecordStore
from ..tuning.search.driver import Tuner
from ..tuning.search.progress import Progress, TuneResult


@doing("tuning")
def tune_network(
    fused: Fused,
    device: Device,
    store: RecordStore,
    *,
    strategy: str,
    trials: int,
    seed: int,
    on_progress: Callable[[Progress], None],
    threads: int = 1,
    trial_seconds: float = TRIAL_SECONDS,
) -> TuneResult:
    """Search schedules for every operator of the network, on a started device that uses as many ``threads``."""
    tuner = Tuner(
        fused.tasks,
        fused.target,
        device,
        store,
        strategy=strategy,
        trials=trials,
        seed=seed,
        threads=threads,
        trial_seconds=trial_seconds,
        on_progress=on_progress,
    )
    return tuner.run()
