"""Convolutions that are neither pointwise nor depthwise (those rows come first), with bias and ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.convolution import Convolution
from ..bindings import Bindings
from ..values import fresh
from ..views import View
from .chain import Chain, chain_at
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.nn.conv2d",)


def find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Match | None:
    chain = chain_at(Chain, bindings, var, claimed)
    return None if chain is None else chain.match(_emit)


def _emit(fuser: Fuser, chain: Chain) -> View:
    weight = chain.weight
    if chain.groups == 1:
        data, order = fuser.in_order(chain.data)
        weight = weight[:, order]
    else:
        data = fuser.whole(fuser.view(chain.data))
        fuser.read(chain.data)
    channels, _, *kernel_size = weight.shape
    kernel = fuser.laid_out(
        Convolution(*data.shape, channels, chain.groups, tuple(kernel_size), chain.stride, chain.padding, chain.relu)
    )
    arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
    return fuser.emit(kernel, data, arguments, fresh(channels), chain.relu)
