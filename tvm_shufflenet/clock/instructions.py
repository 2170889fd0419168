"""What an AArch64 instruction word does, as far as the cycle model needs to know (Arm ARM DDI0487, C4.1)."""

from __future__ import annotations

import functools
from typing import NamedTuple

KNOWN_WORDS = 1 << 13  # of each kind of fact that are kept: most instructions recur from block to block


@functools.lru_cache(KNOWN_WORDS)
def multiply_add_lanes(word: int) -> int:
    """Lanes of an fmla or fmls, by vector or by element: four of float32, four or eight of float16; zero for others."""
    if word & 0xFF60FC00 == 0x4E20CC00 or word & 0xFFC0B400 == 0x4F801000:
        return 4
    if word & 0xBF60FC00 == 0x0E400C00 or word & 0xBFC0B400 == 0x0F001000:
        return 8 if word & 1 << 30 else 4
    return 0


@functools.lru_cache(KNOWN_WORDS)
def accesses_memory(word: int) -> bool:
    """A load, a store or a prefetch."""
    return word & 0x0A000000 == 0x08000000


@functools.lru_cache(KNOWN_WORDS)
def loads(word: int) -> bool:
    """A load or a prefetch: bit 22 says so, but for literals and for loads that extend the sign."""
    if not accesses_memory(word):
        return False
    literal = word & 0x3B000000 == 0x18000000
    extends_sign = word & 0x3C800000 == 0x38800000
    return bool(word & 1 << 22) or literal or extends_sign


class Immediate(NamedTuple):
    """Where instructions that are ``value`` under ``mask`` have one: in the bits ``field``. No core's timing depends on
    it, except that zero makes some a mere move: all others are then like ``one``.
    """

    mask: int
    value: int
    field: int
    one: int = 0


IMMEDIATES = (
    Immediate(0x3B000000, 0x39000000, 0x003FFC00),  # load, store: a multiple of the register's size
    Immediate(0x3B200000, 0x38000000, 0x001FF000),  # load, store: any offset, or one that is added to the base
    Immediate(0x3A000000, 0x28000000, 0x003F8000),  # load, store of a pair
    Immediate(0x3B000000, 0x18000000, 0x00FFFFE0),  # load of a constant near the code
    Immediate(0x1F000000, 0x10000000, 0x60FFFFE0),  # address of what is near the code
    Immediate(0x1F800000, 0x11000000, 0x007FFC00, 0x00000400),  # add, subtract, compare
    Immediate(0x1F800000, 0x12800000, 0x001FFFE0, 0x00000020),  # move of 16 bits
    Immediate(0x7C000000, 0x14000000, 0x03FFFFFF),  # branch, call
    Immediate(0xFF000000, 0x54000000, 0x00FFFFE0),  # conditional branch
    Immediate(0x7E000000, 0x34000000, 0x00FFFFE0),  # compare and branch
    Immediate(0x7E000000, 0x36000000, 0x0007FFE0),  # test a bit and branch
)


@functools.lru_cache(KNOWN_WORDS)
def without_immediate(word: int) -> int:
    """The instruction that stands for all that differ from it by such an immediate alone."""
    for mask, value, field, one in IMMEDIATES:
        if word & mask == value:
            return word & ~field | (one if word & field else 0)
    return word


def alike(code: tuple[int, ...]) -> tuple[int, ...]:
    """The code that stands for all that differ from it by how far they jump, load from or count, and take as long.

    Loops of a kernel, and those of two schedules, often differ in nothing else.
    """
    return tuple(map(without_immediate, code))
