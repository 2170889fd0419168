"""Number formats that operators compute in: one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """Tensors hold ``data``, sums are kept in ``accumulator``; an element of a tensor takes ``bytes``.

    ``epsilon`` is the distance from 1 to the next number, ``smallest`` the least number above zero: what a tolerance
    of a whole network is made of. ``tolerance`` is that of one operator against another order of its sums, relative to
    what the elements of its result measure (verification/operators.py). The device server fills and digests tensors of
    ``data`` (devices/operands.py).
    """

    name: str
    data: str
    accumulator: str
    bytes: int
    epsilon: float
    smallest: float
    tolerance: float


FLOAT32 = Precision("float32", "float32", "float32", bytes=4, epsilon=2.0**-23, smallest=2.0**-149, tolerance=2e-5)
PRECISIONS = {each.name: each for each in (FLOAT32,)}


def precision_of(dtype: str) -> Precision | None:
    """The precision whose tensors hold ``dtype``; None for an index, a mask, or a dtype that is not computed in."""
    return next((each for each in PRECISIONS.values() if each.data == dtype), None)
