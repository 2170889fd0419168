"""Pass: folds a batch norm with constant statistics into the weights and bias of the preceding convolution.

TVM's FoldBatchnormToConv2D leaves the arithmetic to FoldConstant, which compiles each of hundreds of small constant
expressions: ten seconds for one network. Here it is NumPy's, in float64.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..bindings import constant, operator, shape_of


def _constants(expressions: list[relax.Expr]) -> list[np.ndarray] | None:
    """The values of ``expressions`` in float64, None where one of them is no constant."""
    values = [constant(expr) for expr in expressions]
    return None if any(value is None for value in values) else [value.astype(np.float64) for value in values]


def is_bias(shape: tuple[int, ...] | None, channels: int) -> bool:
    """Whether a tensor of ``shape`` added to (N, channels, H, W) adds one number to each channel."""
    return shape in ((1, channels, 1, 1), (channels, 1, 1))


@mutator
class _Fold(PyExprMutator):
    """The normalised tensor is item 0 of what ``batch_norm`` returns, so that is where a fold begins."""

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        item = self.visit_expr_post_order(item)
        norm = self._bound(item.tuple_value)
        if int(item.index) != 0 or operator(norm) != "relax.nn.batch_norm":
            return item
        conv, bias = self._convolution(self._bound(norm.args[0]))
        folded = None if conv is None else self._folded(conv, bias, norm)
        return item if folded is None else folded

    def _convolution(self, expr: relax.Expr) -> tuple[relax.Call | None, np.ndarray | float]:
        """The convolution that ``expr`` is, and its bias: the importer adds that as a constant, perhaps reshaped."""
        if operator(expr) == "relax.nn.conv2d":
            return expr, 0.0
        if operator(expr) != "relax.add":
            return None, 0.0
        conv, addend = (self._bound(operand) for operand in expr.args)
        shape = shape_of(expr.args[1])
        if operator(addend) == "relax.reshape":
            addend = self._bound(addend.args[0])
        values = _constants([addend])
        if operator(conv) != "relax.nn.conv2d" or values is None or not is_bias(shape, int(conv.args[1].ty.shape[0])):
            return None, 0.0
        return conv, values[0].reshape(-1)

    def _bound(self, expr: relax.Expr) -> relax.Expr | None:
        return self.lookup_binding(expr) if isinstance(expr, relax.Var) else expr

    def _folded(self, conv: relax.Call, bias: np.ndarray | float, norm: relax.Call) -> relax.Expr | None:
        values = _constants([conv.args[1], *norm.args[1:5]])
        plain = conv.attrs.kernel_layout == "OIHW" and conv.attrs.out_layout == "NCHW" and int(norm.attrs.axis) == 1
        if values is None or not plain or not (norm.attrs.scale and norm.attrs.center):
            return None
        weight, gamma, beta, mean, variance = values
        factor = gamma / np.sqrt(variance + float(norm.attrs.epsilon))
        dtype = constant(conv.args[1]).dtype
        folded = relax.const((weight * factor[:, None, None, None]).astype(dtype))
        shift = relax.const((beta + (bias - mean) * factor)[None, :, None, None].astype(dtype))
        scaled = self.builder_.emit(relax.Call(conv.op, [conv.args[0], folded], conv.attrs))
        return relax.op.add(scaled, shift)


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """conv2d [+ bias] + batch_norm -> conv2d with other weights + add. Other batch norms are left as they are."""

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        fold = _Fold(mod)
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function):
                fold.builder_.update_func(name, fold.visit_expr(function))
        return relax.transform.DeadCodeElimination()(fold.builder_.get())
