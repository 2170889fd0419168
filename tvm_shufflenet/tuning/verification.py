"""Whether a scheduled operator computes what the unscheduled one does: digests of every argument after it has run.

Both sum the same float32 products in another order. Rounding then changes an element by about 1e-6 of what elements
measure (sums of up to some thousand products), and as it goes up as often as down, a sum of n elements by 1e-6 times
the root of n. ``TOLERANCE`` is twenty times that. A bucket of 10 000 elements, a large tensor's, so shows a single one
that is off by 0.2 % of what elements measure.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ..devices import operands
from ..devices.block_cache import BlockCache
from ..devices.operands import SUMS, digest, filled, signed
from ..toolchain import TVM_VERSION, cache_dir

TOLERANCE = 2e-5


@dataclass(frozen=True)
class Reference:
    """The digest of each argument after one run of the unscheduled operator, and how far off it may be.

    An operator that works in place gives another result each time, so trials look after their first run.
    """

    digests: tuple[tuple[float, ...], ...]
    allowed: tuple[tuple[float, ...], ...]


def known_reference(mod, workload: str) -> Reference:
    """What ``mod``, whose hash is ``workload``, computes; known from an earlier run, or found out now."""
    key = hashlib.sha256(f"{computed_by()} {workload}".encode()).digest()
    known = _cache().get(key)
    if known is not None:
        return msgspec.msgpack.decode(known, type=Reference)
    found = reference(mod)
    _cache().put([(key, msgspec.msgpack.encode(found))])
    return found


@functools.cache
def _cache() -> BlockCache:
    return BlockCache(cache_dir() / "references.sqlite")


@functools.cache
def computed_by() -> str:
    """What else decides the digests: how operands are filled and summed, what is allowed, and what compiles."""
    sources = b"".join(Path(source).read_bytes() for source in (operands.__file__, __file__))
    return f"{hashlib.sha256(sources).hexdigest()} {TVM_VERSION}"


def reference(mod) -> Reference:
    """Compile ``mod`` as it is for this machine, run it, and keep what its arguments hold then."""
    import tvm

    from ..graph.tasks import argument_shapes
    from ..targets import find_target

    compiled = tvm.compile(mod, find_target("local").tvm())
    shapes = argument_shapes(mod)
    tensors = [tvm.runtime.tensor(filled(shape, dtype, seed)) for seed, (shape, dtype) in enumerate(shapes)]
    compiled["main"](*tensors)
    arrays = [tensor.numpy() for tensor in tensors]
    return Reference(tuple(map(_floats, map(digest, arrays))), tuple(map(_floats, map(_allowed, arrays))))


def _floats(array: np.ndarray) -> tuple[float, ...]:
    return tuple(array.tolist())


def _allowed(array: np.ndarray) -> np.ndarray:
    """Difference of each sum that rounding explains: elements of a bucket may be small by chance, or all be zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(signed(array)).sum(axis=0))
    finite = norms[np.isfinite(norms)]
    return TOLERANCE * np.fmax(norms, np.sqrt(np.square(finite).sum() / SUMS))


def difference(expected: Reference, found: list[np.ndarray]) -> str | None:
    """What is wrong with a trial's digests, or None. Where the reference is NaN or infinite, the trial must be too."""
    for number, (sums, allowed, ours) in enumerate(zip(expected.digests, expected.allowed, found, strict=True)):
        with np.errstate(invalid="ignore"):
            off = np.abs(ours - np.array(sums))
            same = (off <= np.array(allowed)) | (~np.isfinite(sums) & ~np.isfinite(ours))
        if not same.all():
            worst = "NaN" if np.isnan(ours[~same]).any() else f"{off[~same].max():.3g}"
            return (
                f"its result differs from the unscheduled operator's: {worst} in argument {number}, "
                f"{int((~same).sum())} of {SUMS} sums"
            )
    return None
