"""Fully connected layers, with the mean over image planes before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from ...operators.dense import Dense
from ...precision import Precision, precision_of
from ..bindings import Bindings, constant, operator, shape_of
from ..values import Other, owned
from .chain import other_operand
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.matmul",)


def find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Match | None:
    layer = layer_at(bindings, var)
    return None if layer is None else Match(layer.last, tuple(layer.bound), lambda fuser: _emit(fuser, layer))


def _emit(fuser: Fuser, layer: Layer) -> Other:
    """A permutation of the planes that are averaged goes into the weight."""
    weight, plane = layer.weight, None
    if layer.pooled:
        view, order = fuser.in_order(layer.data)
        weight, plane, data = weight[:, order], view.shape[2:], view.storage.var
    else:
        data = fuser.tensor(layer.data)
        fuser.read(layer.data)
    kernel = fuser.laid_out(
        Dense(
            shape_of(layer.data)[0],
            weight.shape[1],
            len(layer.bias),
            layer.relu,
            plane,
            precision=layer.precision,
        )
    )
    arguments = [data, relax.const(kernel.pack_weight(weight)), relax.const(layer.bias)]
    return Other(fuser.call(kernel, arguments), owned())


@dataclass
class Layer:
    """A fully connected layer with what surrounds it: ``weight`` (O, I), ``bias`` (O,).

    ``data`` is (N, I), or where ``pooled`` (N, I, H, W) whose planes are averaged first.
    """

    data: relax.Var
    weight: np.ndarray
    bias: np.ndarray
    last: relax.Var
    bound: list[relax.Var]
    precision: Precision
    pooled: bool = False
    relu: bool = False


def layer_at(bindings: Bindings, var: relax.Var) -> Layer | None:
    """The layer whose matrix product is bound to ``var``, None where it is not by a constant matrix."""
    data, weight = bindings.values[var].args[0], constant(bindings.values[var].args[1])
    if weight is None or weight.ndim != 2 or not isinstance(data, relax.Var):
        return None
    shape, precision = shape_of(data), precision_of(str(weight.dtype))
    if shape is None or len(shape) != 2 or precision is None or not _supported(bindings.values[var], precision):
        return None
    layer = Layer(data, weight.T, np.zeros(weight.shape[1], precision.total), var, [var], precision)
    while (reader := bindings.sole_reader(layer.last)) is not None and _extend_layer(layer, bindings, reader):
        layer.last = reader
        layer.bound.append(reader)
    _pool(layer, bindings)
    return layer


def _supported(product: relax.Call, precision: Precision) -> bool:
    return str(product.args[0].ty.dtype) == precision.data and str(product.ty.dtype) == precision.total


def _extend_layer(layer: Layer, bindings: Bindings, reader: relax.Var) -> bool:
    value = bindings.values[reader]
    if operator(value) == "relax.nn.relu" and not layer.relu:
        layer.relu = True
        return True
    if operator(value) != "relax.add" or layer.relu:
        return False
    addend = constant(other_operand(value, layer.last))
    outputs = len(layer.bias)
    if addend is None or addend.shape not in ((outputs,), (1, outputs)) or addend.dtype != layer.precision.total:
        return False
    layer.bias = layer.bias + addend.reshape(-1)
    return True


_RESHAPES = ("relax.reshape", "relax.squeeze", "relax.flatten")


def _pool(layer: Layer, bindings: Bindings) -> None:
    """Take in the mean over the image plane that the layer's input is, if it is one, however it was flattened."""
    taken, var = [], layer.data
    while var in bindings.values and bindings.reads[var] == 1:
        value = bindings.values[var]
        taken.append(var)
        if operator(value) in _RESHAPES and shape_of(value.args[0]) is not None:
            var = value.args[0]
            continue
        if _is_plane_mean(value) and shape_of(value.args[0])[:2] == shape_of(layer.data):
            layer.data, layer.pooled = value.args[0], True
            layer.bound += taken
        return


def _is_plane_mean(value: relax.Expr) -> bool:
    if operator(value) == "relax.nn.adaptive_avg_pool2d":
        return value.attrs.layout == "NCHW" and shape_of(value)[2:] == (1, 1)
    if operator(value) != "relax.mean":
        return False
    shape = shape_of(value.args[0])
    return shape is not None and len(shape) == 4 and {int(axis) % 4 for axis in value.attrs.axis} == {2, 3}
