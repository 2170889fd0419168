"""CanonicalizeShuffles, before and after; tests/graph/test_shuffle_spellings.py has every spelling in PyTorch."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_shufflenet.graph.passes.canonicalize_shuffles import CanonicalizeShuffles


@I.ir_module
class FlatPlanes:
    """Three groups of two channels, over planes that were flattened."""

    @R.function
    def main(x: R.Tensor((1, 6, 2, 3), "float32")) -> R.Tensor((1, 6, 2, 3), "float32"):
        with R.dataflow():
            split = R.reshape(x, (3, 2, 6))
            swapped = R.permute_dims(split, axes=[1, 0, 2])
            y = R.reshape(swapped, (1, 6, 2, 3))
            R.output(y)
        return y


@I.ir_module
class Canonical:
    @R.function
    def main(x: R.Tensor((1, 6, 2, 3), "float32")) -> R.Tensor((1, 6, 2, 3), "float32"):
        with R.dataflow():
            split = R.reshape(x, (1, 3, 2, 2, 3))
            swapped = R.permute_dims(split, axes=[0, 2, 1, 3, 4])
            y = R.reshape(swapped, (1, 6, 2, 3))
            R.output(y)
        return y


@I.ir_module
class RowsSwapped:
    """Rows and columns change places: no channel does."""

    @R.function
    def main(x: R.Tensor((1, 6, 2, 3), "float32")) -> R.Tensor((1, 6, 3, 2), "float32"):
        with R.dataflow():
            y = R.permute_dims(x, axes=[0, 1, 3, 2])
            R.output(y)
        return y


def live(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.relax.transform.DeadCodeElimination()(module)


def test_a_shuffle_over_flat_planes_gets_the_one_spelling():
    tvm.ir.assert_structural_equal(live(CanonicalizeShuffles()(FlatPlanes)), Canonical)


def test_the_one_spelling_stays():
    tvm.ir.assert_structural_equal(live(CanonicalizeShuffles()(Canonical)), Canonical)


def test_a_permutation_of_rows_and_columns_is_left_alone():
    tvm.ir.assert_structural_equal(CanonicalizeShuffles()(RowsSwapped), RowsSwapped)
