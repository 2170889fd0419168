"""A target as the schedule templates see it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..precision import FLOAT32, Precision
from .boards import find_board
from .cores import TWO_PIPES, Costs
from .isa import Isa
from .targets import Target

# Fitted to times of pointwise operators (benchmarks/pointwise.py). On x86-64 a load costs more with fewer registers.
X86_COSTS = Costs(latency=4.0, load=0.06, step=0.0, store=1.0)
VISIBLE = 0.7  # of the latency of the second cache: other work goes on meanwhile


@dataclass(frozen=True)
class Machine:
    """What the templates need to know of a target.

    ``multiply_adds`` is how many vector multiply-adds start in a cycle, ``l1_bytes`` the size of the first cache,
    ``miss_cycles`` what an access costs that misses it and hits the second. An operator should have work for
    ``threads`` threads. Lanes and bytes are those of numbers of ``precision``.
    """

    isa: Isa
    multiply_adds: float
    l1_bytes: int
    miss_cycles: float
    costs: Costs
    threads: int = 1
    precision: Precision = FLOAT32

    @property
    def lanes(self) -> int:
        """Elements of a vector register."""
        return self.isa.lanes(self.precision.bytes)

    def computing_in(self, precision: Precision) -> Machine:
        """The machine as operators of ``precision`` see it."""
        return replace(self, precision=precision)

    @property
    def registers(self) -> int:
        return self.isa.registers


def machine_for(target: Target, threads: int = 1) -> Machine:
    """The machine that ``target`` generates code for, by the core of the board that stands for it."""
    if target.board is None:
        return unknown(target.isa, threads)
    core = find_board(target.board).core
    return Machine(core.isa, core.vector_multiply_adds, core.l1d.bytes, VISIBLE * core.l2_latency, core.costs, threads)


def unknown(isa: Isa, threads: int = 1) -> Machine:
    """A machine of which the instruction set is known and no more."""
    costs = TWO_PIPES if isa.by_element else replace(X86_COSTS, load=0.96 / isa.registers)
    return Machine(isa, 2.0, 32 * 1024, 0.1, costs, threads)
