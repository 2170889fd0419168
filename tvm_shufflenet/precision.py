"""Number formats that operators compute in: one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Precision:
    """Tensors hold ``data``, of which an element takes ``bytes``. The sums of convolutions are kept in ``accumulator``,
    those of means and fully connected layers, which may be long or large, in ``total``.

    ``epsilon`` is the distance from 1 to the next number, ``smallest`` the least number above zero. ``tolerance`` is
    that of one operator against another order of its sums, relative to what the elements of its result measure
    (verification/operators.py). The device server fills and digests tensors of ``data`` (devices/operands.py).

    A whole network (verification/answers.py) may be off by ``units`` epsilons of its largest output where rounding
    hardly touches it, and by ``unproven`` of that output where its rounding cannot be computed. ``telling`` times the
    tolerance must the outputs for two inputs differ, so that agreement proves something.
    """

    name: str
    data: str
    accumulator: str
    total: str
    bytes: int
    epsilon: float
    smallest: float
    tolerance: float
    units: int
    unproven: float
    telling: float

    def __repr__(self) -> str:
        return self.name


FLOAT32 = Precision(
    "float32", data="float32", accumulator="float32", total="float32", bytes=4,
    epsilon=2.0**-23, smallest=2.0**-149, tolerance=2e-5,
    units=64, unproven=1e-4, telling=100,
)  # fmt: skip
# Sums of some hundred products, each rounded to 2^-11 of what it makes, are off by about 1e-3 of what elements measure.
FLOAT16 = Precision(
    "float16", data="float16", accumulator="float16", total="float32", bytes=2,
    epsilon=2.0**-10, smallest=2.0**-24, tolerance=2e-2,
    units=8, unproven=3e-2, telling=10,
)  # fmt: skip
PRECISIONS = {each.name: each for each in (FLOAT32, FLOAT16)}


def precision_of(dtype: str) -> Precision | None:
    """The precision whose tensors hold ``dtype``; None for an index, a mask, or a dtype that is not computed in."""
    return next((each for each in PRECISIONS.values() if each.data == dtype), None)
