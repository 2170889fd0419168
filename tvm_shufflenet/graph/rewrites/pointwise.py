"""1x1 convolutions with bias, residual sum, ReLU and channel shuffle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from ...operators.building import INDEX
from ...operators.pointwise import Pointwise, can_fuse_shuffle
from ..bindings import Bindings, constant, operator, shape_of
from ..values import Pending, Place, fresh
from ..views import View
from .chain import Chain, chain_at, other_operand
from .match import Match
from .shuffle import shuffle_groups_of

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.nn.conv2d",)


@dataclass
class PointwiseChain(Chain):
    """``residual`` is the variable added before the ReLU."""

    residual: relax.Var | None = None
    shuffle_groups: int = 1

    @property
    def fits(self) -> bool:
        return self.weight.shape[2:] == (1, 1) and self.stride == (1, 1) and not any(self.padding)

    @property
    def summed(self) -> bool:
        return super().summed or self.residual is not None or self.shuffle_groups > 1

    def extend(self, bindings: Bindings, reader: relax.Var) -> bool:
        value = bindings.values[reader]
        if super().extend(bindings, reader):
            return True
        if operator(value) == "relax.add":
            return not self.summed and self._extend_by_residual(reader, value)
        if operator(value) == "relax.reshape" and self.residual is None and self.shuffle_groups == 1:
            found = shuffle_groups_of(bindings, reader)
            if found is not None and can_fuse_shuffle(self.groups, found[0]):
                return self.take(found[1], shuffle_groups=found[0])
        return False

    def _extend_by_residual(self, reader: relax.Var, add: relax.Call) -> bool:
        other = other_operand(add, self.last)
        if other is None or constant(other) is not None:
            return False
        if shape_of(other) != shape_of(self.last) or shape_of(reader) != shape_of(other):
            return False
        return self.take([reader], residual=other)


def find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Match | None:
    chain = chain_at(PointwiseChain, bindings, var, claimed)
    return None if chain is None else chain.match(_emit)


def _emit(fuser: Fuser, chain: PointwiseChain) -> View | Pending:
    channels = len(chain.bias)
    if chain.residual is None and fuser.concatenated(chain.last):
        return Pending(channels, lambda place: _write(fuser, chain, place))
    return _write(fuser, chain, fresh(channels))


def _write(fuser: Fuser, chain: PointwiseChain, place: Place) -> View:
    data, weight, gather = fuser.view(chain.data), chain.weight, None
    if data.permuted and chain.groups == 1:
        weight = weight[:, np.argsort(data.planes)]  # the planes in order: the permutation goes into the weight
    elif data.planes != tuple(range(len(data.planes))):
        gather = np.array(data.planes, INDEX)
    addend, place = _addend(fuser, chain, place)
    fuser.read(chain.data)
    batch, planes, height, width = data.storage.shape
    kernel = fuser.laid_out(
        Pointwise(
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
            precision=chain.precision,
        )
    )
    arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
    arguments += [relax.const(gather)] if gather is not None else []
    arguments += [addend.storage.var] if addend is not None else []
    return fuser.emit(kernel, data, arguments, place, kernel.relu)


def _addend(fuser: Fuser, chain: PointwiseChain, place: Place) -> tuple[View | None, Place]:
    """The addend, and where the sum is written: over the addend, where that is no longer needed."""
    if chain.residual is None:
        return None, place
    addend = fuser.whole(fuser.view(chain.residual))
    fuser.read(chain.residual)
    # The data is read until the last of the result is written, so it counts as awaited here.
    if fuser.live(addend.storage).isdisjoint(addend.planes):
        place = replace(place, storage=addend.storage)
    return addend, place
