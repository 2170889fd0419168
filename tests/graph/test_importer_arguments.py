"""Every argument of every operator: read as PyTorch reads it, or refused by operator, argument and line."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from helpers.auditing import REFUSED, RIGHT, Joined, audit
from helpers.networks import Applied
from helpers.operator_cases import ALL, Case, cases
from tvm_shufflenet.errors import ImportFailed
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.importing import importer
from tvm_shufflenet.graph.importing.accepted import ACCEPTED, UNUSED
from tvm_shufflenet.graph.importing.arguments import away_from_default, bound, write_out
from tvm_shufflenet.graph.importing.call import CONVERTERS
from tvm_shufflenet.graph.importing.resizing import taps
from tvm_shufflenet.models import exporting

# Handled by the importer itself, not by a converter of one operator.
STRUCTURE = {"getitem", "_assert_tensor_metadata.default"}
# Every 24th case in each run of the suite: benchmarks/importer_audit.py tries all.
SAMPLE = 24


def overload(name: str) -> torch._ops.OpOverload:
    operator, _, kind = name.partition(".")
    return getattr(getattr(torch.ops.aten, operator), kind)


def test_every_converter_of_tvm_is_classified():
    theirs, unused = set(ExportedProgramImporter().convert_map), [name for names in UNUSED.values() for name in names]
    assert len(unused) == len(set(unused))
    assert not set(unused) & (set(CONVERTERS) | set(ACCEPTED)), "used and unused"
    assert not set(CONVERTERS) & set(ACCEPTED), "ours and theirs"
    assert theirs - set(CONVERTERS) - set(ACCEPTED) - set(unused) - STRUCTURE == set()
    assert set(ACCEPTED) | set(unused) <= theirs, "no longer in TVM"


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_a_converter_takes_every_argument_of_its_operator(name):
    parameters = list(inspect.signature(CONVERTERS[name]).parameters.values())[1:]
    arguments = overload(name)._schema.arguments
    if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        assert len([each for each in parameters if each.default is each.empty]) == len(arguments)


def test_the_arguments_that_are_honoured_are_arguments():
    for name, honoured in ACCEPTED.items():
        optional = {each.name for each in overload(name)._schema.arguments if each.has_default_value()}
        assert set(honoured) <= optional, name


def test_what_is_said_to_be_decomposed_is_no_operator_of_its_own():
    """torch decomposes it, or calls it a composition of others."""
    table = {operator.__name__ for operator in torch.export.default_decompositions()}
    for name in UNUSED["torch.export decomposes it"]:
        if hasattr(torch.ops.aten, name.partition(".")[0]):
            composite = torch._C._dispatch_has_kernel_for_dispatch_key(
                overload(name).name(), "CompositeImplicitAutograd"
            )
            leaves = "sparse" in name or name in ("native_dropout.default",)
            assert composite or name in table or leaves, name


@pytest.mark.parametrize("way", [pipeline.stock, pipeline.fuse])
def test_operators_with_arguments_away_from_their_defaults(way):
    sample = ALL[:: 2 * SAMPLE] if way is pipeline.fuse else ALL[SAMPLE // 2 :: SAMPLE]
    wrong = [outcome for outcome in audit(sample, way) if outcome.verdict not in (RIGHT, REFUSED)]
    assert not wrong, "\n".join(f"{each.case.expression}: {each.detail}" for each in wrong)


COMMON = """
    F.selu(x)
    F.avg_pool2d(x, 3, 2, 1, divisor_override=5)
    F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1)
    F.interpolate(x, size=(13, 13))
    F.interpolate(x, scale_factor=0.6)
    F.interpolate(x, scale_factor=0.4, mode='bilinear')
    F.interpolate(x, size=(7, 5), mode='bilinear', antialias=True)
    F.grid_sample(x, t(2, 5, 6, 2), align_corners=False)
    torch.add(x, t(11), alpha=0.7)
    F.relu6(x)
    F.hardswish(x)
    F.hardtanh(x, -0.5, 2.0)
    F.leaky_relu(x, 0.3)
    F.softplus(x, 3.0, 2.0)
    torch.clamp(x, 2.0, -1.0)
    F.max_pool2d(x, 3, 2, 1)
    x.topk(3)[0]
    x.sort(-1, descending=True)[0]
    x.amax(1)
    x.argmax(1)
    torch.maximum(x, t(11))
    F.pad(x, (-1, 2, 3, -2))
    x[:, [0, 2, -1]]
    x.var(1)
    torch.where(x.isnan(), 0.0, x)
    ~(x < t(11))
    x != 1
"""


def test_common_operators_are_right_and_keep_nan():
    """Those of the kind that TVM's importer drops arguments of, or whose NaN it loses. None may be refused."""
    outcomes = list(audit(cases(COMMON, special=(np.nan,))))
    assert {each.verdict for each in outcomes} == {RIGHT}, [each for each in outcomes if each.verdict != RIGHT]


@pytest.mark.parametrize(
    "function, words",
    {
        "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].float(), ("result 1 is read",)),
        "memory": (lambda x: x.as_strided((2, 3), (1, 2)), ("a view of another tensor's memory",)),
        "median": (lambda x: x.median(1)[0], ("no counterpart of aten.median",)),
        "outside": (lambda x: x[:, torch.tensor([0, 3])] * 1, ()),
    }.values(),
)
def test_what_is_not_read_is_refused_by_operator_and_line(function, words):
    try:
        frontend.to_relax(exporting.export(Applied(function).eval(), (1, 4, 6, 6)))
    except ImportFailed as exc:
        assert all(word in str(exc) for word in (*words, "networks.py:")), exc
    else:
        assert not words


def imported_with(monkeypatch, converter) -> None:
    monkeypatch.setitem(CONVERTERS, "tanh.default", converter)
    frontend.to_relax(exporting.export(Applied(torch.tanh).eval(), (1, 3, 4, 5)))


@pytest.mark.parametrize(
    "converter, words",
    [
        (
            lambda call, x: call.emit(importer.relax.op.permute_dims(x, [0, 1, 3, 2])),
            r"\(1, 3, 5, 4\) for \(1, 3, 4, 5\)",
        ),
        (lambda call, x: call.emit(importer.relax.op.astype(x, "float64")), "float64 for float32"),
    ],
)
def test_a_converter_that_gives_another_shape_or_dtype_is_refused(monkeypatch, converter, words):
    with pytest.raises(ImportFailed, match=rf"aten.tanh \(.*networks.py:\d+\): .*{words}"):
        imported_with(monkeypatch, converter)


def test_an_argument_that_tvm_ignores_is_refused_by_its_name(monkeypatch):
    monkeypatch.setitem(ACCEPTED, "leaky_relu.default", ())
    monkeypatch.delitem(CONVERTERS, "leaky_relu.default")
    frontend.to_relax(exporting.export(nn.LeakyReLU().eval(), (1, 3, 4, 5)))
    with pytest.raises(ImportFailed, match=r"aten.leaky_relu.*its argument negative_slope is not deployed"):
        frontend.to_relax(exporting.export(nn.LeakyReLU(0.2).eval(), (1, 3, 4, 5)))


def node_of(target, *args, **kwargs) -> torch.fx.Node:
    graph = torch.fx.Graph()
    return graph.call_function(target, (graph.placeholder("x"), *args), kwargs)


def test_arguments_are_written_out_by_position():
    node = node_of(torch.ops.aten.avg_pool2d.default, [3, 3], [2, 2], ceil_mode=True, divisor_override=None)
    write_out(node)
    assert node.args[1:] == ([3, 3], [2, 2], [0, 0], True) and not node.kwargs
    assert away_from_default(node) == ["stride", "ceil_mode"]
    assert bound(node)["count_include_pad"] is True
    node = node_of(torch.ops.aten.max_pool2d.default, [3, 3], [], [0, 0], [1, 1])
    assert away_from_default(node) == []
    node = node_of(torch.ops.aten.gelu.default, approximate="tanh")
    write_out(node)
    assert len(node.args) == 1 and node.kwargs == {"approximate": "tanh"}


def test_constants_are_computed_by_pytorch():
    """A resize of a constant, which no converter sees, and numbers alone."""

    def function(x):
        return x + F.interpolate(torch.arange(12.0).reshape(1, 1, 3, 4), size=(6, 6), mode="bicubic", antialias=True)

    module = frontend.to_relax(exporting.export(Applied(function).eval(), (1, 1, 6, 6)))
    (binding,) = [each for block in module["main"].body.blocks for each in block.bindings][:1]
    expected = function(torch.zeros(1, 1, 6, 6)).numpy()
    np.testing.assert_array_equal(binding.value.args[1].value.numpy(), expected)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_taps_of_a_resize_read_what_pytorch_reads(mode):
    found = taps(lambda data: F.interpolate(data, size=7, mode=mode), 5)
    data = torch.randn(1, 1, 5)
    sums = (data.numpy()[0, 0][found.places] * found.weights).sum(axis=1)
    np.testing.assert_allclose(sums, F.interpolate(data, size=7, mode=mode)[0, 0].numpy(), atol=1e-6)
    assert found.copies == (mode == "nearest")


def test_joined_cases_are_those_alone():
    both = [Case("F.relu(x)", (2, 3)), Case("x * 2", (2, 3))]
    data = torch.from_numpy(both[0].data())
    torch.testing.assert_close(Joined(both)(data), torch.cat([F.relu(data).reshape(-1), (data * 2).reshape(-1)]))
