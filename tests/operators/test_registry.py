"""Each operator's arithmetic, template and rewrite keep the contract of operators/registry.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.tirx import IterVar

from tvm_shufflenet.graph.rewrites import REWRITES
from tvm_shufflenet.hardware.isa import NEON
from tvm_shufflenet.hardware.machine import unknown
from tvm_shufflenet.operators.convolution import Convolution
from tvm_shufflenet.operators.copy import Copy
from tvm_shufflenet.operators.dense import Dense
from tvm_shufflenet.operators.depthwise import Depthwise
from tvm_shufflenet.operators.destination import own
from tvm_shufflenet.operators.pointwise import Pointwise
from tvm_shufflenet.operators.pooling import Pooling
from tvm_shufflenet.operators.registry import EPILOGUE, OPERATORS, blocks_of, part_of
from tvm_shufflenet.schedules import rules

EXAMPLES = {
    "pointwise": Pointwise(2, 12, 5, 3, 12, 18, groups=3, relu=True, residual=True, shuffle_groups=3),
    "depthwise": Depthwise(2, 5, 7, 9, stride=(2, 2)),
    "convolution": Convolution(2, 3, 9, 7, 6),
    "pooling": Pooling(2, 3, 9, 9),
    "dense": Dense(2, 7, 10, plane=(3, 3)),
    "copy": Copy(2, 5, 3, 3, 4, False, own(4)),
}


def test_there_is_an_example_of_every_operator():
    assert set(EXAMPLES) == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_its_blocks_are_those_that_it_is_known_by(name):
    sch = Schedule(IRModule({"main": EXAMPLES[name].function()}))
    first, *rest = (sch.get(sch.get_sblock(block)) for block in blocks_of(name))
    batch, kinds = EXAMPLES[name].batch, [axis.iter_type for axis in first.iter_vars]
    assert int(first.iter_vars[0].dom.extent) == batch and kinds == sorted(kinds), "the reduction comes last"
    assert set(kinds) <= {IterVar.DataPar, IterVar.CommReduce}
    for epilogue in rest:
        assert epilogue.name_hint == EPILOGUE and int(epilogue.iter_vars[0].dom.extent) == batch
        assert {axis.iter_type for axis in epilogue.iter_vars} == {IterVar.DataPar}


@pytest.mark.parametrize("name", OPERATORS)
def test_its_template_is_the_one_that_schedules_it(name):
    mod = IRModule({"main": EXAMPLES[name].function()})
    assert rules.template_name(mod) == name
    assert next(iter(rules.TEMPLATES[name](Schedule(mod, seed=1), unknown(NEON)))).trace is not None


def test_every_rewrite_is_found_by_what_it_begins_with():
    modules = [part_of(name, "graph.rewrites", ("REWRITES",)) for name in OPERATORS]
    for rewrite in (each for module in modules for each in module.REWRITES):
        assert rewrite.begins and all(rewrite in REWRITES[name] for name in rewrite.begins)


def test_a_module_that_lacks_what_it_owes_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tvm_shufflenet.schedules.half", SimpleNamespace())
    with pytest.raises(TypeError, match=r"schedules/half\.py has no schedules"):
        part_of("half", "schedules", ("schedules",))


@pytest.mark.parametrize("blocks", [("other",), ("half", "store"), ("half", EPILOGUE, "more"), ()], ids=str)
def test_blocks_that_no_template_would_be_chosen_by_are_refused(monkeypatch, blocks):
    monkeypatch.setitem(sys.modules, "tvm_shufflenet.operators.half", SimpleNamespace(BLOCKS=blocks))
    with pytest.raises(TypeError, match=r"operators/half\.py has the blocks"):
        blocks_of("half")
