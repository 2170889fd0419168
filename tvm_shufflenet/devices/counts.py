"""What the counting plugin saw between two marks, read from the file it wrote (native/plugin.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceFailed

Code = tuple[int, ...]  # a block's instruction words

# A miss's place in ``Block.misses`` is the sum of what holds for it.
BEYOND_L2, EXPECTED, STORE = 1, 2, 4
MISS_KINDS = 8


@dataclass(frozen=True)
class Block:
    """A translated block: how often it ran, and what its loads and stores did in all these runs.

    ``misses`` of the first level are counted by kind; ``l1_writebacks`` and ``l2_writebacks`` are the written lines
    that they pushed out of a level.
    """

    code: Code
    count: int
    address: int = 0
    accesses: int = 0
    misses: tuple[int, ...] = (0,) * MISS_KINDS
    l1_writebacks: int = 0
    l2_writebacks: int = 0


@dataclass(frozen=True)
class Arrival:
    """``count`` runs of a block that followed the same block; ``history`` are the blocks before one of them, oldest
    first, that one last and ``code`` not included."""

    code: Code
    count: int
    history: tuple[Code, ...]


@dataclass(frozen=True)
class Counts:
    threads: int
    blocks: tuple[Block, ...]
    arrivals: tuple[Arrival, ...]

    @property
    def instructions(self) -> int:
        return sum(block.count * len(block.code) for block in self.blocks)


def read_counts(path: Path) -> Counts:
    """The dump that the plugin wrote. Raises DeviceFailed where it is missing, cut short or not a dump at all."""
    try:
        return _parse(path.read_text().splitlines())
    except (OSError, ValueError, KeyError, IndexError, struct.error) as exc:
        what = f"the emulated core's counts in {path.name} cannot be read: {exc}"
        raise DeviceFailed(what, "the disk is full") from exc


def _parse(lines: list[str]) -> Counts:
    threads, blocks, arrivals = 0, {}, []
    for line in lines[:-1]:
        name, *fields = line.split()
        if name == "block":
            number, count, address, accesses, *totals, code = fields
            totals = tuple(map(int, totals))
            if len(totals) != MISS_KINDS + 2:
                raise ValueError(f"a block with {len(totals)} totals")
            words = struct.unpack(f">{len(code) // 8}I", bytes.fromhex(code))
            last = int(number)
            blocks[last] = Block(words, int(count), int(address, 16), int(accesses), totals[:-2], *totals[-2:])
        elif name == "edge":
            arrivals.append((last, int(fields[0]), fields[1:]))
        elif name == "threads":
            threads = int(fields[0])
        else:
            raise ValueError(f"a line that starts with {name!r}")
    if not lines or lines[-1] != f"end {len(blocks)}":
        raise ValueError("its end marker is missing")
    code = {str(number): block.code for number, block in blocks.items()}
    # A block that ran before the first mark only is not in the dump: what came before it is as good as unknown.
    histories = (tuple(code[number] for number in _known_tail(history, code)) for _, _, history in arrivals)
    found = (
        Arrival(blocks[to].code, count, history) for (to, count, _), history in zip(arrivals, histories, strict=True)
    )
    return Counts(threads, tuple(blocks.values()), tuple(found))


def _known_tail(history: list[str], known: dict[str, Code]) -> list[str]:
    first = max((index + 1 for index, number in enumerate(history) if number not in known), default=0)
    return history[first:]
