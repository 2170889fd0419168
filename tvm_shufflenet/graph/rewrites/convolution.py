"""Convolutions that are neither pointwise nor depthwise (those rows come first), with bias and ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import relax

from ...operators.convolution import Convolution
from ...precision import precision_of
from ..bindings import Bindings, operator
from ..values import fresh
from ..views import View
from .chain import Chain, chain_at
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser

STARTS = ("relax.nn.conv2d",)


@dataclass
class ConvolutionChain(Chain):
    """``source`` is the variable whose cast the convolution reads, where it alone reads that."""

    source: relax.Var | None = None

    @property
    def data(self) -> relax.Var:
        return super().data if self.source is None else self.source

    def take_cast(self, bindings: Bindings) -> None:
        cast = self.data
        value = bindings.values.get(cast)
        if operator(value) != "relax.astype" or bindings.sole_reader(cast) is None:
            return
        (before,) = value.args
        if isinstance(before, relax.Var) and precision_of(str(before.ty.dtype)) is not None:
            self.source = before
            self.bound.append(cast)


def find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Match | None:
    chain = chain_at(ConvolutionChain, bindings, var, claimed)
    if chain is None:
        return None
    chain.take_cast(bindings)
    return chain.match(_emit)


def _emit(fuser: Fuser, chain: ConvolutionChain) -> View:
    weight = chain.weight
    if chain.groups == 1:
        data, order = fuser.in_order(chain.data)
        weight = weight[:, order]
    else:
        data = fuser.whole(fuser.view(chain.data))
        fuser.read(chain.data)
    channels, _, *kernel_size = weight.shape
    kernel = fuser.laid_out(
        Convolution(
            *data.shape,
            channels,
            chain.groups,
            tuple(kernel_size),
            chain.stride,
            chain.padding,
            chain.relu,
            source=data.storage.dtype,
            precision=chain.precision,
        )
    )
    arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
    return fuser.emit(kernel, data, arguments, fresh(channels), chain.relu)
