"""Attributes the modelled cycles of a run to operators, by the addresses of the executed code.

The cycle model merges identical code, wherever it is, into one loop; here a loop's time is dealt out again to the
blocks at each address, by how often they ran and which lines they moved. What is dealt out adds up to the whole.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..clock.counts import Block, Code, Counts
from ..clock.cycles import CycleModel, Loop, LoopTime, Traffic, traffic_of, unit_cycles
from ..clock.sampling import steps_of
from ..errors import DeviceFailed
from ..hardware.boards import Board
from ..library.symbols import LibraryCode

PAGE = 4096  # libraries are loaded at multiples of it
TELLING = 4  # instructions that make a block worth looking for: shorter ones are found in too many places


@dataclass(frozen=True)
class Portion:
    """What one owner has of one loop: its blocks with their cycles, and ``time``, what these are made of."""

    owner: str | None
    blocks: tuple[tuple[Block, float], ...]
    time: LoopTime

    @property
    def cycles(self) -> float:
        return math.fsum(cycles for _, cycles in self.blocks)

    @property
    def traffic(self) -> Traffic:
        return self.time.loop.traffic


@dataclass(frozen=True)
class Attributed:
    """The cycles of a run: ``portions`` of what core 0 ran by itself and of the slowest share of each parallel region,
    by owner and loop; what the shares of an owner's regions ``waited`` beside that, for the common memory and for each
    other; and the ``traffic`` of all cores."""

    portions: tuple[Portion, ...]
    waited: dict[str | None, Counter]
    traffic: dict[str | None, Traffic]

    @classmethod
    def of(cls, model: CycleModel, counts: Counts, owner: Callable[[int], str | None]) -> Attributed:
        """Everything that was executed, by ``owner`` of an address: a region's is that of its code."""
        portions, waited = attribute(model, counts, owner), defaultdict(Counter)
        for region in model.regions(counts):
            portions += attribute(model, region.slowest.counts, owner)
            waited[owner(region.address)] += Counter({"DRAM": region.waiting_cycles, "launch": region.launch_cycles})
        traffic: dict[str | None, Traffic] = defaultdict(Traffic)
        for block in everything(counts):
            traffic[owner(block.address)] += traffic_of(block)
        return cls(tuple(portions), dict(waited), dict(traffic))


def everything(counts: Counts) -> list[Block]:
    """What all cores executed."""
    return [block for each in (counts, *(share.counts for share in counts.shares)) for block in each.blocks]


def attribute(model: CycleModel, counts: Counts, owner: Callable[[int], str | None]) -> list[Portion]:
    """The cycles of everything that one core executed by itself, by ``owner`` of an address and by loop."""
    cycles, at = model.pipeline.cycles(*steps_of(counts)), defaultdict(list)
    for block in counts.blocks:
        at[block.code].append(block)
    shares = []
    for loop in model.loops(counts):
        blocks = [block for code in loop.blocks for block in at[code]]
        core_cycles = _dealt_out(loop.time(model.board).core_cycles, blocks, cycles)
        owners: dict[str | None, list[int]] = defaultdict(list)
        for index, block in enumerate(blocks):
            owners[owner(block.address)].append(index)
        for name, own in owners.items():
            shares.append(_share(model.board, loop, name, [(blocks[index], core_cycles[index]) for index in own]))
    return shares


def _dealt_out(total: float, blocks: Sequence[Block], cycles: dict[Code, float]) -> list[float]:
    """A loop's core cycles by block: by those of its code, and for the same code by how often it ran."""
    runs = Counter()
    for block in blocks:
        runs[block.code] += block.count
    parts = [cycles[block.code] * block.count / runs[block.code] for block in blocks]
    if not sum(parts):  # code that llvm-mca takes no time for
        parts = [float(block.count * len(block.code)) for block in blocks]
    whole = math.fsum(parts)
    return [total * part / whole for part in parts]


def _share(board: Board, loop: Loop, owner: str | None, blocks: list[tuple[Block, float]]) -> Portion:
    whole, runs = loop.time(board), Counter()
    for block, _ in blocks:
        runs[block.code] += block.count
    units = unit_cycles(board.core, list(runs), runs)
    parts = [(block, _part(board, (block.code,), traffic_of(block), units, cycles)) for block, cycles in blocks]
    traffic = sum((traffic_of(block) for block, _ in blocks), Traffic())
    own = _part(board, tuple(runs), traffic, units, math.fsum(cycles for _, cycles in blocks))
    return Portion(owner, tuple((block, whole.cycles_of(part)) for block, part in parts), own)


def _part(board: Board, codes: tuple[Code, ...], traffic: Traffic, units: dict[str, float], cycles: float) -> LoopTime:
    """A part of a loop whose core cycles are known."""
    return replace(Loop(codes, cycles / board.core.compute_scale, units, traffic).time(board), core_cycles=cycles)


def load_address(code: LibraryCode, counts: Counts) -> int:
    """Where the library was loaded: there, what was executed is what stands in it. Raises DeviceFailed."""
    votes: Counter[int] = Counter()
    for block in everything(counts):
        if len(block.code) >= TELLING:
            votes.update(_places(code, block))
    if not votes:
        raise DeviceFailed("nothing of the library was executed between the timer's start and stop")
    return votes.most_common(1)[0][0]


def _places(code: LibraryCode, block: Block) -> list[int]:
    """Where the library would have to be loaded for this block to be part of it."""
    words, places, index = b"".join(word.to_bytes(4, "little") for word in block.code), [], -1
    while (index := code.content.find(words, index + 1)) >= 0:
        base = block.address - code.address - index
        if base >= 0 and base % PAGE == 0:
            places.append(base)
    return places
