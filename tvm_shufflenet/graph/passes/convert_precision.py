"""Pass: converts a float32 network to another precision. Inputs and outputs stay float32.

Convolutions and fully connected layers are converted, weights at compile time. What only moves numbers, compares them
or adds a few follows its operands. Everything else (exponentials, divisions, long reductions of its own) stays float32
between casts. TVM's ToMixedPrecision casts before and after each operator instead, and back.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ...precision import FLOAT32, Precision
from ..bindings import Bindings, constant, leaves, operands, operator

CONVOLUTION, PRODUCT = "relax.nn.conv2d", "relax.matmul"
FOLLOWING = frozenset(
    f"relax.{name}"
    for name in (
        *("add", "concat", "expand_dims", "flatten", "mean", "nn.adaptive_avg_pool2d", "nn.avg_pool2d"),
        *("nn.max_pool2d", "nn.relu", "permute_dims", "reshape", "split", "squeeze", "strided_slice"),
    )
)


@tvm.transform.module_pass(opt_level=0, name="ConvertPrecision")
class ConvertPrecision:
    """Everything computes in ``precision`` that may; a network that does already is left alone."""

    def __init__(self, precision: Precision):
        self.precision = precision

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        result = mod.clone()
        if self.precision is FLOAT32:
            return result
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and Bindings(function).straight:
                result.update_func(name, _Conversion(function, self.precision).run(name.name_hint))
        return result


class _Conversion:
    """Rebuilds one straight-line function. ``values`` maps the old function's variables to what they have become."""

    def __init__(self, function: relax.Function, precision: Precision):
        self.function, self.precision = function, precision
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, relax.Expr] = {}
        self.casts: dict[tuple[relax.Var, str], relax.Var] = {}

    def run(self, name: str) -> relax.Function:
        parameters = [relax.Var(param.name, param.ty) for param in self.function.params]
        self.values.update(zip(self.function.params, parameters, strict=True))
        attributes = dict(self.function.attrs or {})
        with self.builder.function(name, parameters, attrs=attributes):
            with self.builder.dataflow():
                for binding in Bindings(self.function).list:
                    self.values[binding.var] = self._emitted(binding.value)
                output = self.builder.emit_output(self._with_operands(self.function.body.body, FLOAT32.data))
            self.builder.emit_func_output(output)
        return self.builder.get()[name]

    def _emitted(self, value: relax.Expr) -> relax.Expr:
        if isinstance(value, relax.Var):
            return self.values[value]
        if isinstance(value, relax.TupleGetItem):
            return self.builder.emit(relax.TupleGetItem(self.values[value.tuple_value], int(value.index)))
        return self.builder.emit(self._converted(value))

    def _converted(self, value: relax.Expr) -> relax.Expr:
        name, floats = operator(value), [leaf for leaf in leaves(value) if _is_float(leaf)]
        if name == CONVOLUTION and len(floats) == 2:
            return self._convolution(value)
        if name == PRODUCT and len(floats) == 2 and constant(value.args[1]) is not None:
            return self._product(value)
        variables = [each for each in operands(value) if _is_float(each)]
        follows = name in FOLLOWING and variables and all(map(self._is_converted, variables))
        return self._with_operands(value, self.precision.data if follows else FLOAT32.data)

    def _is_converted(self, var: relax.Var) -> bool:
        return _dtype(self.values[var]) == self.precision.data

    def _convolution(self, call: relax.Call) -> relax.Expr:
        attrs, (data, weight) = call.attrs, (self._cast(each, self.precision.data) for each in call.args)
        return relax.op.nn.conv2d(
            data,
            weight,
            [int(each) for each in attrs.strides],
            [int(each) for each in attrs.padding],
            [int(each) for each in attrs.dilation],
            int(attrs.groups),
            attrs.data_layout,
            attrs.kernel_layout,
            attrs.out_layout,
            self.precision.data,
        )

    def _product(self, call: relax.Call) -> relax.Expr:
        data, weight = (self._cast(each, self.precision.data) for each in call.args)
        return relax.op.matmul(data, weight, self.precision.total)

    def _with_operands(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """``expr`` of what its operands have become, floats as ``dtype``."""
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self._with_operands(arg, dtype) for arg in expr.args], expr.attrs, expr.ty_args)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._with_operands(field, dtype) for field in expr.fields])
        return self._cast(expr, dtype)

    def _cast(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """A variable or a constant as ``dtype``, if it is a float; else what it has become."""
        if not _is_float(expr):
            return self.values.get(expr, expr) if isinstance(expr, relax.Var) else expr
        value = constant(expr)
        if value is not None:
            return relax.const(value.astype(np.dtype(dtype)), dtype)
        now = self.values[expr]
        if _dtype(now) == dtype:
            return now
        if (now, dtype) not in self.casts:
            self.casts[now, dtype] = self.builder.emit(relax.op.astype(now, dtype))
        return self.casts[now, dtype]


def _dtype(expr: relax.Expr) -> str | None:
    """Of a tensor, or of a tuple's first."""
    found = expr.ty.fields[0] if isinstance(expr.ty, tvm.ir.TupleType) and expr.ty.fields else expr.ty
    return str(found.dtype) if isinstance(found, relax.TensorType) else None


def _is_float(expr: relax.Expr) -> bool:
    return isinstance(expr, relax.Var | tvm.ir.GenericConst) and _dtype(expr) == FLOAT32.data
