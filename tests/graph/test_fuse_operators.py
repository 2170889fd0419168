"""FuseOperators, before and after, on one convolution with what follows it, and on what it must leave alone."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from helpers.networks import calls, tidy
from tvm_shufflenet.graph.passes.fuse_operators import FuseOperators
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.operators import registry
from tvm_shufflenet.operators.pointwise import Pointwise

LOCAL = find_target("local")
WEIGHT = np.random.default_rng(0).standard_normal((6, 2, 1, 1), dtype=np.float32)
BIAS = np.random.default_rng(1).standard_normal((1, 6, 1, 1), dtype=np.float32)


@I.ir_module
class Before:
    """Three groups, a bias, a ReLU, and a shuffle by three."""

    @R.function
    def main(x: R.Tensor((1, 6, 2, 3), "float32")) -> R.Tensor((1, 6, 2, 3), "float32"):
        with R.dataflow():
            product = R.nn.conv2d(x, R.const(WEIGHT), groups=3)
            biased = R.add(product, R.const(BIAS))
            positive = R.nn.relu(biased)
            split = R.reshape(positive, (1, 3, 2, 2, 3))
            swapped = R.permute_dims(split, axes=[0, 2, 1, 3, 4])
            y = R.reshape(swapped, (1, 6, 2, 3))
            R.output(y)
        return y


@I.ir_module
class Left:
    """A product of whole numbers, which no operator here computes."""

    @R.function
    def main(x: R.Tensor((1, 6, 2, 3), "int32")) -> R.Tensor((1, 6, 2, 3), "int32"):
        with R.dataflow():
            y = R.multiply(x, x)
            R.output(y)
        return y


def after() -> tvm.IRModule:
    """One call of the fused operator, with the weights as its template wants them."""
    kernel = Pointwise(1, 6, 2, 3, 6, 6, groups=3, relu=True, shuffle_groups=3)
    kernel = registry.laid_out(kernel, machine_for(LOCAL, 1))
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType((1, 6, 2, 3), "float32"))
    function = kernel.function().with_attr({"op_pattern": 8, "tirx.noalias": True}).without_attr("global_symbol")
    with builder.function("main", [data]):
        with builder.dataflow():
            callee = builder.add_func(function, "pointwise")
            arguments = [data, relax.const(kernel.pack_weight(WEIGHT)), relax.const(BIAS.reshape(-1))]
            call = relax.call_tir(callee, arguments, relax.TensorType((1, 6, 2, 3), "float32"))
            result = builder.emit_output(builder.emit(call))
        builder.emit_func_output(result)
    return builder.get()


def test_a_convolution_takes_its_bias_relu_and_shuffle():
    tvm.ir.assert_structural_equal(tidy(FuseOperators(LOCAL)(Before)), tidy(after()))
    assert calls(FuseOperators(LOCAL)(Before)) == ["pointwise"]


def test_whole_numbers_are_left_alone():
    tvm.ir.assert_structural_equal(tidy(FuseOperators(LOCAL)(Left)), tidy(Left))
