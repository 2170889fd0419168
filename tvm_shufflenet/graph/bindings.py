"""A Relax function as a list of bindings, with the readers of each variable."""

from __future__ import annotations

from collections import Counter

import numpy as np
from tvm import ir, relax, tirx


def shape_of(expr: relax.Expr) -> tuple[int, ...] | None:
    """The static shape of a tensor, None where it is no tensor or not static."""
    shape = getattr(expr.ty, "shape", None)
    if shape is None or not all(isinstance(dim, tirx.IntImm) for dim in getattr(shape, "values", shape)):
        return None
    return tuple(int(dim) for dim in shape)


def operator(expr: relax.Expr | None) -> str | None:
    """The name of the operator that ``expr`` calls, such as ``relax.nn.conv2d``; None where it calls none."""
    return expr.op.name if isinstance(expr, relax.Call) and hasattr(expr.op, "name") else None


def constant(expr: relax.Expr | None) -> np.ndarray | None:
    """The value of a constant, None for anything else."""
    return expr.value.numpy() if isinstance(expr, ir.GenericConst) and hasattr(expr.value, "numpy") else None


def leaves(expr: relax.Expr) -> list[relax.Var | ir.GenericConst]:
    """The variables and constants that ``expr`` is made of, as often as they stand in it."""
    if isinstance(expr, relax.Var | ir.GenericConst):
        return [expr]
    if isinstance(expr, relax.Call):
        return [leaf for arg in expr.args for leaf in leaves(arg)]
    if isinstance(expr, relax.Tuple):
        return [leaf for field in expr.fields for leaf in leaves(field)]
    return leaves(expr.tuple_value) if isinstance(expr, relax.TupleGetItem) else []


def operands(expr: relax.Expr) -> list[relax.Var]:
    """The variables that ``expr`` reads, as often as it reads them."""
    return [leaf for leaf in leaves(expr) if isinstance(leaf, relax.Var)]


def substitute(expr: relax.Expr, value_of) -> relax.Expr:
    """``expr`` with each variable replaced by ``value_of(variable)``."""
    if isinstance(expr, relax.Var):
        return value_of(expr)
    if isinstance(expr, relax.Call):
        arguments = [substitute(arg, value_of) for arg in expr.args]
        return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([substitute(field, value_of) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(expr.tuple_value, value_of), int(expr.index))
    return expr


class Bindings:
    """The bindings of ``function`` in order. Only straight-line code has them: see ``straight``."""

    def __init__(self, function: relax.Function):
        self.function = function
        self.list = [binding for block in function.body.blocks for binding in block.bindings]
        self.values = {binding.var: binding.value for binding in self.list}
        self.reads = Counter(var for binding in self.list for var in operands(binding.value))
        self.reads.update(operands(function.body.body))
        self._reader = {var: binding.var for binding in self.list for var in operands(binding.value)}

    @property
    def straight(self) -> bool:
        """Whether there is nothing but variables bound to calls, tuples and their items."""
        plain = (relax.Var, relax.Call, relax.Tuple, relax.TupleGetItem, relax.ShapeExpr, ir.GenericConst)
        return all(isinstance(b, relax.VarBinding) and isinstance(b.value, plain) for b in self.list)

    def sole_reader(self, var: relax.Var) -> relax.Var | None:
        """The variable bound to the only expression that reads ``var``, and reads it once."""
        return self._reader.get(var) if self.reads[var] == 1 else None
