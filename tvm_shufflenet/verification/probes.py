"""The inputs that a library is verified with. Each follows exactly from the reference inputs, in float32, so that
whoever has those has them all: the static benchmark carries them, and has the same rules (standalone/native/probes.c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..signature import Tensors, TensorSpec

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


def reference_inputs(specs: Sequence[TensorSpec], seed: int) -> Tensors:
    """The inputs that every check begins with: standard normal, drawn from ``seed`` one after the other."""
    random = np.random.default_rng(seed)
    drawn = {spec.name: random.standard_normal(spec.shape, dtype=np.float32) for spec in specs}
    return {spec.name: drawn[spec.name].astype(spec.dtype, copy=False) for spec in specs}


def probe(name: str, inputs: Tensors) -> Tensors:
    """The inputs of the probe ``name``, of the shapes and dtypes of the reference ``inputs``."""
    return {each: PROBES[name](data) for each, data in inputs.items()}
