"""ConvertPrecision, before and after, and what stays float32."""

from __future__ import annotations

import numpy as np
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from helpers.networks import calls, run, tidy
from tvm_shufflenet.graph.passes.convert_precision import ConvertPrecision
from tvm_shufflenet.graph.pipeline import fuse
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.precision import FLOAT16, FLOAT32

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 1, 1), dtype=np.float32)
BIAS = np.random.default_rng(1).standard_normal((1, 4, 1, 1), dtype=np.float32)
MATRIX = np.random.default_rng(2).standard_normal((4, 5), dtype=np.float32)
HALF_WEIGHT, HALF_BIAS, HALF_MATRIX = (each.astype(np.float16) for each in (WEIGHT, BIAS, MATRIX))


@I.ir_module
class Before:
    """A convolution with its bias and ReLU, a sigmoid, and a fully connected layer on the means."""

    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "float32")) -> R.Tensor((1, 5), "float32"):
        with R.dataflow():
            product = R.nn.conv2d(x, R.const(WEIGHT))
            biased = R.add(product, R.const(BIAS))
            positive = R.nn.relu(biased)
            gate = R.sigmoid(positive)
            features = R.mean(gate, axis=[2, 3])
            y = R.matmul(features, R.const(MATRIX))
            R.output(y)
        return y


@I.ir_module
class After:
    """The sigmoid, and the means of what it returns, are float32."""

    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "float32")) -> R.Tensor((1, 5), "float32"):
        with R.dataflow():
            half = R.astype(x, "float16")
            product = R.nn.conv2d(half, R.const(HALF_WEIGHT, "float16"), out_dtype="float16")
            biased = R.add(product, R.const(HALF_BIAS, "float16"))
            positive = R.nn.relu(biased)
            single = R.astype(positive, "float32")
            gate = R.sigmoid(single)
            features = R.mean(gate, axis=[2, 3])
            narrow = R.astype(features, "float16")
            y = R.matmul(narrow, R.const(HALF_MATRIX, "float16"), out_dtype="float32")
            R.output(y)
        return y


@I.ir_module
class WholeNumbers:
    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "int32")) -> R.Tensor((1, 3, 16), "int32"):
        with R.dataflow():
            doubled = R.add(x, x)
            y = R.reshape(doubled, (1, 3, 16))
            R.output(y)
        return y


@I.ir_module
class Copied:
    """Nothing is computed between the input and the output: neither is rounded."""

    @R.function
    def main(x: R.Tensor((1, 3, 4, 4), "float32")) -> R.Tensor((1, 48), "float32"):
        with R.dataflow():
            positive = R.nn.relu(x)
            y = R.reshape(positive, (1, 48))
            R.output(y)
        return y


def converted(module: tvm.IRModule, precision) -> tvm.IRModule:
    return tidy(ConvertPrecision(precision)(module))


def test_convolutions_and_what_follows_them_are_converted():
    tvm.ir.assert_structural_equal(converted(Before, FLOAT16), tidy(After))


def test_what_multiplies_nothing_is_left_alone():
    for module in (WholeNumbers, Copied):
        tvm.ir.assert_structural_equal(converted(module, FLOAT16), tidy(module))


def test_float32_is_left_alone():
    tvm.ir.assert_structural_equal(converted(Before, FLOAT32), tidy(Before))


def test_the_cast_of_the_input_goes_into_a_convolution_that_pads():
    """A 1x1 convolution has no padding to convert in: its cast stays an operator of its own."""
    window = np.random.default_rng(3).standard_normal((4, 3, 3, 3), dtype=np.float32)

    @I.ir_module
    class Stem:
        @R.function
        def main(x: R.Tensor((1, 3, 9, 9), "float32")) -> R.Tensor((1, 4, 9, 9), "float32"):
            with R.dataflow():
                y = R.nn.conv2d(x, R.const(window), padding=(1, 1))
                R.output(y)
            return y

    target = find_target("cortex-a76")
    assert calls(fuse(Stem, target, FLOAT16).module) == ["convolution", "cast"]
    assert calls(fuse(Before, target, FLOAT16).module)[:2] == ["cast", "pointwise"]


def test_a_converted_network_computes_what_it_did():
    data = np.random.default_rng(4).standard_normal((1, 3, 4, 4), dtype=np.float32)
    target = find_target("cortex-a76")
    found, expected = (run(fuse(Before, target, precision).module, data) for precision in (FLOAT16, FLOAT32))
    assert 0 < np.abs(found - expected).max() < 4 * FLOAT16.epsilon * np.abs(expected).max()
