"""The registry of operators: every row fits together, and one that does not is refused in words."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import tvm
from tvm.s_tir import Schedule

from tvm_shufflenet.hardware.isa import AVX2, AVX512, NEON
from tvm_shufflenet.hardware.machine import unknown
from tvm_shufflenet.operators import registry
from tvm_shufflenet.operators.base import EPILOGUE, Block, Layout, Operator
from tvm_shufflenet.operators.depthwise import Depthwise
from tvm_shufflenet.operators.registry import ROWS, IncompleteOperator, Row, read
from tvm_shufflenet.schedules import rules

MACHINES = (unknown(NEON), unknown(AVX2), unknown(AVX512))


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: entry.name)
def test_an_operator_in_its_template_s_layout_is_scheduled_by_that_template(entry):
    for machine in MACHINES:
        kernel = registry.laid_out(entry.operator.example(), machine)
        mod = tvm.IRModule({"main": kernel.function()})
        assert rules.template_name(mod) == entry.name
        assert next(iter(entry.template.schedules(Schedule(mod, seed=1), machine))).trace.insts


def test_rows_say_which_axes_a_packed_weight_has():
    assert {row.name: row.weight_axes for row in ROWS if row.weight_axes}.keys() == {
        "pointwise",
        "convolution",
        "dense",
    }
    for entry in registry.entries():
        kernel = registry.laid_out(entry.operator.example(), MACHINES[0])
        weights = [param.ty.shape for param in kernel.function().params if param.name == "weight"]
        row = next(row for row in ROWS if row.name == entry.name)
        if row.weight_axes:
            assert len(weights[0]) == row.weight_axes[0] and weights[0][-1] == kernel.layout.strip


# Operators that are not complete


class Bare(Operator):
    """Neither a shape nor a function."""


PARTS = {
    "operators": {"Example": Depthwise},
    "schedules": {
        "BLOCKS": (Block("depthwise", "nchw", "rs"), Block(EPILOGUE, "nchw")),
        "layout": lambda operator, machine: Layout(),
        "schedules": lambda sch, machine: iter([]),
    },
    "graph.rewrites": {"STARTS": (), "find": lambda bindings, var, claimed: None},
}


@pytest.fixture
def package(monkeypatch):
    """A package with the three modules of an operator ``depthwise``; its parts may be replaced, or left out as None."""

    def make(**changes) -> str:
        parents = ("", ".operators", ".schedules", ".graph", ".graph.rewrites")
        modules = {f"broken{name}": {} for name in parents}
        for layer, names in PARTS.items():
            found = {name: changes.get(name, value) for name, value in names.items()}
            modules[f"broken.{layer}.depthwise"] = {name: value for name, value in found.items() if value is not None}
        for name, values in modules.items():
            module = ModuleType(name)
            module.__dict__.update(values, __path__=[])
            if name != changes.get("missing"):
                monkeypatch.setitem(sys.modules, name, module)
        return "broken"

    return make


ROW = Row("depthwise", "Example")


def test_a_complete_operator_is_read(package):
    (entry,) = read([ROW], package())
    assert (entry.name, entry.operator) == ("depthwise", Depthwise)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"missing": "broken.schedules.depthwise"}, "'depthwise' has no module broken.schedules.depthwise"),
        ({"missing": "broken.graph.rewrites.depthwise"}, "has no module broken.graph.rewrites.depthwise"),
        ({"Example": None}, "broken.operators.depthwise, of the operator 'depthwise', does not define Example"),
        ({"layout": None, "schedules": None}, "does not define layout, schedules"),
        ({"STARTS": None}, "broken.graph.rewrites.depthwise, of the operator 'depthwise', does not define STARTS"),
        ({"Example": dict}, "dict is no subclass of operators.base.Operator"),
        ({"Example": Bare}, "Bare does not define emit, example, output_shape"),
        ({"BLOCKS": (Block(EPILOGUE, "nchw"),)}, "does not name its main block 'depthwise'"),
        (
            {"BLOCKS": (Block("depthwise", "nchw", "rs"), Block("sums", "nk"))},
            "schedules a block 'sums', but the function of Depthwise has only padded, depthwise, epilogue",
        ),
        (
            {"BLOCKS": (Block("depthwise", "ncp", "rs"), Block(EPILOGUE, "nchw"))},
            r"expects the block depthwise \(n, c, p; sums over r, s\), but that of Depthwise has 4 spatial",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_missing_is_named(package, changes, message):
    with pytest.raises(IncompleteOperator, match=message):
        read([ROW], package(**changes))


def test_two_rows_of_one_name_are_refused(package):
    with pytest.raises(IncompleteOperator, match="several rows for depthwise"):
        read([ROW, ROW], package())


def test_an_import_error_within_a_module_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    for folder in ("flawed", "flawed/operators"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "flawed/operators/depthwise.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        read([ROW], "flawed")
