"""Operands for each operator of tvm_shufflenet.operators, and what PyTorch computes of them.

``operands(kernel)`` returns what ``kernels.check`` takes: the operands in the function's order, the expected result,
and what the result's tensor holds before. That tensor is an operand too where the operator writes only some planes.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import torch
import torch.nn.functional as F

from helpers.kernels import UNTOUCHED, draw, padded, torch_of
from helpers.pointwise_cases import PointwiseCase
from tvm_shufflenet.operators.base import Operator
from tvm_shufflenet.operators.convolution import Convolution
from tvm_shufflenet.operators.copy import Copy
from tvm_shufflenet.operators.dense import Dense
from tvm_shufflenet.operators.depthwise import Depthwise
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.operators.pointwise import Pointwise
from tvm_shufflenet.operators.pooling import Pooling

Operands = tuple[list[np.ndarray], np.ndarray, np.ndarray]


@singledispatch
def operands(kernel: Operator, data: np.ndarray | None = None) -> Operands:
    """``data`` in place of random numbers."""
    raise NotImplementedError(f"no reference for {type(kernel).__name__}")


@operands.register
def _(kernel: Pointwise, data: np.ndarray | None = None) -> Operands:
    case = PointwiseCase(kernel)
    case.data = case.data if data is None else data
    return case.operands()[:-1], case.torch(), case.before


@operands.register
def _(kernel: Depthwise, data: np.ndarray | None = None) -> Operands:
    data = draw(kernel.batch, kernel.channels, kernel.height, kernel.width) if data is None else data
    weight, bias = draw(kernel.channels, 1, *kernel.kernel), draw(kernel.channels)
    value = F.conv2d(
        padded(data, kernel.padding), *torch_of(weight, bias), stride=kernel.stride, groups=kernel.channels
    )
    return _whole(kernel, [data, kernel.pack_weight(weight), bias], value)


@operands.register
def _(kernel: Convolution, data: np.ndarray | None = None) -> Operands:
    data = draw(kernel.batch, kernel.in_channels, kernel.height, kernel.width) if data is None else data
    weight = draw(kernel.out_channels, kernel.in_channels // kernel.groups, *kernel.kernel)
    bias = draw(kernel.out_channels)
    value = F.conv2d(padded(data, kernel.padding), *torch_of(weight, bias), stride=kernel.stride, groups=kernel.groups)
    return _whole(kernel, [data, kernel.pack_weight(weight), bias], value)


@operands.register
def _(kernel: Dense, data: np.ndarray | None = None) -> Operands:
    data = draw(kernel.batch, kernel.inputs, *(kernel.plane or ())) if data is None else data
    weight, bias = draw(kernel.outputs, kernel.inputs), draw(kernel.outputs)
    source, *parameters = torch_of(data, weight, bias)
    value = F.linear(source.mean((2, 3)) if kernel.plane else source, *parameters)
    return _whole(kernel, [data, kernel.pack_weight(weight), bias], value)


@operands.register
def _(kernel: Pooling, data: np.ndarray | None = None) -> Operands:
    if data is None:
        data = draw(kernel.batch, kernel.channels, kernel.height, kernel.width)
        data = np.maximum(data, 0) if kernel.non_negative else data
    source, padding = torch.from_numpy(data), kernel.padding[:2]
    if kernel.kind == "max":
        value = F.max_pool2d(source, kernel.kernel, kernel.stride, padding, ceil_mode=kernel.ceil_mode)
    else:
        value = F.avg_pool2d(source, kernel.kernel, kernel.stride, padding, kernel.ceil_mode, kernel.count_include_pad)
    value = (F.relu(value) if kernel.relu else value).numpy()
    assert value.shape[2:] == kernel.output_shape[2:]
    return _placed(kernel.destination, [data], value, kernel.output_shape)


@operands.register
def _(kernel: Copy, data: np.ndarray | None = None) -> Operands:
    data = draw(kernel.batch, kernel.planes, kernel.height, kernel.width) if data is None else data
    source = np.random.default_rng(1).permutation(kernel.planes)[: kernel.channels].astype(np.int32)
    value = np.maximum(data[:, source], 0) if kernel.relu else data[:, source]
    return _placed(kernel.window, [data, source], value, kernel.output_shape)


def _whole(kernel: Operator, arguments: list[np.ndarray], value: torch.Tensor) -> Operands:
    """An operator that writes all of its result."""
    expected = (F.relu(value) if kernel.relu else value).numpy()
    return arguments, expected, np.full(expected.shape, UNTOUCHED, np.float32)


def _placed(window: Window, arguments: list[np.ndarray], value: np.ndarray, shape: tuple[int, ...]) -> Operands:
    """An operator that writes the planes of a ``window``, which may need a table of them and the rest of the tensor."""
    planes = window.offset + np.arange(window.channels)
    if window.scattered:
        planes = np.random.default_rng(0).permutation(window.total)[: window.channels]
    before = np.full(shape, UNTOUCHED, np.float32)
    expected = before.copy()
    expected[:, planes] = value
    table = [planes.astype(np.int32)] if window.scattered else []
    return [*arguments, *table, *([before] if window.shared else [])], expected, before
