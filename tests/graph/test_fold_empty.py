"""FoldEmpty and LoadEmpty, before and after."""

from __future__ import annotations

import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_shufflenet.graph.passes.fold_empty import FoldEmpty, LoadEmpty


@I.ir_module
class OneFullPart:
    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 4, 2, 2), "float32"):
        with R.dataflow():
            nothing = R.strided_slice(x, [1], [4], [4])
            joined = R.concat([x, nothing], axis=1)
            y = R.nn.relu(joined)
            R.output(y)
        return y


@I.ir_module
class NothingSplit:
    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 4, 2, 2), "float32"):
        with R.dataflow():
            halves = R.split(x, indices_or_sections=2, axis=1)
            first = halves[0]
            second = halves[1]
            y = R.concat([second, first], axis=1)
            R.output(y)
        return y


@I.ir_module
class OneFullPartAfter:
    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 4, 2, 2), "float32"):
        with R.dataflow():
            joined = x
            y = R.nn.relu(joined)
            R.output(y)
        return y


@I.ir_module
class NothingLeft:
    """A network whose result has no elements."""

    @R.function
    def main(x: R.Tensor((1, 4, 2, 2), "float32")) -> R.Tensor((1, 0, 2, 2), "float32"):
        with R.dataflow():
            y = R.strided_slice(x, [1], [4], [4])
            R.output(y)
        return y


def live(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.relax.transform.DeadCodeElimination()(module)


def test_a_concatenation_of_one_part_with_elements_is_that_part():
    tvm.ir.assert_structural_equal(live(FoldEmpty()(OneFullPart)), OneFullPartAfter)


def test_what_has_elements_is_left_alone():
    tvm.ir.assert_structural_equal(FoldEmpty()(NothingSplit), NothingSplit)
    tvm.ir.assert_structural_equal(LoadEmpty()(NothingSplit), NothingSplit)


def test_a_constant_without_elements_becomes_a_view_of_a_plain_one():
    loaded = LoadEmpty()(FoldEmpty()(NothingLeft))
    calls = [binding.value for block in loaded["main"].body.blocks for binding in block.bindings]
    assert any(getattr(getattr(call, "op", None), "name", "") == "relax.memory.view" for call in calls)
