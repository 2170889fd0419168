"""Any other convolution with its bias and ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

from ...operators.convolution import Convolution
from ..bindings import Bindings
from ..chains import Chain, chain_at
from ..values import fresh
from ..views import View
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def _find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Chain | None:
    return chain_at(bindings, var, claimed, "convolution")


def _write(fuser: Fuser, _var: relax.Var, chain: Chain) -> View:
    weight = chain.weight
    if chain.groups == 1:
        data, order = fuser.in_order(chain.data)
        weight = weight[:, order]
    else:
        data = fuser.whole(fuser.view(chain.data))
        fuser.read(chain.data)
    channels, _, *kernel_size = weight.shape
    kernel = Convolution(
        *data.shape, channels, chain.groups, tuple(kernel_size), chain.stride, chain.padding, chain.relu
    )
    arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
    return fuser.emit_planes("convolution", kernel, data, arguments, fresh(channels), chain.relu)


REWRITES = (Rewrite(("relax.nn.conv2d",), _write, _find),)
