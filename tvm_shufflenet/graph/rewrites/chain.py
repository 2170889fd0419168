"""Matches a convolution with the operations that only it feeds; shared by all convolution rewrites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tvm import relax

from ...precision import Precision, precision_of
from ..bindings import Bindings, constant, operator, shape_of
from ..passes.fold_batch_norm import is_bias
from .match import Match

if TYPE_CHECKING:
    from ..fuser import Fuser
    from ..values import Value


@dataclass
class Chain:
    """A convolution with what follows it. ``last`` is the variable that holds the result, and ``bound`` all of them.

    ``weight`` is (O, I / groups, R, S), ``bias`` is (O,).
    """

    conv: relax.Call
    weight: np.ndarray
    bias: np.ndarray
    last: relax.Var
    bound: list[relax.Var]
    precision: Precision
    relu: bool = False

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
    def fits(self) -> bool:
        """Whether the operator computes this convolution."""
        return True

    @property
    def summed(self) -> bool:
        """Whether nothing more may be added."""
        return self.relu

    def extend(self, bindings: Bindings, reader: relax.Var) -> bool:
        """Take the next operation into the chain, where it can be fused."""
        value = bindings.values[reader]
        if operator(value) == "relax.nn.relu" and not self.relu:
            return self.take([reader], relu=True)
        if operator(value) != "relax.add" or self.summed:
            return False
        addend = constant(other_operand(value, self.last))
        if addend is None or not is_bias(addend.shape, len(self.bias)) or addend.dtype != self.precision.data:
            return False
        return self.take([reader], bias=self.bias + addend.reshape(-1))

    def take(self, variables: list[relax.Var], **changes) -> bool:
        for field, value in changes.items():
            setattr(self, field, value)
        self.bound += variables
        self.last = variables[-1]
        return True

    def match(self, emit: Callable[[Fuser, Chain], Value]) -> Match:
        return Match(self.last, tuple(self.bound), lambda fuser: emit(fuser, self))


C = TypeVar("C", bound=Chain)


def chain_at(kind: type[C], bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> C | None:
    """The chain that begins with the convolution bound to ``var``, None for one that is not of this kind.

    ``claimed`` are variables that other matches have taken.
    """
    conv = bindings.values[var]
    weight, precision = constant(conv.args[1]), precision_of(str(conv.ty.dtype))
    if weight is None or precision is None or not _supported(conv, precision):
        return None
    chain = kind(conv, weight, np.zeros(weight.shape[0], precision.accumulator), var, [var], precision)
    if not chain.fits:
        return None
    while (reader := bindings.sole_reader(chain.last)) is not None and reader not in claimed:
        if not chain.extend(bindings, reader):
            break
    return chain


def _supported(conv: relax.Call, precision: Precision) -> bool:
    attrs, data = conv.attrs, shape_of(conv.args[0])
    layouts = (attrs.data_layout, attrs.kernel_layout, attrs.out_layout)
    plain = layouts == ("NCHW", "OIHW", "NCHW") and all(int(d) == 1 for d in attrs.dilation)
    return plain and data is not None and str(conv.args[0].ty.dtype) == precision.data


def other_operand(add: relax.Call, known: relax.Var) -> relax.Expr | None:
    """What is added to ``known``, None where that is ``known`` itself."""
    return next((arg for arg in add.args if not arg.same_as(known)), None)
