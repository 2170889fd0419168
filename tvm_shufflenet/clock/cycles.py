"""The cost model: from counts of an emulated core to modelled cycles and nanoseconds on a named Cortex-A.

    time   = sum over loops of  max(core, transfers) + OVERLAP_LOST * min(core, transfers) + stalls
    core      = cycles of the executed code with every load a hit (pipeline.py)
    transfers = lines into and out of L1  * cycles of an L2 line
              + lines into and out of L2  * nanoseconds of a DRAM line * clock
    stalls    = load misses to wait for   * latency of where they hit

A loop is a set of blocks that run equally often, one after the other. Within it, the prefetchers and the store buffer
move lines while the core computes, so the longer of the two sets the pace; a tenth of the shorter is lost at the
loop's ends and where both want the same cache port. A load that no stream of misses announced stops the core, or an
out-of-order core's reorder buffer, which two or three instructions a cycle fill long before memory answers; so its
latency is exposed, once for all such loads that are under way at the same time. Nothing is known across loops: each
starts when the one before has ended.

Of several cores each has its own L1, and they share L2 and memory; a parallel region ends with its slowest share, and
costs LAUNCH_US beside.

Two constants are fitted to published latencies of boards (benchmarks/calibrate.py): the scale of llvm-mca's cycles and
the time of a DRAM line. The others are from documents, see hardware/cores.py and hardware/boards.py.
Same counts, same nanoseconds: nothing here depends on time, order or what was priced before.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import DeviceFailed
from ..hardware.boards import Board
from ..hardware.cores import Core
from ..support import toolchain
from ..support.block_cache import BlockCache
from .counts import BEYOND_L2, MISS_KINDS, Block, Code, Counts, Share
from .instructions import accesses_memory, loads, multiply_add_lanes
from .pipeline import Pipeline
from .sampling import Step, steps_of

OVERLAP_LOST = 0.1
SAME_LOOP = 0.5  # two blocks run equally often if one follows the other in this share of their runs
# What it takes to wake the other cores and to wait for them, spinning as TVM's threads do: a guess.
LAUNCH_US = 5.0
SATURATED = 0.6  # a unit that is busy for this share of a loop's core cycles is what bounds it


class Traffic(msgspec.Struct, frozen=True):
    """Cache lines that moved, and how many loads had to wait for L2 and for memory."""

    l1_misses: int = 0
    l2_misses: int = 0
    l1_writebacks: int = 0
    l2_writebacks: int = 0
    l2_stalls: int = 0
    dram_stalls: int = 0

    @property
    def l2_lines(self) -> int:
        """Between L1 and L2; a line that comes from memory goes through, at the slower pace."""
        return self.l1_misses - self.l2_misses + self.l1_writebacks

    @property
    def dram_lines(self) -> int:
        return self.l2_misses + self.l2_writebacks

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.l1_misses + other.l1_misses,
            self.l2_misses + other.l2_misses,
            self.l1_writebacks + other.l1_writebacks,
            self.l2_writebacks + other.l2_writebacks,
            self.l2_stalls + other.l2_stalls,
            self.dram_stalls + other.dram_stalls,
        )


def traffic_of(block: Block) -> Traffic:
    return Traffic(
        sum(block.misses),
        sum(itertools.compress(block.misses, _BEYOND_L2)),
        block.l1_writebacks,
        block.l2_writebacks,
        block.misses[0],  # loads that nothing hides
        block.misses[BEYOND_L2],
    )


_BEYOND_L2 = [kind & BEYOND_L2 for kind in range(MISS_KINDS)]


@dataclass(frozen=True)
class Loop:
    """Blocks that run together, all their runs taken together: what they did, before any of it is given a time.

    ``simulated_cycles`` are llvm-mca's, ``unit_cycles`` the least that each unit of the core needs.
    """

    blocks: tuple[Code, ...]
    simulated_cycles: float
    unit_cycles: dict[str, float]
    traffic: Traffic

    def time(self, board: Board) -> LoopTime:
        moved = self.traffic
        core = board.core
        dram_line, dram_latency = board.dram_line_ns * board.clock_ghz, board.dram_latency_ns * board.clock_ghz
        return LoopTime(
            self,
            # No unit is ever faster than its peak, whatever the scale.
            max(core.compute_scale * self.simulated_cycles, *self.unit_cycles.values()),
            moved.l2_lines * core.l2_latency,
            moved.dram_lines * dram_line,
            moved.l2_stalls * core.l2_latency,
            moved.dram_stalls * dram_latency,
        )


@dataclass(frozen=True)
class LoopTime:
    """What a loop's time is made of, in cycles of the core."""

    loop: Loop
    core_cycles: float
    l2_cycles: float
    dram_cycles: float
    l2_stall_cycles: float
    dram_stall_cycles: float

    @property
    def cycles(self) -> float:
        return self.cycles_of(self)

    def cycles_of(self, part: LoopTime) -> float:
        """How much of the loop's cycles a ``part`` of its work is to blame for; all parts of it add up to them."""
        transfers = part.l2_cycles + part.dram_cycles
        if self.core_cycles > self.l2_cycles + self.dram_cycles:
            hidden, shown = transfers, part.core_cycles
        else:
            hidden, shown = part.core_cycles, transfers
        return shown + OVERLAP_LOST * hidden + part.l2_stall_cycles + part.dram_stall_cycles

    @property
    def bound(self) -> str:
        """What sets the pace: ``DRAM``, ``L2``, a unit of the core that is busy most of the time, or ``latency``."""
        l2, dram = self.l2_cycles + self.l2_stall_cycles, self.dram_cycles + self.dram_stall_cycles
        if l2 + dram > self.core_cycles:
            return "DRAM" if dram > l2 else "L2"
        unit, needed = max(self.loop.unit_cycles.items(), key=lambda item: item[1])
        return unit if needed >= SATURATED * self.core_cycles else "latency"


class Cost(msgspec.Struct, frozen=True):
    """A modelled time. ``memory_cycles`` are those that memory adds to the core's; ``unmodelled_instructions`` were
    unknown to llvm-mca and are taken at one of its cycles each, which makes ``unmodelled_cycles`` of the core's.
    ``bound_cycles`` are the total by what set the pace."""

    core_cycles: float
    memory_cycles: float
    total_cycles: float
    nanoseconds: int
    instructions: int
    unmodelled_instructions: int
    l1_misses: int
    l2_misses: int
    l1_writebacks: int = 0
    l2_writebacks: int = 0
    multiply_adds: int = 0
    unmodelled_cycles: float = 0.0
    bound_cycles: dict[str, float] = {}

    @property
    def unmodelled_share(self) -> float:
        """How much of the core's cycles are such guesses."""
        return self.unmodelled_cycles / self.core_cycles if self.core_cycles else 0.0


@dataclass(frozen=True)
class Span:
    """Code between two points in time, in cycles. ``bound_cycles`` are ``cycles`` by what set the pace."""

    cycles: float
    core_cycles: float
    dram_cycles: float
    unmodelled_cycles: float
    bound_cycles: Counter


@dataclass(frozen=True)
class Region:
    """A parallel region, all its launches together: its time is that of the ``slowest`` share, and what the shares wait
    for the common memory and for each other beside that."""

    slowest: Share
    time: Span
    waiting_cycles: float
    launch_cycles: float

    @property
    def address(self) -> int:
        return self.slowest.region


class CycleModel:
    """Prices counts for one board; threads may share it."""

    def __init__(self, board: Board, cache_file: Path | None = None):
        self.board = board
        self.pipeline = Pipeline(board.core, BlockCache(cache_file or toolchain.cache_dir() / "timelines.sqlite3"))

    def price(self, counts: Counts) -> Cost:
        """Raises DeviceFailed for counts of more than one thread, and where llvm-mca fails."""
        if counts.threads > 1:
            raise DeviceFailed(
                f"the timed code ran on {counts.threads} threads",
                "it starts threads of its own, which are not modelled: only TVM's parallel regions are",
                "let it use one thread",
            )
        if not counts.blocks:
            raise DeviceFailed("nothing was executed between the timer's start and stop")
        alone = self._span(counts)
        regions = [region.time for region in self.regions(counts)]
        everything = [counts, *(share.counts for share in counts.shares)]
        moved = sum((traffic_of(block) for each in everything for block in each.blocks), Traffic())
        total = alone.cycles + sum(region.cycles for region in regions)
        core_cycles = alone.core_cycles + sum(region.core_cycles for region in regions)
        return Cost(
            core_cycles,
            total - core_cycles,
            total,
            round(total / self.board.clock_ghz),
            sum(each.instructions for each in everything),
            sum(self.pipeline.unmodelled(each) for each in everything),
            moved.l1_misses,
            moved.l2_misses,
            moved.l1_writebacks,
            moved.l2_writebacks,
            sum(multiply_adds_of(block) for each in everything for block in each.blocks),
            alone.unmodelled_cycles + sum(region.unmodelled_cycles for region in regions),
            dict(sum((section.bound_cycles for section in [alone, *regions]), Counter())),
        )

    def _span(self, counts: Counts) -> Span:
        """Code that one core runs, from start to end."""
        times = [loop.time(self.board) for loop in self.loops(counts)]
        bound_cycles: Counter = Counter()
        for time in times:
            bound_cycles[time.bound] += time.cycles
        return Span(
            math.fsum(time.cycles for time in times),
            math.fsum(time.core_cycles for time in times),
            math.fsum(time.dram_cycles for time in times),
            self.board.core.compute_scale * self.pipeline.unmodelled(counts),
            bound_cycles,
        )

    def regions(self, counts: Counts) -> list[Region]:
        """The parallel regions of what was counted. Raises DeviceFailed where llvm-mca fails."""
        return [self._region(shares) for shares in _by_region(counts.shares)]

    def _region(self, shares: list[Share]) -> Region:
        """One core's stream of lines keeps the memory of these boards busy, so the lines of all cores go one after the
        other: a region takes no less than that.
        """
        sections = [self._span(share.counts) for share in shares]
        slowest, share = max(zip(sections, shares, strict=True), key=lambda pair: pair[0].cycles)
        dram_cycles = math.fsum(section.dram_cycles for section in sections)
        waiting_cycles = max(0.0, dram_cycles - slowest.cycles)
        launch_cycles = shares[0].launches * LAUNCH_US * 1e3 * self.board.clock_ghz
        time = Span(
            slowest.cycles + waiting_cycles + launch_cycles,
            slowest.core_cycles,
            dram_cycles,
            slowest.unmodelled_cycles,
            slowest.bound_cycles + Counter({"DRAM": waiting_cycles, "launch": launch_cycles}),
        )
        return Region(share, time, waiting_cycles, launch_cycles)

    def loops(self, counts: Counts) -> list[Loop]:
        """The loops of what was counted. Raises DeviceFailed where llvm-mca fails."""
        steps, histories = steps_of(counts)
        cycles = self.pipeline.cycles(steps, histories)
        runs, traffic = Counter(), defaultdict(Traffic)
        for block in counts.blocks:
            runs[block.code] += block.count
            traffic[block.code] += traffic_of(block)
        return [
            Loop(
                tuple(codes),
                math.fsum(cycles[code] for code in codes),
                unit_cycles(self.board.core, codes, runs),
                sum((traffic[code] for code in codes), Traffic()),
            )
            for codes in _loops_of(steps, runs)
        ]


def _by_region(shares: Iterable[Share]) -> list[list[Share]]:
    regions: dict[int, list[Share]] = defaultdict(list)
    for share in shares:
        regions[share.region].append(share)
    return list(regions.values())


def multiply_adds_of(block: Block) -> int:
    """Multiply-adds of single numbers, one for each lane."""
    return block.count * sum(map(multiply_add_lanes, block.code))


def unit_cycles(core: Core, codes: list[Code], runs: Counter) -> dict[str, float]:
    """The fewest cycles in which multiply-add units, load and store ports and the front end can do this work."""
    instructions = sum(runs[code] * len(code) for code in codes)
    multiply_adds = sum(runs[code] * sum(map(bool, map(multiply_add_lanes, code))) for code in codes)
    memory = sum(runs[code] * sum(map(accesses_memory, code)) for code in codes)
    loading = sum(runs[code] * sum(map(loads, code)) for code in codes)
    ports = core.load_ports + core.store_ports if core.separate_ports else max(core.load_ports, core.store_ports)
    return {
        "compute": multiply_adds / core.vector_multiply_adds,
        "L1": max(loading / core.load_ports, (memory - loading) / core.store_ports, memory / ports),
        "front end": instructions / core.dispatch_width,
    }


def _loops_of(steps: dict[Step, float], runs: Counter) -> list[list[Code]]:
    """Blocks grouped by what follows what equally often, in the order of their first run."""
    parent: dict[Code, Code] = {code: code for code in runs}

    def root(code: Code) -> Code:
        while parent[code] != code:
            parent[code] = parent[parent[code]]
            code = parent[code]
        return code

    for (before, after), count in steps.items():
        if before in runs and count >= SAME_LOOP * max(runs[before], runs[after]):
            parent[root(before)] = root(after)
    groups: dict[Code, list[Code]] = defaultdict(list)
    for code in runs:
        groups[root(code)].append(code)
    return list(groups.values())
