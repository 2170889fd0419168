"""What an AArch64 instruction word does, as far as the cycle model needs to know (Arm ARM DDI0487, C4.1)."""

from __future__ import annotations


def is_fp32_multiply_add(word: int) -> bool:
    """fmla or fmls on four float32 lanes, by vector or by element."""
    return word & 0xFF60FC00 == 0x4E20CC00 or word & 0xFFC0B400 == 0x4F801000


def accesses_memory(word: int) -> bool:
    """A load, a store or a prefetch."""
    return word & 0x0A000000 == 0x08000000


def loads(word: int) -> bool:
    """A load or a prefetch: bit 22 says so, but for literals and for loads that extend the sign."""
    if not accesses_memory(word):
        return False
    literal = word & 0x3B000000 == 0x18000000
    extends_sign = word & 0x3C800000 == 0x38800000
    return bool(word & 1 << 22) or literal or extends_sign
