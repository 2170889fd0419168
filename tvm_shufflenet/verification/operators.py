"""Verifies that a scheduled operator computes what the unscheduled one does, by digests of all arguments after one run
and after a second run on the results of the first.

Arguments that an operator only reads must hold exactly what they did. For those that it writes, both sum the same
float32 products in another order. Rounding then changes an element by about 1e-6 of what elements measure (sums of up
to some thousand products), and as it goes up as often as down, a sum of n elements by 1e-6 times the root of n. A
precision's ``tolerance`` is twenty times that. A bucket of 10 000 elements, a large tensor's, so shows a single one
that is off by 0.2 % of what elements measure. All elements are weighted by place, and so is what is allowed; two that
are exchanged show by their difference times that of their weights, a third on average within one sign.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from .. import precision
from ..devices import operands
from ..devices.operands import SUMS, digest, filled, weighted
from ..precision import precision_of
from ..support.block_cache import BlockCache
from ..support.toolchain import TVM_VERSION, cache_dir

UNTOUCHED = 1e-12  # of the same numbers, summed in another order of float64


@dataclass(frozen=True)
class Reference:
    """The digest of each argument after one run of the unscheduled operator, how far off it may be, and the digests
    after a second run: an operator that works in place gives another result each time.
    """

    digests: tuple[tuple[float, ...], ...]
    allowed: tuple[tuple[float, ...], ...]
    again: tuple[tuple[float, ...], ...] = ()

    @property
    def second(self) -> Reference:
        """What is expected after the second run."""
        return Reference(self.again, self.allowed)


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
    sources = b"".join(Path(source).read_bytes() for source in (operands.__file__, precision.__file__, __file__))
    return f"{hashlib.sha256(sources).hexdigest()} {TVM_VERSION}"


def reference(mod) -> Reference:
    """Compile ``mod`` as it is for this machine, run it, and keep what its arguments hold then."""
    import tvm

    from ..graph.tasks import argument_shapes
    from ..hardware.targets import find_target

    compiled = tvm.compile(mod, find_target("local").tvm())
    shapes = argument_shapes(mod)
    tensors = [tvm.runtime.tensor(filled(shape, dtype, seed)) for seed, (shape, dtype) in enumerate(shapes)]
    before, first, second = [tensor.numpy() for tensor in tensors], [], []
    for after in (first, second):
        compiled["main"](*tensors)
        after += [tensor.numpy() for tensor in tensors]
    allowed = [_allowed(*arrays) for arrays in zip(before, first, second, strict=True)]
    digests = (tuple(_floats(digest(array)) for array in after) for after in (first, second))
    return Reference(next(digests), tuple(map(_floats, allowed)), next(digests))


def _floats(array: np.ndarray) -> tuple[float, ...]:
    return tuple(array.tolist())


def _allowed(before: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Difference of each sum that rounding explains, for an argument that holds these numbers before and after two
    runs: nearly none where they are the same. Elements of a bucket may be small by chance, or all be zero."""
    used = precision_of(str(first.dtype))
    share = UNTOUCHED if used is None or before.tobytes() == first.tobytes() else used.tolerance
    return share * np.fmax(_norms(first), _norms(second))


def _norms(array: np.ndarray) -> np.ndarray:
    """What the elements of each bucket measure together, and those of an average one at least."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(weighted(array)).sum(axis=0))
    finite = norms[np.isfinite(norms)]
    return np.fmax(norms, np.sqrt(np.square(finite).sum() / SUMS))


def wrong_run(expected: Reference, first: list[np.ndarray], second: list[np.ndarray]) -> tuple[str, list] | None:
    """What is wrong with an operator's digests after its first and its second run, and those digests; or None."""
    what = difference(expected, first)
    if what is not None:
        return what, first
    what = difference(expected.second, second)
    return None if what is None else (f"in a second run on the same arguments, {what}", second)


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
