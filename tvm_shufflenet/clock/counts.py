"""What the counting plugin counted between two marks, read from its file (native/plugin.c)."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DeviceFailed

Code = tuple[int, ...]  # a block's instruction words

# A miss's place in ``Block.misses`` is the sum of what holds for it.
BEYOND_L2, HIDDEN, STORE = 1, 2, 4
MISS_KINDS = 8


@dataclass(frozen=True)
class Block:
    """A translated block: how often it ran, and what its loads and stores did in all these runs.

    ``misses`` of the first level are counted by kind; ``l1_writebacks`` and ``l2_writebacks`` are the written lines
    that they pushed out of a level. Traces know the block by its ``number``.
    """

    code: Code
    count: int
    address: int = 0
    accesses: int = 0
    misses: tuple[int, ...] = (0,) * MISS_KINDS
    l1_writebacks: int = 0
    l2_writebacks: int = 0
    number: int = 0


@dataclass(frozen=True)
class Arrival:
    """``count`` runs of a block that followed the same block; ``history`` are the blocks before one of them, oldest
    first, that one last and ``code`` not included."""

    code: Code
    count: int
    history: tuple[Code, ...]


@dataclass(frozen=True)
class Counts:
    """``blocks`` are what one core ran by itself; ``shares`` what it and others ran side by side. More than one of the
    guest's ``threads`` has no place here: the guest does the shares one after the other."""

    threads: int
    blocks: tuple[Block, ...]
    arrivals: tuple[Arrival, ...]
    shares: tuple[Share, ...] = ()

    @property
    def instructions(self) -> int:
        """Executed by core 0 alone."""
        return sum(block.count * len(block.code) for block in self.blocks)


@dataclass(frozen=True)
class Share:
    """What one core did of a parallel region, all its ``launches`` together; ``region`` is the address of its code."""

    region: int
    core: int
    launches: int
    counts: Counts


def read_counts(path: Path) -> Counts:
    """The dump that the plugin wrote. Raises DeviceFailed where it is missing, cut short or not a dump at all."""
    try:
        return _parse(path.read_text().splitlines())
    except (OSError, ValueError, KeyError, IndexError, struct.error) as exc:
        what = f"the emulated core's counts in {path.name} cannot be read: {exc}"
        raise DeviceFailed(what, "the disk is full") from exc


def read_trace(dump: Path) -> list[Code]:
    """What ran between the marks, in its order: the plugin writes this beside ``dump`` where it is asked to.

    One core's code only. Raises DeviceFailed as ``read_counts`` does.
    """
    blocks = read_counts(dump).blocks
    code = {block.number: block.code for block in blocks}
    numbers = array("I")
    try:
        numbers.frombytes(trace_file(dump).read_bytes())
        if len(numbers) != (ran := sum(block.count for block in blocks)):
            raise ValueError(f"it holds {len(numbers)} of {ran} blocks")
        return [code[number] for number in numbers]
    except (OSError, ValueError, KeyError) as exc:
        what = f"the emulated core's trace beside {dump.name} cannot be read: {exc}"
        raise DeviceFailed(what, "the disk is full") from exc


def trace_file(dump: Path) -> Path:
    return dump.with_name(f"{dump.name}.trace")


def _parse(lines: list[str]) -> Counts:
    threads, written = 0, 0
    sections: list[_Section] = []
    code: dict[str, Code] = {}
    for line in lines[:-1]:
        name, *fields = line.split()
        if name == "threads":
            threads = int(fields[0])
        elif name == "section":
            sections.append(_Section(int(fields[0], 16), int(fields[1]), int(fields[2])))
        elif name == "block":
            code[fields[0]] = sections[-1].add_block(fields)
            written += 1
        elif name == "edge":
            sections[-1].edges.append((sections[-1].blocks[-1].code, int(fields[0]), fields[1:]))
        else:
            raise ValueError(f"a line that starts with {name!r}")
    if not lines or lines[-1] != f"end {written}":
        raise ValueError("its end marker is missing")
    alone = [section for section in sections if not section.region]
    blocks = tuple(block for section in alone for block in section.blocks)
    arrivals = tuple(arrival for section in alone for arrival in section.arrivals(code))
    shares = tuple(section.share(code) for section in sections if section.region)
    return Counts(threads, blocks, arrivals, shares)


@dataclass
class _Section:
    """The part of a dump about one core in one region, or about core 0 by itself."""

    region: int
    core: int
    launches: int
    blocks: list[Block] = field(default_factory=list)
    edges: list[tuple[Code, int, list[str]]] = field(default_factory=list)

    def add_block(self, fields: list[str]) -> Code:
        number, count, address, accesses, *totals, code = fields
        totals = tuple(map(int, totals))
        if len(totals) != MISS_KINDS + 2:
            raise ValueError(f"a block with {len(totals)} totals")
        words = struct.unpack(f">{len(code) // 8}I", bytes.fromhex(code))
        self.blocks.append(
            Block(words, int(count), int(address, 16), int(accesses), totals[:-2], *totals[-2:], int(number))
        )
        return words

    def arrivals(self, code: dict[str, Code]) -> tuple[Arrival, ...]:
        return tuple(Arrival(to, count, _known_tail(history, code)) for to, count, history in self.edges)

    def share(self, code: dict[str, Code]) -> Share:
        return Share(self.region, self.core, self.launches, Counts(1, tuple(self.blocks), self.arrivals(code)))


def _known_tail(history: list[str], known: dict[str, Code]) -> tuple[Code, ...]:
    """A block that ran before the first mark only is not in the dump: what came before it is as good as unknown."""
    try:
        return tuple([known[number] for number in history])
    except KeyError:
        first = max(index + 1 for index, number in enumerate(history) if number not in known)
        return tuple([known[number] for number in history[first:]])
