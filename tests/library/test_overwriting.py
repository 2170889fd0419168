"""The proofs that no buffer is written while a later reader needs it: literal programs, right and wrong ones."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax
from tvm.relax import transform
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_shufflenet.errors import DeployError
from tvm_shufflenet.library.overwriting import check_storages, check_writes


@T.prim_func(s_tir=True)
def double(s: T.Buffer((4, 4), "float32")):
    for i, j in T.grid(4, 4):
        with T.sblock("double"):
            m, n = T.axis.remap("SS", [i, j])
            s[m, n] = s[m, n] * T.float32(2)


def program(body) -> tvm.IRModule:
    """A network of one input (4, 4): ``body(builder, x, doubled)``, where ``doubled(v)`` doubles ``v`` in place."""
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((4, 4), "float32"))
    function = builder.add_func(double, "double")

    def doubled(value: relax.Expr) -> relax.Var:
        of_type = relax.TensorType((4, 4), "float32")
        return builder.emit(relax.op.call_tir_inplace(function, [value], 0, of_type))

    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(body(builder.emit, x, doubled))
        builder.emit_func_output(output)
    return builder.get()


def kernels(body) -> tvm.IRModule:
    with tvm.target.Target("llvm"):
        return tvm.transform.Sequential([transform.LegalizeOps(), transform.RewriteDataflowReshape()])(program(body))


def last_reader(emit, x, doubled):
    return doubled(emit(relax.op.exp(x)))


def one_after_the_other(emit, x, doubled):
    s = emit(relax.op.exp(x))
    return doubled(emit(relax.op.exp(doubled(s))))


@pytest.mark.parametrize("body", [last_reader, one_after_the_other])
def test_the_last_reader_may_overwrite_what_it_reads(body):
    check_writes(kernels(body))


def old_name(emit, x, doubled):
    s = emit(relax.op.exp(x))
    return emit(relax.op.add(doubled(s), s))


def view(emit, x, doubled):
    s = emit(relax.op.exp(x))
    t = emit(relax.op.reshape(s, (16,)))
    r = doubled(s)
    return relax.Tuple([r, emit(relax.op.exp(t))])


def view_of_a_view(emit, x, doubled):
    s = emit(relax.op.exp(x))
    t = emit(relax.op.reshape(emit(relax.op.reshape(s, (16,))), (2, 8)))
    r = doubled(s)
    return relax.Tuple([r, t])


def answered(emit, x, doubled):
    s = emit(relax.op.exp(x))
    return relax.Tuple([doubled(s), s])


def through_a_tuple(emit, x, doubled):
    pair = emit(relax.Tuple([emit(relax.op.exp(x)), emit(relax.op.sin(x))]))
    r = doubled(emit(relax.TupleGetItem(pair, 0)))
    return relax.Tuple([r, emit(relax.TupleGetItem(pair, 0))])


def the_input(_emit, x, doubled):
    return doubled(x)


def a_view_of_the_input(emit, x, doubled):
    flat = emit(relax.op.reshape(x, (16,)))
    return doubled(emit(relax.op.reshape(flat, (4, 4))))


def a_constant(emit, x, doubled):
    return emit(relax.op.add(x, doubled(relax.const([[1.0] * 4] * 4, "float32"))))


@pytest.mark.parametrize("body", [old_name, view, view_of_a_view, answered, through_a_tuple])
def test_what_is_read_later_must_not_be_overwritten(body):
    with pytest.raises(DeployError, match="read later"):
        check_writes(kernels(body))


@pytest.mark.parametrize("body", [the_input, a_view_of_the_input, a_constant])
def test_what_the_network_does_not_own_must_not_be_overwritten(body):
    with pytest.raises(DeployError, match="an input or a constant"):
        check_writes(kernels(body))


def planned(body) -> tvm.IRModule:
    passes = [
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]
    return tvm.transform.Sequential(passes)(kernels(body))


def a_row_of_operators(emit, x, _doubled):
    for step in range(6):
        x = emit(relax.op.exp(x) if step % 2 else relax.op.reshape(relax.op.sin(x), (4, 4)))
    return x


def halves(emit, x, _doubled):
    """Whoever takes the tuple for one tensor lets its first half live as long as its second."""
    for _ in range(3):
        pair = emit(relax.op.split(emit(relax.op.concat([x, x], 0)), 2, 0))
        first = emit(relax.op.exp(emit(relax.TupleGetItem(pair, 0))))
        x = emit(relax.op.add(emit(relax.op.sin(first)), emit(relax.TupleGetItem(pair, 1))))
    return x


@pytest.mark.parametrize("body", [a_row_of_operators, one_after_the_other, last_reader, halves])
def test_tvm_s_plan_shares_storages_among_tensors_that_are_not_in_use_at_once(body):
    check_storages(planned(body))


@I.ir_module(check_well_formed=False)
class Shared:
    """``a`` is read after ``b``, which lies where ``a`` does, was written."""

    @R.function(pure=False)
    def main(x: R.Tensor((4, 4), "float32")) -> R.Tensor((4, 4), "float32"):
        R.func_attr({"relax.force_pure": True})
        storage: R.Any = R.memory.alloc_storage(R.shape([64]), R.prim_value(0), R.str("global"), R.dtype("float32"))
        a: R.Tensor((4, 4), "float32") = R.memory.alloc_tensor(
            storage, R.prim_value(0), R.shape([4, 4]), R.dtype("float32")
        )
        v: R.Tensor((16,), "float32") = R.reshape(a, R.shape([16]))
        b: R.Tensor((4, 4), "float32") = R.memory.alloc_tensor(
            storage, R.prim_value(0), R.shape([4, 4]), R.dtype("float32")
        )
        w: R.Tensor((4, 4), "float32") = R.reshape(v, R.shape([4, 4]))
        c: R.Tensor((4, 4), "float32") = R.add(w, b)
        return c


def test_a_storage_that_two_tensors_use_at_once_is_found():
    with pytest.raises(DeployError, match="in use"):
        check_storages(Shared)
