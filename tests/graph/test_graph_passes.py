"""Folding, legalizing and cleaning a graph, before and after, and what each pass leaves alone.

FuseOperators, CanonicalizeShuffles and FoldEmpty have files of their own.
"""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from helpers.networks import tidy
from tvm_shufflenet.graph.passes.fold_batch_norm import FoldBatchNorm
from tvm_shufflenet.graph.passes.fold_empty import LoadEmpty
from tvm_shufflenet.graph.passes.legalize import legalize
from tvm_shufflenet.graph.pipeline import DropRuleHints

WEIGHT = np.arange(1, 5, dtype=np.float32).reshape(2, 2, 1, 1)
GAMMA, BETA, MEAN, VARIANCE = (np.array(each, np.float32) for each in ([2, 4], [1, -1], [3, 5], [3, 15]))
# Gamma over the root of variance and epsilon is one for both channels.
SHIFT = (BETA - MEAN).reshape(1, 2, 1, 1)
NOTHING = np.zeros((1, 0, 2, 2), np.float32)


@I.ir_module
class Normalised:
    """A convolution and the batch norm behind it."""

    @R.function
    def main(x: R.Tensor((1, 2, 4, 4), "float32")) -> R.Tensor((1, 2, 4, 4), "float32"):
        with R.dataflow():
            product = R.nn.conv2d(x, R.const(WEIGHT))
            norm = R.nn.batch_norm(
                product, R.const(GAMMA), R.const(BETA), R.const(MEAN), R.const(VARIANCE), axis=1, epsilon=1.0
            )
            y = norm[0]
            R.output(y)
        return y


@I.ir_module
class NormalisedAfter:
    @R.function
    def main(x: R.Tensor((1, 2, 4, 4), "float32")) -> R.Tensor((1, 2, 4, 4), "float32"):
        with R.dataflow():
            product = R.nn.conv2d(x, R.const(WEIGHT))
            y = R.add(product, R.const(SHIFT))
            R.output(y)
        return y


@I.ir_module
class NormalisedAlone:
    """There is no convolution to take the batch norm."""

    @R.function
    def main(x: R.Tensor((1, 2, 4, 4), "float32")) -> R.Tensor((1, 2, 4, 4), "float32"):
        with R.dataflow():
            positive = R.nn.relu(x)
            norm = R.nn.batch_norm(positive, R.const(GAMMA), R.const(BETA), R.const(MEAN), R.const(VARIANCE), axis=1)
            y = norm[0]
            R.output(y)
        return y


@I.ir_module
class Clipped:
    """The upper bound is applied last: it wins where the two cross, as in PyTorch."""

    @R.function
    def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            y = R.clip(x, 0, 6)
            R.output(y)
        return y


@I.ir_module
class ClippedAfter:
    @T.prim_func(private=True, s_tir=True)
    def clip(x: T.Buffer((T.int64(2), T.int64(3)), "float32"), clip: T.Buffer((T.int64(2), T.int64(3)), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i0, i1 in T.grid(T.int64(2), T.int64(3)):
            with T.sblock("clip"):
                v_i0, v_i1 = T.axis.remap("SS", [i0, i1])
                clip[v_i0, v_i1] = T.min(T.max(x[v_i0, v_i1], T.float32(0)), T.float32(6))

    @R.function
    def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            y = R.call_tir(ClippedAfter.clip, (x,), out_ty=R.Tensor((2, 3), "float32"))
            R.output(y)
        return y


@I.ir_module
class Hinted:
    @T.prim_func(s_tir=True)
    def pool(data: T.Buffer((4,), "float32"), result: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("adaptive_pool"):
                at = T.axis.spatial(4, i)
                T.sblock_attr({"schedule_rule": "meta_schedule.adaptive_pool_avg"})
                result[at] = data[at]


@I.ir_module
class HintedAfter:
    @T.prim_func(s_tir=True)
    def pool(data: T.Buffer((4,), "float32"), result: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("adaptive_pool"):
                at = T.axis.spatial(4, i)
                result[at] = data[at]


@I.ir_module
class OtherwiseAnnotated:
    """An annotation that is no hint."""

    @T.prim_func(s_tir=True)
    def pool(data: T.Buffer((4,), "float32"), result: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("adaptive_pool"):
                at = T.axis.spatial(4, i)
                T.sblock_attr({"meta_schedule.tiling_structure": "SSRSRS"})
                result[at] = data[at]


@I.ir_module
class Nothing:
    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 0, 2, 2), "float32"):
        with R.dataflow():
            y = R.const(NOTHING)
            R.output(y)
        return y


@I.ir_module
class NothingAfter:
    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 0, 2, 2), "float32"):
        with R.dataflow():
            y = R.memory.view(R.const(NOTHING.reshape(-1)), R.shape([1, 0, 2, 2]), R.dtype("float32"))
            R.output(y)
        return y


PASSES = {
    "FoldBatchNorm": (FoldBatchNorm, Normalised, NormalisedAfter, NormalisedAlone),
    "legalize": (legalize, Clipped, ClippedAfter, ClippedAfter),
    "DropRuleHints": (DropRuleHints, Hinted, HintedAfter, OtherwiseAnnotated),
    "LoadEmpty": (LoadEmpty, Nothing, NothingAfter, Clipped),
}


@pytest.mark.parametrize("name", PASSES)
def test_before_and_after(name):
    make, before, after, left = PASSES[name]
    tvm.ir.assert_structural_equal(tidy(make()(before)), tidy(after))
    tvm.ir.assert_structural_equal(tidy(make()(left)), tidy(left))
