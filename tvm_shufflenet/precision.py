"""Number formats that operators compute in: one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Tensors hold ``data``, sums are kept in ``accumulator``; an element of a tensor takes ``bytes``.

    ``epsilon`` is the distance from 1 to the next number, ``smallest`` the least number above zero: what a tolerance
    is made of.
    """

    name: str
    data: str
    accumulator: str
    bytes: int
    epsilon: float
    smallest: float


FLOAT32 = Precision("float32", "float32", "float32", 4, epsilon=2.0**-23, smallest=2.0**-149)
