"""A fully connected layer with its bias and ReLU, and the mean over the image plane before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.dense import Dense
from ..bindings import Bindings, shape_of
from ..chains import Layer, layer_at
from ..values import Other
from ..views import Memory
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def _find(bindings: Bindings, var: relax.Var, _claimed: set[relax.Var]) -> Layer | None:
    return layer_at(bindings, var)


def _write(fuser: Fuser, _var: relax.Var, layer: Layer) -> Other:
    """A permutation of the planes that are averaged goes into the weight."""
    weight, plane = layer.weight, None
    if layer.pooled:
        view, order = fuser.in_order(layer.data)
        weight, plane, data = weight[:, order], view.shape[2:], view.storage.var
    else:
        data = fuser.tensor(layer.data)
        fuser.read(layer.data)
    kernel = Dense(shape_of(layer.data)[0], weight.shape[1], len(layer.bias), layer.relu, plane)
    arguments = [data, relax.const(kernel.pack_weight(weight)), relax.const(layer.bias)]
    return Other(fuser.call("dense", kernel, arguments), frozenset([Memory()]))


REWRITES = (Rewrite(("relax.matmul",), _write, _find),)
