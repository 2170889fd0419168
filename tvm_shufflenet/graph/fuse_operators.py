"""Pass: convolutions with what follows them become the fused operators of ``tvm_shufflenet.operators``."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, tirx
from tvm.relax.dpl.pattern import is_const, is_op, wildcard
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.transform import FuseOpsByPattern, PatternCheckContext

from ..operators.depthwise import depthwise
from ..operators.pointwise import can_fuse_shuffle, pointwise

PREFIX = "tvm_shufflenet."
# FuseOps must not wrap these again: they are complete, and their schedules rely on their structure.
OPAQUE = 8


@dataclass(frozen=True)
class Epilogue:
    """What follows the convolution in one pattern, and so the order of the composite function's operations."""

    residual: bool = False
    relu: bool = False
    shuffle: bool = False

    @property
    def name(self) -> str:
        return "_".join(["conv"] + [part for part in ("residual", "relu", "shuffle") if getattr(self, part)])

    def pattern(self, residual_first: bool):
        conv, bias = is_op("relax.nn.conv2d")(wildcard(), is_const()), is_const()
        root = is_op("relax.add")(conv, bias)
        annotations = {"conv": conv, "bias": bias}
        if self.residual:
            other = wildcard()
            root = is_op("relax.add")(other, root) if residual_first else is_op("relax.add")(root, other)
            annotations["sum"] = root
        if self.relu:
            root = is_op("relax.nn.relu")(root)
        if self.shuffle:
            split = is_op("relax.reshape")(root, wildcard())
            swapped = is_op("relax.permute_dims")(split)
            root = is_op("relax.reshape")(swapped, wildcard())
            annotations |= {"split": split, "swapped": swapped, "merged": root}
        return root, annotations


# Longest first: the first pattern that matches takes the convolution.
EPILOGUES = (
    Epilogue(residual=True, relu=True),
    Epilogue(residual=True),
    Epilogue(relu=True, shuffle=True),
    Epilogue(shuffle=True),
    Epilogue(relu=True),
    Epilogue(),
)


def _shape(expr: relax.Expr) -> list[int] | None:
    shape = getattr(expr.ty, "shape", None)
    if shape is None or not all(isinstance(dim, tirx.IntImm) for dim in shape):
        return None
    return [int(dim) for dim in shape]


def shuffle_groups_of(split: relax.Call, swapped: relax.Call, merged: relax.Call) -> int | None:
    """Groups of a channel shuffle spelled reshape, permute, reshape; None where the three are something else."""
    source, grouped = _shape(split.args[0]), _shape(split)
    if source is None or grouped is None or len(source) != 4 or len(grouped) != 5:
        return None
    batch, channels, height, width = source
    groups = grouped[1]
    if grouped != [batch, groups, channels // groups, height, width]:
        return None
    if [int(axis) for axis in swapped.attrs.axes] != [0, 2, 1, 3, 4] or _shape(merged) != source:
        return None
    return groups


def _kind(conv: relax.Call) -> str | None:
    """``pointwise``, ``depthwise``, or None for a convolution that neither operator computes."""
    data, weight, attrs = _shape(conv.args[0]), _shape(conv.args[1]), conv.attrs
    plain = attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW" and attrs.out_layout == "NCHW"
    if data is None or weight is None or not plain or any(int(d) != 1 for d in attrs.dilation):
        return None
    if str(conv.args[0].ty.dtype) != "float32":
        return None
    unit_stride = all(int(s) == 1 for s in attrs.strides)
    if weight[2:] == [1, 1] and unit_stride and not any(int(p) for p in attrs.padding):
        return "pointwise"
    if weight[1] == 1 and weight[0] == data[1] == attrs.groups:
        return "depthwise"
    return None


def _used_elsewhere(context: PatternCheckContext) -> bool:
    """Whether a value inside the pattern has a second reader: fused, it would exist no more."""
    parts = context.annotated_expr
    if "sum" in parts and parts["sum"].args[0].same_as(parts["sum"].args[1]):
        return True
    inner = [var for var, value in context.matched_bindings.items() if not value.same_as(context.matched_expr)]
    return any(len(context.var_usages[var]) > 1 for var in inner)


def _check(epilogue: Epilogue):
    def check(context: PatternCheckContext) -> bool:
        parts = context.annotated_expr
        conv = parts["conv"]
        kind = _kind(conv)
        if kind is None or (kind == "depthwise" and (epilogue.residual or epilogue.shuffle)):
            return False
        if _used_elsewhere(context):
            return False
        if _shape(parts["bias"]) != [1, _shape(conv.args[1])[0], 1, 1]:
            return False
        if epilogue.residual and any(_shape(operand) != _shape(conv) for operand in parts["sum"].args):
            return False
        if epilogue.shuffle:
            shuffle_groups = shuffle_groups_of(parts["split"], parts["swapped"], parts["merged"])
            return shuffle_groups is not None and can_fuse_shuffle(int(conv.attrs.groups), shuffle_groups)
        return True

    return check


def _patterns():
    for epilogue in EPILOGUES:
        for residual_first in (False, True) if epilogue.residual else (False,):
            yield (PREFIX + epilogue.name, *epilogue.pattern(residual_first), _check(epilogue))


@mutator
class _Lower(PyExprMutator):
    """Each call of a composite function becomes a call_tir of the fused operator it stands for."""

    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.mod = mod

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not isinstance(call.op, tvm.ir.GlobalVar):
            return call
        composite = self.mod[call.op]
        if not isinstance(composite, relax.Function) or not composite.attrs or "Composite" not in composite.attrs:
            return call
        return self._lower(composite, call)

    def _lower(self, composite: relax.Function, call: relax.Call) -> relax.Expr:
        bindings = {b.var: b.value for block in composite.body.blocks for b in block.bindings}
        bound = dict(zip(composite.params, call.args, strict=True))
        values = list(bindings.values())
        named = {}
        for value in values:
            named.setdefault(value.op.name, []).append(value)
        conv = named["relax.nn.conv2d"][0]
        biased = named["relax.add"][0]
        operands = [bound[conv.args[0]], bound[conv.args[1]], bound[biased.args[1]]]
        data_shape, weight_shape = tuple(_shape(conv.args[0])), _shape(conv.args[1])
        relu = "relax.nn.relu" in named
        if _kind(conv) == "depthwise":
            stride = tuple(int(s) for s in conv.attrs.strides)
            padding = tuple(int(p) for p in conv.attrs.padding)
            function = depthwise(data_shape, tuple(weight_shape[2:]), stride=stride, padding=padding, relu=relu)
            return self._emit("depthwise", function, operands, call)
        for add in named["relax.add"][1:]:
            operands.append(bound[next(arg for arg in add.args if arg in bound)])
        shuffle = 1
        if "relax.permute_dims" in named:
            split, merged = named["relax.reshape"]
            shuffle = shuffle_groups_of(split, named["relax.permute_dims"][0], merged)
        function = pointwise(
            data_shape,
            weight_shape[0],
            groups=int(conv.attrs.groups),
            relu=relu,
            residual=len(operands) == 4,
            shuffle_groups=shuffle,
        )
        return self._emit("pointwise", function, operands, call)

    def _emit(self, name: str, function: tirx.PrimFunc, operands: list[relax.Expr], call: relax.Call) -> relax.Expr:
        # Operand 1 is the weight: a schedule may choose its layout, since it is packed when the library is compiled.
        attributes = {"op_pattern": OPAQUE, "layout_free_buffers": [1], "tirx.noalias": True}
        variable = self.builder_.add_func(function.with_attr(attributes).without_attr("global_symbol"), name)
        return relax.call_tir(variable, operands, call.ty)


@tvm.transform.module_pass(opt_level=0, name="FuseOperators")
class FuseOperators:
    """Convolution + bias [+ residual] [+ ReLU] [+ shuffle] -> one call_tir of ``pointwise`` or ``depthwise``.

    Runs after batch norms are folded and before LegalizeOps. A convolution it does not know is left alone.
    """

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        mod = FuseOpsByPattern(list(_patterns()), bind_constants=False)(mod)
        lower = _Lower(mod)
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and not (function.attrs and "Composite" in function.attrs):
                lower.builder_.update_func(name, lower.visit_expr(function))
        return relax.transform.DeadCodeElimination()(lower.builder_.get())
