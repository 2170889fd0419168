"""The inputs that a library is verified with. Each follows exactly from the reference input, in float32, so that
whoever has that one has them all: the static benchmark carries it, and has the same rules (standalone/native/probes.c).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

REFERENCE, OTHER, NAN, INFINITE = "reference", "other", "NaN", "infinite"
QUIET = ("zero", "denormal")
LARGE = np.float32(2.0**10)
DENORMAL = np.float32(2.0**-130)  # of numbers below 2**4: every one of them is denormal, or zero


def _with(data: np.ndarray, **values: float) -> np.ndarray:
    """``data`` with other values in its middle and at its quarter."""
    changed = data.copy()
    flat = changed.reshape(-1)
    for place, value in values.items():
        flat[flat.size // {"quarter": 4, "middle": 2}[place]] = value
    return changed


# By name, in the order in which they are run: what each makes of the reference input.
PROBES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    REFERENCE: lambda data: data,
    OTHER: lambda data: np.ascontiguousarray(data.reshape(-1)[::-1].reshape(data.shape) * np.float32(-0.5)),
    "large": lambda data: data * LARGE,
    "zero": lambda data: data * np.float32(0) + np.float32(0),
    "denormal": lambda data: data * DENORMAL,
    NAN: lambda data: _with(data, quarter=np.nan, middle=np.nan),
    INFINITE: lambda data: _with(data, quarter=-np.inf, middle=np.inf),
}


def probe(name: str, data: np.ndarray) -> np.ndarray:
    """The input ``name``, of the shape and dtype of the reference input ``data``, float32."""
    return PROBES[name](data)
