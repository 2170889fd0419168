"""Passes: replace tensors without elements by constants, and remove splits and concatenations of a single part.

A slice that takes nothing is a right answer in PyTorch. TVM divides by its extents.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..bindings import operator, shape_of


def is_empty(expr: relax.Expr) -> bool:
    """Whether ``expr`` is a tensor without elements."""
    return 0 in (shape_of(expr) or ())


@mutator
class _Fold(PyExprMutator):
    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if is_empty(binding.var):
            of_type = binding.var.ty
            nothing = relax.const(np.zeros(shape_of(binding.var), str(of_type.dtype)), str(of_type.dtype))
            binding = relax.VarBinding(binding.var, nothing)
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if operator(call) == "relax.concat" and isinstance(call.args[0], relax.Tuple):
            return self._concatenated(call)
        return self._split(call) if operator(call) == "relax.split" else call

    def _concatenated(self, call: relax.Call) -> relax.Expr:
        fields = list(call.args[0].fields)
        parts = [field for field in fields if not is_empty(field)]
        if len(parts) == 1:
            return parts[0]
        return call if len(parts) in (0, len(fields)) else relax.op.concat(parts, int(call.attrs.axis))

    def _split(self, call: relax.Call) -> relax.Expr:
        """Slices for what has parts without elements. TVM's type of a split into one part is that part's."""
        data, types = call.args[0], getattr(call.ty, "fields", None)
        if types is None:
            return data
        shapes = [_shape(each) for each in types]
        if all(shape is None or 0 not in shape for shape in shapes):
            return call
        axis = int(call.attrs.axis) % len(shape_of(data))
        cuts = [0, *np.cumsum([shape[axis] for shape in shapes]).tolist()]
        slices = [relax.op.strided_slice(data, [axis], [begin], [end]) for begin, end in pairwise(cuts)]
        return relax.Tuple([self.builder_.emit(each) for each in slices])

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        item = self.visit_expr_post_order(item)
        return item if isinstance(item.tuple_value.ty, tvm.ir.TupleType) else item.tuple_value


def _through(mutate: PyExprMutator, mod: tvm.IRModule) -> tvm.IRModule:
    for name, function in mod.functions_items():
        if isinstance(function, relax.Function):
            mutate.builder_.update_func(name, mutate.visit_expr(function))
    return mutate.builder_.get()


def _shape(of_type: relax.TensorType) -> tuple[int, ...] | None:
    return shape_of(relax.Var("part", of_type))


@tvm.transform.module_pass(opt_level=0, name="FoldEmpty")
class FoldEmpty:
    """Everything else is left alone."""

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        return _through(_Fold(mod), mod)


@mutator
class _Load(PyExprMutator):
    def visit_generic_const_(self, expr: tvm.ir.GenericConst) -> relax.Expr:
        if not is_empty(expr) or shape_of(expr) == (0,):
            return expr
        dtype = str(expr.ty.dtype)
        empty = relax.const(np.zeros(0, dtype), dtype)
        return self.builder_.emit(relax.op.memory.view(empty, shape_of(expr), dtype))


@tvm.transform.module_pass(opt_level=0, name="LoadEmpty")
class LoadEmpty:
    """Constants without elements become views of one of shape (0,): TVM's runtime writes others and cannot read them.

    Runs last: what folds constants would undo it.
    """

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        return _through(_Load(mod), mod)
