"""Maps operators of the compiled network to layers of the model, by the names in the model.

Nothing in the graph says so any more: import, folding and fusion make new nodes. But an operator still holds its
layer's weights, however they were scaled by a batch norm, permuted by a shuffle and padded to tiles. Of each output
channel, the sum of its absolute weights in units of the largest is none of the wiser for any of that; and the sorted
sums of all channels tell one layer from another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ..operators.registry import ROWS

PACKED = {row.name: row.weight_axes for row in ROWS if row.weight_axes}
ALIKE = 1e-3  # relative; rounding of a folded weight is a ten thousandth of that


def kind_of(name: str) -> str:
    """What an operator does, by its name: the fuser numbers those of a kind."""
    return name.rstrip("0123456789")


def layer_names(held: Iterable[np.ndarray], weights: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The names of the ``weights``, (outputs, inputs, ...) each, that the rows of any in ``held`` are, see ``rows``."""
    prints = {name: fingerprint(each.reshape(each.shape[0], -1)) for name, each in weights.items()}
    found = [fingerprint(each) for each in held]
    return tuple(name for name, known in prints.items() if any(_same(known, each) for each in found))


def rows(kind: str, packed: np.ndarray) -> np.ndarray:
    """Weights as an operator of a kind holds them: (outputs, n), and rows of zeros.

    The last axis of our operators' weights is a tile of outputs, which belongs in front of their inputs. Those of the
    depthwise convolution, and of operators that TVM generates, are as the model has them; but TVM turns matrices.
    """
    axes, inputs = PACKED.get(kind, (0, 0))
    if packed.ndim == axes:
        packed = np.moveaxis(packed, -1, axes - 1 - inputs)
        return packed.reshape(-1, math.prod(packed.shape[-inputs:]))
    if packed.ndim == 2:
        return packed.T
    return packed.reshape(packed.shape[0], -1)


def fingerprint(rows: np.ndarray) -> np.ndarray:
    """Of (outputs, n): one number for each output with any weight, sorted."""
    sizes = np.abs(rows.astype(np.float64))
    largest = sizes.max(axis=1)
    used = largest > 0
    return np.sort(sizes[used].sum(axis=1) / largest[used])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.size == other.size > 0 and bool(np.allclose(one, other, rtol=ALIKE, atol=0))
