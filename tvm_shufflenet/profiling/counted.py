"""Costs of the operators of a network that ran on an emulated core, from everything that was counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..clock.counts import Block, Counts
from ..clock.cycles import CycleModel, Traffic, multiply_adds_of
from ..clock.disassembly import disassembled
from ..errors import DeviceFailed
from ..hardware.boards import Board
from ..library.symbols import LibraryCode
from ..packages.manifest import OperatorEntry
from ..support import toolchain
from .attribution import Attributed, Portion, load_address
from .result import AssemblyBlock, HotLoop, OperatorCost, Work

RUNTIME = OperatorEntry("runtime", 1, "runtime", multiply_adds=0)
LISTED = 0.01  # a block with less of its loop's cycles is not worth reading


@dataclass(frozen=True)
class Counted:
    """One inference, dealt out to the operators of the library that it ran. On several cores an operator's time is that
    of its slowest shares, its lines are those of all."""

    board: Board
    entries: tuple[OperatorEntry, ...]
    ran: Attributed
    base: int

    @classmethod
    def of(cls, board: Board, entries: Sequence[OperatorEntry], code: LibraryCode, counts: Counts) -> Counted:
        base = load_address(code, counts)
        ran = Attributed.of(CycleModel(board), counts, lambda address: code.owner(address - base))
        return cls(board, tuple(entries), ran, base)

    def operators(self) -> tuple[OperatorCost, ...]:
        """By falling cost; one that took no time at all is there too."""
        costs = (self._cost(entry, entry.name) for entry in self.entries)
        return tuple(sorted(costs, key=lambda cost: -cost.time_us))

    def runtime(self) -> OperatorCost:
        """The VM, TVM's runtime and the C library."""
        return self._cost(RUNTIME, None)

    def hottest_loop(self, operator: str) -> HotLoop:
        """The loop of ``operator`` that takes longest, on one core, as assembly. Raises DeviceFailed where it did not
        run."""
        portions = self._portions(operator)
        if not portions:
            raise DeviceFailed(f"operator {operator} did not run")
        hottest = max(portions, key=lambda portion: portion.cycles)
        blocks = assembly(hottest.blocks, self.base)
        listed = tuple(block for block in blocks if block.cycles >= LISTED * hottest.cycles)
        return HotLoop(
            operator,
            hottest.cycles,
            hottest.cycles / self._cycles(operator),
            sum(multiply_adds_of(block) for block, _ in hottest.blocks) / hottest.cycles,
            hottest.time.bound,
            listed,
            len(blocks) - len(listed),
        )

    def _portions(self, owner: str | None) -> list[Portion]:
        return [portion for portion in self.ran.portions if portion.owner == owner]

    def _cycles(self, owner: str | None) -> float:
        waited = self.ran.waited.get(owner, Counter())
        return math.fsum((*(portion.cycles for portion in self._portions(owner)), *waited.values()))

    def _cost(self, entry: OperatorEntry, owner: str | None) -> OperatorCost:
        traffic, bound = self.ran.traffic.get(owner, Traffic()), Counter(self.ran.waited.get(owner))
        cycles, line = self._cycles(owner), self.board.core.l1d.line_bytes
        for portion in self._portions(owner):
            bound[portion.time.bound] += portion.cycles
        work = Work(
            cycles,
            traffic.l1_misses,
            traffic.l2_misses,
            line * (traffic.l1_misses + traffic.l1_writebacks),
            line * traffic.dram_lines,
            {by: cycles for by, cycles in bound.items() if cycles},
        )
        return OperatorCost(entry, cycles / self.board.clock_ghz / 1e3, work)


def assembly(blocks: Sequence[tuple[Block, float]], base: int) -> list[AssemblyBlock]:
    """The code of ``blocks`` with their cycles, each instruction once, addresses counted from ``base``.

    QEMU translates a loop's first pass and its others apart, so its blocks overlap; an instruction's runs are those of
    all blocks that it is in, and a block's cycles are spread evenly over its instructions.
    """
    runs, cycles, words = Counter(), Counter(), {}
    for block, taken in blocks:
        for index, word in enumerate(block.code):
            address = block.address + 4 * index - base
            words[address] = word
            runs[address] += block.count
            cycles[address] += taken / len(block.code)
    rows: list[list[int]] = []
    for address in sorted(words):
        if rows and address == rows[-1][-1] + 4 and runs[address] == runs[address - 4]:
            rows[-1].append(address)
        else:
            rows.append([address])
    texts = disassembled(toolchain.require(toolchain.find_llvm_mc()), words.values())
    return [
        AssemblyBlock(
            row[0],
            runs[row[0]],
            math.fsum(cycles[address] for address in row),
            tuple(_text(texts[words[address]], words[address]) for address in row),
        )
        for row in rows
    ]


def _text(text: str | None, word: int) -> str:
    return " ".join(text.split()) if text else f".word 0x{word:08x}"
