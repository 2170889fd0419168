"""Finding what one fused operator computes: a convolution or matrix product, and everything that only it feeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from ..operators.pointwise import can_fuse_shuffle
from .bindings import Bindings, constant, operator, shape_of
from .passes.fold_batch_norm import is_bias


@dataclass
class Chain:
    """A convolution with what follows it. ``last`` is the variable that holds the result, and ``bound`` all of them.

    ``weight`` is (O, I / groups, R, S), ``bias`` is (O,). ``residual`` is the variable added before the ReLU.
    """

    conv: relax.Call
    weight: np.ndarray
    bias: np.ndarray
    last: relax.Var
    bound: list[relax.Var]
    residual: relax.Var | None = None
    relu: bool = False
    shuffle_groups: int = 1

    @property
    def data(self) -> relax.Var:
        return self.conv.args[0]

    @property
    def groups(self) -> int:
        return int(self.conv.attrs.groups)

    @property
    def stride(self) -> tuple[int, int]:
        return tuple(int(s) for s in self.conv.attrs.strides)

    @property
    def padding(self) -> tuple[int, int, int, int]:
        return tuple(int(p) for p in self.conv.attrs.padding)

    @property
    def kind(self) -> str:
        """``pointwise``, ``depthwise`` or ``convolution``."""
        out_channels, group_in, rows, columns = self.weight.shape
        if (rows, columns) == (1, 1) and self.stride == (1, 1) and not any(self.padding):
            return "pointwise"
        if group_in == 1 and out_channels == self.groups == shape_of(self.data)[1]:
            return "depthwise"
        return "convolution"


def shuffle_groups_of(bindings: Bindings, split: relax.Var) -> tuple[int, list[relax.Var]] | None:
    """Groups of a channel shuffle spelled reshape, permute, reshape that starts at ``split``, and its three variables.

    ``CanonicalizeShuffles`` has brought every other spelling into this one. None where it is something else.
    """
    swapped = bindings.sole_reader(split)
    merged = None if swapped is None else bindings.sole_reader(swapped)
    names = ("relax.reshape", "relax.permute_dims", "relax.reshape")
    if merged is None or tuple(operator(bindings.values[var]) for var in (split, swapped, merged)) != names:
        return None
    source, grouped = shape_of(bindings.values[split].args[0]), shape_of(split)
    if source is None or grouped is None or len(source) != 4 or len(grouped) != 5:
        return None
    batch, channels, height, width = source
    groups = grouped[1]
    if grouped != (batch, groups, channels // groups, height, width) or shape_of(merged) != source:
        return None
    if [int(axis) for axis in bindings.values[swapped].attrs.axes] != [0, 2, 1, 3, 4]:
        return None
    return groups, [split, swapped, merged]


def chain_at(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Chain | None:
    """The chain that begins with the convolution bound to ``var``, None for a convolution that no operator computes.

    ``claimed`` are variables that other chains have taken.
    """
    conv = bindings.values[var]
    weight = constant(conv.args[1])
    if weight is None or not _supported(conv):
        return None
    chain = Chain(conv, weight, np.zeros(weight.shape[0], np.float32), var, [var])
    while (reader := bindings.sole_reader(chain.last)) is not None and reader not in claimed:
        if not _extend(chain, bindings, reader):
            break
    return chain


def _supported(conv: relax.Call) -> bool:
    attrs, data = conv.attrs, shape_of(conv.args[0])
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout)
    plain = layouts == ("NCHW", "OIHW", "NCHW") and all(int(d) == 1 for d in attrs.dilation)
    return plain and data is not None and str(conv.args[0].ty.dtype) == "float32"


def _extend(chain: Chain, bindings: Bindings, reader: relax.Var) -> bool:
    """Take the next operation into the chain, where it can be fused."""
    value = bindings.values[reader]
    name = operator(value)
    if name == "relax.nn.relu" and not chain.relu:
        return _take(chain, [reader], relu=True)
    if name == "relax.add":
        return _extend_by_add(chain, reader, value)
    if name == "relax.reshape" and chain.kind == "pointwise" and chain.residual is None and chain.shuffle_groups == 1:
        found = shuffle_groups_of(bindings, reader)
        if found is not None and can_fuse_shuffle(chain.groups, found[0]):
            return _take(chain, found[1], shuffle_groups=found[0])
    return False


def _other_operand(add: relax.Call, known: relax.Var) -> relax.Expr | None:
    """What is added to ``known``, None where that is ``known`` itself."""
    return next((arg for arg in add.args if not arg.same_as(known)), None)


def _extend_by_add(chain: Chain, reader: relax.Var, add: relax.Call) -> bool:
    if chain.relu or chain.residual is not None or chain.shuffle_groups > 1:
        return False
    other = _other_operand(add, chain.last)
    if other is None:
        return False
    addend = constant(other)
    if addend is not None:
        if not is_bias(addend.shape, len(chain.bias)) or addend.dtype != np.float32:
            return False
        return _take(chain, [reader], bias=chain.bias + addend.reshape(-1))
    if chain.kind != "pointwise" or shape_of(other) != shape_of(chain.last) or shape_of(reader) != shape_of(other):
        return False
    return _take(chain, [reader], residual=other)


def _take(chain: Chain, variables: list[relax.Var], **changes) -> bool:
    for field, value in changes.items():
        setattr(chain, field, value)
    chain.bound += variables
    chain.last = variables[-1]
    return True


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
    pooled: bool = False
    relu: bool = False


def layer_at(bindings: Bindings, var: relax.Var) -> Layer | None:
    """The layer whose matrix product is bound to ``var``, None where it is not by a constant matrix."""
    data, weight = bindings.values[var].args[0], constant(bindings.values[var].args[1])
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or not isinstance(data, relax.Var):
        return None
    shape = shape_of(data)
    if shape is None or len(shape) != 2:
        return None
    layer = Layer(data, weight.T, np.zeros(weight.shape[1], np.float32), var, [var])
    while (reader := bindings.sole_reader(layer.last)) is not None and _extend_layer(layer, bindings, reader):
        layer.last = reader
        layer.bound.append(reader)
    _pool(layer, bindings)
    return layer


def _extend_layer(layer: Layer, bindings: Bindings, reader: relax.Var) -> bool:
    value = bindings.values[reader]
    if operator(value) == "relax.nn.relu" and not layer.relu:
        layer.relu = True
        return True
    if operator(value) != "relax.add" or layer.relu:
        return False
    addend = constant(_other_operand(value, layer.last))
    outputs = len(layer.bias)
    if addend is None or addend.shape not in ((outputs,), (1, outputs)) or addend.dtype != np.float32:
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
