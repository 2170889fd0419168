"""The arguments of a trial: filled on the device with reproducible numbers, and digested there.

Transferring tensors to or from an emulated core costs 0.2 s a megabyte, so the device server has both functions
(server/native/fill_digest.cc); these are their twins. A server without them, such as TVM's own, is sent the numbers.
"""

from __future__ import annotations

import numpy as np

from ..precision import precision_of

SUMS = 32
WEIGHT_SEED = 0x7F4A7C15


def _hash(count: int, seed: int) -> np.ndarray:
    mixed = (np.arange(count, dtype=np.uint32) ^ np.uint32(seed)) * np.uint32(0x9E3779B1)
    mixed = (mixed ^ mixed >> np.uint32(15)) * np.uint32(0x85EBCA77)
    return mixed ^ mixed >> np.uint32(13)


def filled(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """What an argument holds before a trial: numbers in [-1, 1) that are neither denormal nor huge.

    A table of planes (operators/pointwise.py) names them in order: other numbers would point outside the tensor.
    """
    count = int(np.prod(shape))
    if not dtype.startswith("float"):
        return np.arange(count).astype(dtype).reshape(shape)
    numbers = (_hash(count, seed).view(np.int32) >> 8).astype(np.float32) * np.float32(2.0**-23)
    return numbers.reshape(shape).astype(dtype)


def weights(count: int) -> np.ndarray:
    """What each of ``count`` elements is multiplied by in a digest, float64: from 1 to 2, of either sign, by the hash
    of its index. A product with a float32 number is exact in float64."""
    bits = _hash(count, WEIGHT_SEED) & np.uint32(0x807FFFFF) | np.uint32(0x3F800000)
    return bits.view(np.float32).astype(float)


def weighted(array: np.ndarray) -> np.ndarray:
    """The elements as rows of ``SUMS``, float64, each times the weight of its place; zeros fill up.

    The column sums are the digest.
    """
    flat = np.ascontiguousarray(array, dtype=np.float32).reshape(-1)
    padded = np.zeros(-(-flat.size // SUMS) * SUMS)
    with np.errstate(invalid="ignore"):  # NaNs that signal
        padded[: flat.size] = flat.astype(float) * weights(flat.size)
    return padded.reshape(-1, SUMS)


def digest(array: np.ndarray) -> np.ndarray:
    """``SUMS`` sums in which a wrong element shows, exchanged elements show by the weights of their places, and a NaN
    as NaN."""
    with np.errstate(invalid="ignore"):
        return weighted(array).sum(axis=0)


class Operands:
    """The arguments of a trial in a session on a device, filled in; ``shapes`` are pairs of shape and dtype."""

    def __init__(self, session, device, shapes):
        import tvm

        self._fill, self._digest = (server_function(session, name) for name in ("fill", "digest"))
        self.tensors = []
        for seed, (shape, dtype) in enumerate(shapes):
            if precision_of(dtype) and self._fill:
                self.tensors.append(tvm.runtime.empty(shape, dtype, device))
                self._fill(self.tensors[-1], seed)
            else:
                self.tensors.append(tvm.runtime.tensor(filled(shape, dtype, seed), device))

    def digests(self) -> list[np.ndarray]:
        """What the arguments hold now."""
        return [self._digest_of(tensor) for tensor in self.tensors]

    def _digest_of(self, tensor) -> np.ndarray:
        if precision_of(str(tensor.dtype)) and self._digest:
            return np.array(str(self._digest(tensor)).split(), dtype=float)
        return digest(tensor.numpy())


def server_function(session, name: str):
    """A function of our server, None where the server is another one."""
    try:
        return session.get_function(f"tvm_shufflenet.{name}")
    except (AttributeError, RuntimeError):
        return None
