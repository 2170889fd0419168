"""Import against PyTorch, and the pass that fuses operators: what it makes, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm.script import ir as I
from tvm.script import relax as R

from helpers.networks import calls, kinds, run
from tvm_shufflenet.errors import ImportFailed
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.passes.fuse_operators import FuseOperators
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.models import exporting, find_model, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import channel_shuffle

TOLERANCE = 1e-5
CONVOLUTION, OTHERS = "relax.nn.conv2d", ("relax.nn.relu", "relax.permute_dims", "relax.reshape", "relax.add")
OURS = ("pointwise", "depthwise", "convolution", "pooling", "dense", "copy")


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


# Whole networks

UNIT = ["pointwise", "depthwise", "pointwise"]
STRIDE_2_UNIT = ["pointwise", "depthwise", "pooling", "pointwise"]
STAGES = [name for repeats in (3, 7, 3) for name in STRIDE_2_UNIT + repeats * UNIT]


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(1, (32, 32)), (8, (32, 32)), (3, (64, 48))], ids=str)
def test_an_imported_network_computes_what_torch_computes(groups, size):
    model = find_model(f"shufflenet_v1_g{groups}_x0_25", input_shape=(1, 3, *size))
    module = frontend.to_relax(model.exported())
    assert kinds(FuseOperators(find_target("local"))(module)) == ["convolution", "pooling", *STAGES, "dense"]
    data, local = draw(*model.input_shape), find_target("local")
    (expected,) = model(data)
    for passes in (pipeline.stock, pipeline.fuse):
        allowed = TOLERANCE * np.abs(expected).max()
        np.testing.assert_allclose(run(passes(module, local).module, data), expected, rtol=0, atol=allowed)


# The pass on one operator

WEIGHT, BIAS = draw(6, 2, 1, 1), draw(1, 6, 1, 1)


@I.ir_module
class ChannelsLast:
    """A pointwise convolution in NHWC: the operator reads NCHW."""

    @R.function
    def main(x: R.Tensor((1, 2, 2, 2), "float32")) -> R.Tensor((1, 2, 2, 6), "float32"):
        with R.dataflow():
            conv = R.nn.conv2d(
                x, R.const(WEIGHT), data_layout="NHWC", kernel_layout="OIHW", out_layout="NHWC", out_dtype="float32"
            )
            biased = R.add(conv, R.const(BIAS.reshape(1, 1, 1, 6)))
            R.output(biased)
        return biased


def test_channels_last_is_left_alone():
    assert calls(FuseOperators(find_target("local"))(ChannelsLast)) == calls(ChannelsLast)
    data = draw(1, 2, 2, 2)
    local = find_target("local")
    fused, stock = (run(passes(ChannelsLast, local).module, data) for passes in (pipeline.fuse, pipeline.stock))
    expected = np.einsum("nhwi,oi->nhwo", data, WEIGHT[:, :, 0, 0]) + BIAS.reshape(1, 1, 1, 6)
    np.testing.assert_allclose(fused, expected, atol=TOLERANCE)
    np.testing.assert_allclose(stock, expected, atol=TOLERANCE)


# Graphs from PyTorch


class Around(nn.Module):
    """A convolution and what ``body`` does with it."""

    def __init__(self, conv: nn.Conv2d, body):
        super().__init__()
        self.conv, self.body = conv, body

    def forward(self, data):
        return self.body(self.conv, data)


def imported(conv: nn.Conv2d, body, side: int = 6) -> tuple[tvm.IRModule, np.ndarray, np.ndarray]:
    """Relax module of a graph around ``conv``, an input, and PyTorch's output for it."""
    module, data = Around(conv, body).eval(), draw(1, conv.in_channels, side, side)
    with torch.no_grad():
        expected = module(torch.from_numpy(data)).numpy()
    return frontend.to_relax(exporting.export(module, data.shape)), data, expected


def check(conv: nn.Conv2d, body, expected_calls: dict[str, int]) -> None:
    """The pass leaves just ``expected_calls`` of ours, convolutions and their followers; the result is right."""
    module, data, expected = imported(conv, body)
    names = kinds(FuseOperators(find_target("local"))(module))
    interesting = (CONVOLUTION, *OTHERS, *OURS)
    assert {name: names.count(name) for name in interesting if name in names} == expected_calls
    np.testing.assert_allclose(run(pipeline.fuse(module, find_target("local")).module, data), expected, atol=TOLERANCE)


def test_the_passes_leave_the_module_they_are_given_as_it_is():
    """The same module is compiled with our operators and without."""
    module, _, _ = imported(conv(12, 12, groups=3), lambda c, x: F.max_pool2d(F.relu(c(x)), 2))
    before = module.script(show_meta=True)
    pipeline.fuse(module, find_target("local"))
    assert module.script(show_meta=True) == before


def conv(inputs: int, outputs: int, kernel=1, **options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, **options)


def relu_conv(layer, x):
    return F.relu(layer(x))


FUSED_WHOLE = {
    "residual, convolution first": (conv(8, 8), lambda c, x: F.relu(c(x) + x)),
    "residual, convolution second": (conv(8, 8), lambda c, x: F.relu(x + c(x))),
    "residual without relu": (conv(8, 8, groups=2), lambda c, x: c(x) + 2 * x),
    "relu": (conv(8, 12), relu_conv),
    "bias alone": (conv(8, 12, groups=4), lambda c, x: c(x)),
    "shuffle": (conv(12, 12, groups=3), lambda c, x: channel_shuffle(c(x), 3)),
    "relu and shuffle": (conv(12, 12, groups=3), lambda c, x: channel_shuffle(F.relu(c(x)), 3)),
    "shuffle twice as fine": (conv(12, 12, groups=2), lambda c, x: channel_shuffle(F.relu(c(x)), 4)),
    "shuffle of an ungrouped convolution": (conv(5, 12), lambda c, x: channel_shuffle(F.relu(c(x)), 3)),
    "shuffle by one": (conv(12, 12, groups=3), lambda c, x: channel_shuffle(F.relu(c(x)), 1)),
    "one channel a group": (conv(12, 12, groups=12), lambda c, x: F.relu(c(x) + x)),
}


@pytest.mark.parametrize("name", FUSED_WHOLE)
def test_pointwise_takes_all_that_follows_it(name):
    check(*FUSED_WHOLE[name], {"pointwise": 1})


@pytest.mark.parametrize(
    "layer",
    [
        conv(8, 8, 3, padding=1, groups=8),
        conv(8, 8, 3, groups=8, stride=2, padding=1),
        conv(8, 8, (3, 1), padding=(1, 0), stride=(2, 1), groups=8),
        conv(8, 8, 5, groups=8),
    ],
    ids=["3x3", "stride 2", "3x1", "5x5"],
)
@pytest.mark.parametrize("body", [lambda c, x: c(x), relu_conv], ids=["bias", "relu"])
def test_depthwise_takes_bias_and_relu(layer, body):
    check(layer, body, {"depthwise": 1})


DENSE = {
    "strided 1x1": conv(8, 8, stride=2),
    "padded 1x1": conv(8, 8, padding=1),
    "3x3": conv(8, 8, 3, padding=1),
    "grouped 3x3": conv(8, 8, 3, padding=1, groups=2),
    "channel multiplier": conv(8, 16, 3, padding=1, groups=8),
}


@pytest.mark.parametrize("name", DENSE)
def test_any_other_convolution_takes_bias_and_relu(name):
    check(DENSE[name], relu_conv, {"convolution": 1})


def test_a_dilated_convolution_is_left_alone():
    layer = conv(8, 8, 3, dilation=2, padding=2, groups=8)
    check(layer, relu_conv, {CONVOLUTION: 1, "relax.add": 1, "relax.nn.relu": 1})


def test_a_convolution_without_bias_gets_one_of_zeros():
    check(conv(8, 8, bias=False), relu_conv, {"pointwise": 1})


SHUFFLE = {"relax.permute_dims": 1, "relax.reshape": 2}
OTHER_SHUFFLES = {
    "coarser than the groups": lambda c, x: channel_shuffle(F.relu(c(x)), 2),
    "neither coarser nor finer": lambda c, x: channel_shuffle(F.relu(c(x)), 6),
    "after a residual": lambda c, x: channel_shuffle(F.relu(c(x) + x), 4),
}


@pytest.mark.parametrize("name", OTHER_SHUFFLES)
def test_a_shuffle_that_the_operator_cannot_store_is_a_copy_at_the_end_of_the_network(name):
    check(conv(12, 12, groups=4), OTHER_SHUFFLES[name], {"pointwise": 1, "copy": 1})


@pytest.mark.parametrize("name", OTHER_SHUFFLES)
def test_and_a_table_of_planes_before_another_operator(name):
    layer = conv(12, 12, groups=4)
    check(layer, lambda c, x: c(OTHER_SHUFFLES[name](c, x)), {"pointwise": 2})


NO_SHUFFLES = {
    "other axes": lambda c, x: F.relu(c(x)).reshape(1, 4, 3, 6, 6).transpose(1, 3).reshape(1, 12, 6, 6),
    "to another shape": lambda c, x: F.relu(c(x)).reshape(1, 4, 3, 6, 6).transpose(1, 2).reshape(1, 6, 12, 6),
    "across height": lambda c, x: F.relu(c(x)).reshape(1, 4, 6, 3, 6).transpose(1, 2).reshape(1, 12, 6, 6),
}


@pytest.mark.parametrize("name", NO_SHUFFLES)
def test_a_reordering_that_cannot_be_fused_stays_behind_the_operator(name):
    check(conv(12, 12, groups=4), NO_SHUFFLES[name], {"pointwise": 1} | SHUFFLE)


def test_a_depthwise_convolution_takes_neither_residual_nor_shuffle():
    layer = conv(12, 12, 3, padding=1, groups=12)
    check(layer, lambda c, x: F.relu(c(x) + x), {"depthwise": 1, "relax.add": 1, "relax.nn.relu": 1})
    check(layer, lambda c, x: channel_shuffle(F.relu(c(x)), 3), {"depthwise": 1, "copy": 1})


ADDENDS = {
    "along the plane": lambda c, x: F.relu(c(x) + x.mean((2, 3), keepdim=True)),
    "of the convolution": lambda c, x: F.relu(c(x.mean((2, 3), keepdim=True)) + x),
    "along the batch": lambda c, x: F.relu(c(x) + torch.cat([x, x], 0)),
    "along the channels": lambda c, x: F.relu(c(x) + x.mean(1, keepdim=True)),
    "a constant": lambda c, x: F.relu(c(x) + torch.ones(1, 8, 6, 6)),
}


@pytest.mark.parametrize("name", ADDENDS)
def test_an_addend_that_is_no_tensor_of_that_shape_is_left_alone(name):
    check(conv(8, 8), ADDENDS[name], {"pointwise": 1, "relax.add": 1, "relax.nn.relu": 1})


def twice(use):
    """A body that hands the convolution's output to ``use``, which reads it twice."""
    return lambda c, x: use(c(x))


def biased_twice(layer, x):
    """The convolution's own result, before the bias, is read twice."""
    raw = F.conv2d(x, layer.weight)
    return torch.cat([F.relu(raw + layer.bias.reshape(1, 8, 1, 1)), raw], 1)


USED_TWICE = {
    "by a relu and a concatenation": (
        twice(lambda y: torch.cat([F.relu(y), y], 1)),
        {"pointwise": 1, "relax.nn.relu": 1, "copy": 2},
    ),
    "by a sum with itself": (twice(lambda y: F.relu(y + y)), {"pointwise": 1, "relax.add": 1, "relax.nn.relu": 1}),
    "by a sum with its relu": (twice(lambda y: y + F.relu(y)), {"pointwise": 1, "relax.add": 1, "relax.nn.relu": 1}),
    "by a relu's sum with it": (twice(lambda y: F.relu(y) + y), {"pointwise": 1, "relax.add": 1, "relax.nn.relu": 1}),
    "by a shuffle and a sum": (
        lambda c, x: (lambda y: channel_shuffle(y, 2) + y)(F.relu(c(x))),
        {"pointwise": 1, "relax.add": 1, "copy": 1},
    ),
    "before its bias": (biased_twice, {"pointwise": 1, "relax.add": 1, "relax.nn.relu": 1, "copy": 2}),
}


@pytest.mark.parametrize("name", USED_TWICE)
def test_a_result_that_is_read_twice_is_not_fused_away(name):
    body, expected = USED_TWICE[name]
    check(conv(8, 8), body, expected)


def test_two_convolutions_in_a_sum_become_two_operators():
    check(conv(8, 8), lambda c, x: F.relu(c(x) + c(2 * x)), {"pointwise": 2})
    check(conv(8, 8), lambda c, x: c(F.relu(c(x))) + x, {"pointwise": 2})


# What the importer refuses


class Unimportable(nn.Module):
    def forward(self, data):
        return torch.special.bessel_j0(data)


class ByValue(nn.Module):
    def forward(self, data):
        return data if data.sum() > 0 else -data


class NormAlone(nn.Module):
    """A batch norm that no convolution precedes, as DenseNet's: it cannot be folded into one."""

    def __init__(self):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
        randomise_batch_norms(self)

    def forward(self, data):
        return self.conv(F.relu(self.norm(data)))


def test_a_batch_norm_without_a_convolution_before_it_is_computed():
    module, data = NormAlone().eval(), draw(1, 8, 6, 6)
    with torch.no_grad():
        expected = module(torch.from_numpy(data)).numpy()
    imported = frontend.to_relax(exporting.export(module, data.shape))
    np.testing.assert_allclose(
        run(pipeline.fuse(imported, find_target("local")).module, data), expected, atol=TOLERANCE
    )


def test_an_operator_that_the_importer_does_not_know_is_named():
    program = exporting.export(Unimportable().eval(), (1, 3))
    with pytest.raises(ImportFailed, match="bessel_j0"):
        frontend.to_relax(program)


def test_control_flow_that_depends_on_data_is_refused():
    with pytest.raises(ImportFailed, match=r"torch\.export refused"):
        exporting.export(ByValue().eval(), (1, 3))


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, left, right):
            return left + right

    program = torch.export.export(Two().eval(), (torch.zeros(1, 3), torch.zeros(1, 3)))
    with pytest.raises(ImportFailed, match="takes 2 inputs"):
        frontend.to_relax(program)
