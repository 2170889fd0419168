"""How far an output is from the expected one."""

from __future__ import annotations

import numpy as np


def largest_error(output: np.ndarray, reference: np.ndarray, spoilt: np.ndarray | None = None) -> float:
    """Largest absolute difference from ``reference``; infinite for another shape. Where that is NaN or infinite,
    ``output`` must be the same: the difference is NaN or infinite else, as for a NaN in ``output`` alone. Where
    ``spoilt``, a NaN on either side passes."""
    if output.shape != reference.shape:
        return float("inf")
    ours, theirs = np.isnan(output), np.isnan(reference)
    same = (output == reference) | (ours & theirs)
    if spoilt is not None:
        same |= spoilt & (ours | theirs)
    return float(np.abs(output[~same].astype(float) - reference[~same]).max(initial=0.0))
