"""Tensors of networks that have one input and one output."""

from __future__ import annotations

import numpy as np

from tvm_shufflenet.signature import Signature, Tensors, TensorSpec

OUTPUT = "output0"


def only(tensors: Tensors) -> np.ndarray:
    (array,) = tensors.values()
    return array


def signature(shape: tuple[int, ...], output: tuple[int, ...]) -> Signature:
    return Signature((TensorSpec("data", shape),), (TensorSpec(OUTPUT, output),))
