"""The passes over lowered operators, before and after, and what each leaves alone."""

from __future__ import annotations

import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_shufflenet.library.alternate import AlternateTraversal, RunBackwards
from tvm_shufflenet.library.keep_nan import KeepNaN
from tvm_shufflenet.library.lowering import TilesOnStack


@I.ir_module
class Extremes:
    """A maximum with a constant, and a minimum of two tensors."""

    @T.prim_func
    def main(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32"), c: T.Buffer((4,), "float32")):
        for i in range(4):
            b[i] = T.max(a[i], T.float32(0))
            c[i] = T.min(a[i], b[i])


@I.ir_module
class ExtremesAfter:
    @T.prim_func
    def main(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32"), c: T.Buffer((4,), "float32")):
        for i in range(4):
            b[i] = T.max(T.float32(0), a[i])
            c[i] = T.Select(T.isnan(a[i]), a[i], T.min(a[i], b[i]))


@I.ir_module
class WholeNumbers:
    """No whole number is a NaN."""

    @T.prim_func
    def main(a: T.Buffer((4,), "int32"), b: T.Buffer((4,), "int32")):
        for i in range(4):
            b[i] = T.max(a[i], 0)


@I.ir_module
class Tile:
    @T.prim_func
    def main(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
        tile = T.alloc_buffer((4,), "float32", scope="local")
        for i in range(4):
            tile[i] = a[i]
        for i in range(4):
            b[i] = tile[3 - i]


@I.ir_module
class TileAfter:
    @T.prim_func
    def main(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
        tile = T.alloc_buffer((4,), "float32", scope="local", annotations={"disable_lower_builtin": True})
        for i in range(4):
            tile[i] = a[i]
        for i in range(4):
            b[i] = tile[3 - i]


@I.ir_module
class LargeTile:
    """More than a stack should hold."""

    @T.prim_func
    def main(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
        tile = T.alloc_buffer((4096,), "float32", scope="local")
        for i in range(4):
            tile[i] = a[i]
        for i in range(4):
            b[i] = tile[3 - i]


@I.ir_module
class Marked:
    @T.prim_func
    def main(a: T.Buffer((11,), "int32")):
        T.func_attr({"traversal_threads": 1})
        for place_backwards in range(11):
            a[place_backwards] = place_backwards


@I.ir_module
class MarkedAfter:
    @T.prim_func
    def main(a: T.Buffer((11,), "int32")):
        T.func_attr({"traversal_threads": 1})
        for step in range(11):
            place: T.let[T.int32] = 10 - step
            a[place] = place


@I.ir_module
class Unmarked:
    @T.prim_func
    def main(a: T.Buffer((11,), "int32")):
        T.func_attr({"traversal_threads": 1})
        for place in range(11):
            a[place] = place


PASSES = {
    "KeepNaN": (KeepNaN, Extremes, ExtremesAfter, WholeNumbers),
    "TilesOnStack": (TilesOnStack, Tile, TileAfter, LargeTile),
    "RunBackwards": (RunBackwards, Marked, MarkedAfter, Unmarked),
}


@pytest.mark.parametrize("name", PASSES)
def test_before_and_after(name):
    make, before, after, left = PASSES[name]
    tvm.ir.assert_structural_equal(make()(before), after)
    tvm.ir.assert_structural_equal(make()(left), left)


@I.ir_module
class Neighbours:
    """The second operator reads what the first has written."""

    @T.prim_func(s_tir=True)
    def first(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
        for place in range(8):
            with T.sblock("copy"):
                i = T.axis.spatial(8, place)
                b[i] = a[i]

    @T.prim_func(s_tir=True)
    def second(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
        for place in range(8):
            with T.sblock("negate"):
                i = T.axis.spatial(8, place)
                b[i] = T.float32(0) - a[i]

    @R.function
    def main(x: R.Tensor((8,), "float32")) -> R.Tensor((8,), "float32"):
        with R.dataflow():
            y = R.call_tir(Neighbours.first, (x,), out_ty=R.Tensor((8,), "float32"))
            z = R.call_tir(Neighbours.second, (y,), out_ty=R.Tensor((8,), "float32"))
            R.output(z)
        return z


@I.ir_module
class Alone:
    """Nothing comes before the first operator that it could meet halfway."""

    @T.prim_func(s_tir=True)
    def only(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
        for place in range(8):
            with T.sblock("copy"):
                i = T.axis.spatial(8, place)
                b[i] = a[i]

    @R.function
    def main(x: R.Tensor((8,), "float32")) -> R.Tensor((8,), "float32"):
        with R.dataflow():
            y = R.call_tir(Alone.only, (x,), out_ty=R.Tensor((8,), "float32"))
            R.output(y)
        return y


def test_alternate_traversal_marks_the_second_of_two_neighbours():
    """The mark is the name of a loop's variable, which a structural comparison does not see."""
    after = AlternateTraversal(2)(Neighbours)
    tvm.ir.assert_structural_equal(after["first"], Neighbours["first"])
    tvm.ir.assert_structural_equal(after["second"], Neighbours["second"].with_attr("traversal_threads", 2))
    assert "place_backwards" in after["second"].script() and "place_backwards" not in after["first"].script()


def test_alternate_traversal_leaves_a_first_operator_alone():
    after = AlternateTraversal()(Alone)
    tvm.ir.assert_structural_equal(after, Alone)
    assert "backwards" not in after.script()
