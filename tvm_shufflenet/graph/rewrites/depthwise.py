"""Depthwise convolutions with bias and ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import relax

from ...operators.depthwise import Depthwise
from ..bindings import Bindings, shape_of
from ..values import fresh
from ..views import View
from .chain import Chain, chain_at
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.nn.conv2d",)


@dataclass
class DepthwiseChain(Chain):
    @property
    def fits(self) -> bool:
        out_channels, group_in, *_ = self.weight.shape
        return group_in == 1 and out_channels == self.groups == shape_of(self.data)[1]


def find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Match | None:
    chain = chain_at(DepthwiseChain, bindings, var, claimed)
    return None if chain is None else chain.match(_emit)


def _emit(fuser: Fuser, chain: Chain) -> View:
    """Channel by channel, so in the order in which the planes lie."""
    data, order = fuser.in_order(chain.data)
    window = chain.weight.shape[2:], chain.stride, chain.padding
    kernel = fuser.laid_out(Depthwise(*data.shape, *window, chain.relu, precision=chain.precision))
    weight, bias = kernel.pack_weight(chain.weight[order]), chain.bias[order]
    arguments = [relax.const(weight), relax.const(bias)]
    return fuser.emit(kernel, data, arguments, fresh(len(order)), chain.relu).take(data.planes)
