"""A 1x1 convolution with its bias, residual sum, ReLU and shuffle; it can write into a concatenation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from ...operators.pointwise import Pointwise
from ..bindings import Bindings
from ..chains import Chain, chain_at
from ..values import Pending, Place, fresh
from ..views import View
from .base import Rewrite

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser


def _find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Chain | None:
    return chain_at(bindings, var, claimed, "pointwise")


def _write(fuser: Fuser, var: relax.Var, chain: Chain) -> View | Pending:
    if chain.residual is None and fuser.is_concatenated(var):
        return Pending(len(chain.bias), lambda place: _place(fuser, chain, place))
    return _place(fuser, chain, fresh(len(chain.bias)))


def _place(fuser: Fuser, chain: Chain, place: Place) -> View:
    data, weight, gather = fuser.view(chain.data), chain.weight, None
    if data.permuted and chain.groups == 1:
        weight = weight[:, np.argsort(data.planes)]  # the planes in order: the permutation goes into the weight
    elif data.planes != tuple(range(len(data.planes))):
        gather = np.array(data.planes, np.int32)
    addend = None
    if chain.residual is not None:
        addend = fuser.whole(fuser.view(chain.residual))
        fuser.read(chain.residual)
        # The data is read until the last of the result is written, so it counts as awaited here.
        if fuser.live(addend.storage).isdisjoint(addend.planes):
            place = replace(place, storage=addend.storage)
    fuser.read(chain.data)
    batch, planes, height, width = data.storage.shape
    kernel = Pointwise(
        batch,
        planes,
        height,
        width,
        in_channels=len(data.planes),
        out_channels=len(chain.bias),
        groups=chain.groups,
        relu=chain.relu or place.relu,
        residual=addend is not None,
        shuffle_groups=chain.shuffle_groups,
        gathered=gather is not None,
        window=place.window,
    )
    arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
    arguments += [relax.const(gather)] if gather is not None else []
    arguments += [addend.storage.var] if addend is not None else []
    return fuser.emit_planes("pointwise", kernel, data, arguments, place, kernel.relu)


REWRITES = (Rewrite(("relax.nn.conv2d",), _write, _find),)
