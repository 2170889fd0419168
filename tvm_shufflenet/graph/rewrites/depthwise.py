"""A depthwise convolution with its bias and ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.depthwise import Depthwise
from ..bindings import Bindings
from ..chains import Chain, chain_at
from ..values import fresh
from ..views import View
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def _find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Chain | None:
    return chain_at(bindings, var, claimed, "depthwise")


def _write(fuser: Fuser, _var: relax.Var, chain: Chain) -> View:
    """Channel by channel, so in the order in which the planes lie."""
    data, order = fuser.in_order(chain.data)
    kernel = Depthwise(*data.shape, chain.weight.shape[2:], chain.stride, chain.padding, chain.relu)
    weight, bias = kernel.pack_weight(chain.weight[order]), chain.bias[order]
    arguments = [relax.const(weight), relax.const(bias)]
    return fuser.emit_planes("depthwise", kernel, data, arguments, fresh(len(order)), chain.relu).take(data.planes)


REWRITES = (Rewrite(("relax.nn.conv2d",), _write, _find),)
