"""Runs a PyTorch network in float64, to estimate how much of its output is rounding."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ..precision import FLOAT32, Precision
from .zoo.random_weights import single_thread

ASSERTS_DTYPE = "aten::_assert_tensor_metadata"


class _Misrounding(TorchDispatchMode):
    """Every operator computes in float64, whatever dtype it is told; its result then is off by as much as ``dtype``
    would round it, to the other side. What ``dtype`` represents exactly stays, what overflows in it is infinite."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        schema = operator._schema
        if schema.name == ASSERTS_DTYPE:
            return None
        given = (args, kwargs or {})
        if schema.is_mutable and _is_single(args[0] if args else None):
            raise TypeError(f"{schema.name} writes into a float32 tensor")  # a copy of which would be written
        args, kwargs = tree_map(_doubled, given)
        result = tree_map(_doubled, operator(*args, **kwargs))
        is_view = any(found.alias_info is not None for found in schema.returns)
        return result if is_view else tree_map(lambda each: _misrounded(each, self.dtype), result)


def _is_single(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.float32


def _doubled(value):
    if value is torch.float32:
        return torch.float64
    return value.double() if _is_single(value) else value


def _held(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A weight or an input in float64, off by what ``dtype`` rounds of it. Float32 holds it as it is."""
    exact = dtype is torch.float32 or not _is_single(tensor)
    return _doubled(tensor) if exact else _misrounded(tensor.double(), dtype)


def _misrounded(value, dtype: torch.dtype):
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float64:
        return value
    rounded = value.to(dtype).double()
    off = (value - rounded).nan_to_num_(0.0, 0.0, 0.0)
    return rounded.add_(off, alpha=2)


def run_in_float64(module: torch.nn.Module, *inputs: np.ndarray, precision: Precision = FLOAT32):
    """What ``module`` returns for ``inputs`` in float64 with weights, inputs and each operator's result off by as much
    as ``precision`` would round them, to the other side: its difference from the float32 answer is one that rounding
    explains.

    Raises whatever a module does that is fixed to float32.
    """
    held = (*module.named_parameters(), *module.named_buffers())
    dtype = getattr(torch, precision.data)
    state = {name: _held(tensor, dtype) for name, tensor in held}
    given = tuple(_held(torch.tensor(data), dtype).double() for data in inputs)
    with torch.no_grad(), single_thread(), _Misrounding(dtype):
        return torch.func.functional_call(module, state, given)
