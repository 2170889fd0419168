"""The search state of one operator: its space and its progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import tvm
from tvm.s_tir import meta_schedule as ms

from ...graph.tasks import argument_shapes
from ...verification.operators import Reference
from ..records.journal import Trial

BATCH = 8
# Spaces of a template hold some hundred points, and to replay and score one takes some 10 ms: a small population of
# few generations covers them.
POPULATION = {"template": 24, "generated": 128}
GENERATIONS = {"template": 2, "generated": 3}
MEASURED_RATIO = 0.2  # of a population, the best that were measured: its parents
PARENTS = {space: int(MEASURED_RATIO * size) for space, size in POPULATION.items()}
# Strategy that a trial counts for: both search the generated space of an operator without a template.
LABELS = {"template": "template", "generated": "ansor"}


@dataclass
class Task:
    """One distinct operator of the network and the state of its search."""

    name: str
    weight: int
    mod: tvm.IRModule
    flops: float
    space: str
    workload: str
    context: ms.TuneContext
    record_workload: ms.database.Workload
    seen: set[str] = field(default_factory=set)
    waiting: list[ms.MeasureCandidate] = field(default_factory=list)
    best_seconds: float = float("inf")
    trials: int = 0
    rounds: int = 0
    idle_rounds: int = 0
    guessed: bool = False
    searched: bool = False
    exhausted: bool = False
    searching: bool = False
    reference: Reference | None = None

    @property
    def arguments(self) -> list[tuple[tuple[int, ...], str]]:
        """Shape and dtype of each tensor that a call takes, the result's last."""
        return argument_shapes(self.mod)

    @property
    def cost_seconds(self) -> float:
        """What the operator costs in one inference, all its occurrences together."""
        return self.weight * self.best_seconds

    def promise(self) -> float:
        """Seconds that another round may save: large for a heavy operator, falling as rounds bring nothing."""
        return self.cost_seconds / (1 + self.rounds + 2 * self.idle_rounds)


def made_for(space: str, trials: Iterable[Trial]) -> int:
    """How many of the trials count for the strategy that searches ``space``."""
    return sum(trial.strategy == LABELS[space] for trial in trials)
