"""Multiply-adds and parameters of a network, counted on its Relax graph."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import tvm
from tvm import relax

from .bindings import leaves, operator

CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")


@dataclass(frozen=True)
class OperatorComplexity:
    """One multiplying operator of the graph: its name in Relax, and the shape of what it makes."""

    name: str
    output_shape: tuple[int, ...]
    multiply_adds: int


@dataclass(frozen=True)
class Complexity:
    """What the papers call complexity: multiply-adds of convolutions and matrix products, one inference of the batch.

    ``parameters`` are the numbers in weights and biases after batch norms are folded into them, so fewer than a
    framework counts before.
    """

    operators: tuple[OperatorComplexity, ...]
    parameters: int

    @property
    def multiply_adds(self) -> int:
        return sum(each.multiply_adds for each in self.operators)

    def by_operator(self) -> dict[str, int]:
        """Multiply-adds by operator name, the largest first."""
        totals = Counter()
        for each in self.operators:
            totals[each.name] += each.multiply_adds
        return dict(totals.most_common())


def count(module: tvm.IRModule) -> Complexity:
    """Complexity of ``main`` of a Relax module with known shapes, whose weights are constants.

    It need not be folded further: an operator of constants alone is one constant of its output's size, which is what
    FoldConstant would make of it, and its multiplications are not part of an inference.
    """
    operators = []
    parameters: dict[relax.Expr, int] = {}  # by object, so that a weight of two layers counts once
    constant: set[relax.Var] = set()
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            operands = leaves(value)
            known = [operand for operand in operands if _is_constant(operand, constant)]
            if operands and len(known) == len(operands):
                constant.add(binding.var)
                continue
            parameters |= {operand: _size(operand) for operand in known if _shape(operand)}
            macs = _multiply_adds(value)
            if macs is not None:
                operators.append(OperatorComplexity(operator(value), _shape(value), macs))
    return Complexity(tuple(operators), sum(parameters.values()))


def _is_constant(operand: relax.Expr, constant: set[relax.Var]) -> bool:
    return isinstance(operand, tvm.ir.GenericConst) or operand in constant


def _shape(expr: relax.Expr) -> tuple[int, ...]:
    return tuple(int(dim) for dim in expr.ty.shape)


def _size(expr: relax.Expr) -> int:
    return math.prod(_shape(expr))


def _multiply_adds(value: relax.Expr) -> int | None:
    """Multiply-adds of an operator that the papers count; None for any other."""
    name = operator(value)
    if name in CONVOLUTIONS:
        weight = value.args[1]
        return _size(value) * (_size(weight) // _shape(weight)[value.attrs.kernel_layout.index("O")])
    if name in TRANSPOSED:
        weight = value.args[1]
        return _size(value.args[0]) * (_size(weight) // _shape(weight)[value.attrs.kernel_layout.index("I")])
    if name == "relax.matmul":
        return _size(value) * _shape(value.args[0])[-1]
    return None
