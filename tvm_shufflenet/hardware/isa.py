"""Vector instruction sets: register sizes and forms of multiply-add."""

from __future__ import annotations

from dataclasses import dataclass

from ..precision import FLOAT32


@dataclass(frozen=True)
class Isa:
    """A vector instruction set of an ELF ``machine``.

    A register has ``vector_bytes``, and there are ``registers`` of them. ``by_element``: a multiply-add can multiply a
    whole register by one element of another.
    """

    name: str
    machine: str
    vector_bytes: int
    registers: int
    by_element: bool = False

    def lanes(self, element_bytes: int = FLOAT32.bytes) -> int:
        """How many elements one register holds."""
        return self.vector_bytes // element_bytes


NARROWEST_BYTES = 16  # of all vector registers here


def narrowest_lanes(element_bytes: int) -> int:
    """How many elements the narrowest vector register holds."""
    return NARROWEST_BYTES // element_bytes


NEON = Isa("NEON", "aarch64", 16, 32, by_element=True)
SSE = Isa("SSE", "x86_64", 16, 16)
AVX2 = Isa("AVX2", "x86_64", 32, 16)
AVX512 = Isa("AVX-512", "x86_64", 64, 32)
