"""Tensors to time an operator on."""

from __future__ import annotations


def argument(session, device, shape: tuple[int, ...], dtype: str):
    """A tensor on the device, filled there with numbers that are neither denormal nor huge: both would change the time.

    Every server of TVM's and ours has the fill function; sending a megabyte takes an emulated core 0.2 s. A table of
    planes (operators/pointwise.py) names them in order: random numbers would point outside the tensor.
    """
    import numpy as np
    import tvm

    if dtype.startswith("int"):
        return tvm.runtime.tensor(np.arange(np.prod(shape), dtype=dtype).reshape(shape), device)
    tensor = tvm.runtime.empty(shape, dtype, device)
    session.get_function("tvm.contrib.random.random_fill_for_measure")(tensor)
    return tensor
