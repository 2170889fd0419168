"""Values as views: what vanishes, what is written in place, and that nothing that is still needed is overwritten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import relax

from helpers.networks import answer, kinds, machine_of
from helpers.view_programs import STEP, Program, conv
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.views import Memory, Storage, shuffled, view_of, whole_view
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.models import exporting
from tvm_shufflenet.models.zoo.shufflenet_v1 import channel_shuffle


class Net(nn.Module):
    """``body(layers, data)`` with the layers as parameters, so that they are folded like a network's."""

    def __init__(self, layers: dict[str, nn.Module], body):
        super().__init__()
        self.layers, self.body = nn.ModuleDict(layers), body

    def forward(self, data):
        return self.body(self.layers, data)


def check(net: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The fused network computes what PyTorch does, twice, and leaves its input alone; the operators it calls,
    with a star where they write in place.
    """
    torch.manual_seed(0)
    data = torch.randn(shape)
    net = net.eval()
    with torch.no_grad():
        expected = net(data).numpy()
    fused = pipeline.fuse(frontend.to_relax(exporting.export(net, shape)), find_target("local")).module
    machine, given = machine_of(fused), tvm.runtime.tensor(data.numpy())
    for _ in range(2):
        np.testing.assert_allclose(answer(machine, given), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(given.numpy(), data.numpy())
    return kinds(fused, in_place="*")


def test_a_view_of_a_view_is_a_view_of_the_tensor():
    storage = Storage(relax.Var("x", relax.TensorType((1, 6, 2, 2), "float32")), (1, 6, 2, 2), frozenset([Memory()]))
    view = whole_view(storage).take(shuffled(6, 2))
    assert view.planes == (0, 3, 1, 4, 2, 5)
    assert view.permuted and not view.whole
    assert view.take([1, 2]).planes == (3, 1)
    assert view_of(storage, (0, 0, 1, 2, 3, 4)).permuted is False


@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (8, 2), (6, 1), (6, 6)])
def test_shuffled_is_torch_s_channel_shuffle(channels, groups):
    data = torch.arange(channels).reshape(1, channels, 1, 1)
    assert shuffled(channels, groups) == F.channel_shuffle(data, groups).flatten().tolist()


# ShuffleNet v2's unit: no split, no concatenation, no shuffle is left, and the branch overwrites what it has read


def branch(channels: int) -> dict[str, nn.Module]:
    return {
        "first": conv(channels, channels),
        "depthwise": conv(channels, channels, 3, padding=1, groups=channels),
        "last": conv(channels, channels),
    }


def unit(layers, data):
    left, right = data.chunk(2, 1)
    right = F.relu(layers["last"](layers["depthwise"](F.relu(layers["first"](right)))))
    return channel_shuffle(torch.cat([left, right], 1), 2)


def test_a_v2_unit_writes_into_the_tensor_it_has_read():
    layers = branch(10) | {"stem": conv(3, 20), "head": conv(20, 7)}
    net = Net(layers, lambda layers, x: layers["head"](unit(layers, unit(layers, layers["stem"](x)))))
    body = ["pointwise", "depthwise", "pointwise*"]
    assert check(net, (2, 3, 5, 7)) == ["pointwise", *body, *body, "pointwise"]


def test_the_network_s_input_is_never_written():
    assert check(Net(branch(4), unit), (1, 8, 5, 5))[-1] != "pointwise*"


def test_a_tensor_that_is_read_again_is_not_overwritten():
    def body(layers, x):
        stem = layers["stem"](x)
        return torch.cat([unit(layers, stem), stem * 2], 1)

    check(Net(branch(10) | {"stem": conv(3, 20)}, body), (1, 3, 5, 5))


def test_a_residual_is_added_in_place_of_its_addend():
    layers = {"stem": conv(3, 8), "first": conv(8, 8), "last": conv(8, 8)}

    def body(layers, x):
        stem = F.relu(layers["stem"](x))
        return F.relu(layers["last"](F.relu(layers["first"](stem))) + stem)

    assert check(Net(layers, body), (1, 3, 6, 6)) == ["pointwise", "pointwise", "pointwise*"]


def test_an_addend_that_is_read_again_is_kept():
    layers = {"stem": conv(3, 8), "first": conv(8, 8)}

    def body(layers, x):
        stem = F.relu(layers["stem"](x))
        return F.relu(layers["first"](stem) + stem) * stem

    assert "pointwise*" not in check(Net(layers, body), (1, 3, 6, 6))


def test_a_branch_that_reads_what_it_would_overwrite_gets_a_tensor_of_its_own():
    """One pointwise convolution from the right half straight into the right half would read its own results."""
    layers = {"stem": conv(3, 8), "only": conv(4, 4)}

    def body(layers, x):
        left, right = layers["stem"](x).chunk(2, 1)
        return torch.cat([left, layers["only"](right)], 1)

    assert "pointwise*" not in check(Net(layers, body), (1, 3, 6, 6))[:2]


def test_a_residual_around_one_pointwise_convolution_gets_a_tensor_of_its_own():
    """In place, later output channels would be computed from what earlier ones have written."""
    layers = {"stem": conv(3, 64), "mix": conv(64, 64)}

    def body(layers, x):
        stem = F.relu(layers["stem"](x))
        return F.relu(layers["mix"](stem) + stem)

    assert check(Net(layers, body), (1, 3, 28, 28)) == ["pointwise", "pointwise"]


# What changes nothing is a view of its operand's memory in TVM, or may become one.
NOTHING = {
    "pad": lambda x: F.pad(x, (0, 0, 0, 0)),
    "repeat": lambda x: x.repeat(1, 1, 1, 1),
    "transpose of a unit axis": lambda x: x.transpose(0, 1),
    "permute of a unit axis": lambda x: x.permute(1, 2, 0, 3),
    "split into one part": lambda x: x.split(x.shape[1], 1)[0],
    "flip of a unit axis": lambda x: x.flip(0),
    "sum over a unit axis": lambda x: x.sum(0, keepdim=True),
    "reshape and back": lambda x: x.flatten().reshape(x.shape),
    "pooling of single pixels": lambda x: F.max_pool2d(x, 1),
    # No view, but TVM computes it where its last reader stands.
    "arithmetic": torch.sigmoid,
}


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_may_be_a_view_keeps_its_values(nothing):
    """Of a tensor that a residual would be summed into, read after that; and of the network's input."""
    layers = {"stem": conv(16, 16), "first": conv(16, 16), "last": conv(16, 16)}

    def body(layers, x):
        stem = F.relu(layers["stem"](x))
        view = NOTHING[nothing](stem)
        summed = F.relu(layers["last"](F.relu(layers["first"](stem))) + stem)
        around = F.relu(layers["last"](summed) + NOTHING[nothing](x).reshape(x.shape))
        return torch.cat([summed.flatten(), (view * 2.0).flatten(), around.flatten()])

    check(Net(layers, body), (1, 16, 14, 14))


# Constants and parts without elements


class WithConstants(Net):
    def __init__(self, layers, body, *shape: int):
        super().__init__(layers, body)
        torch.manual_seed(3)
        self.layers["constant"] = nn.Module()
        self.layers["constant"].register_buffer("value", torch.randn(shape))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_constant_is_a_part_of_a_concatenation(place):
    def body(layers, x):
        stem = layers["stem"](x)
        parts = [F.relu(stem), stem]
        parts.insert(place, layers["constant"].value)
        return layers["head"](torch.cat(parts, 1))

    check(WithConstants({"stem": conv(3, 6), "head": conv(14, 4)}, body, 1, 2, 12, 12), (1, 3, 12, 12))


@pytest.mark.parametrize("shape", [(8, 1), (8,), (1, 8), (1, 1, 1, 8), (8, 8), (1, 1, 8, 1), (8, 1, 1), (1, 8, 1, 1)])
def test_a_constant_is_a_bias_where_it_adds_one_number_to_each_channel(shape):
    """The image's sides are as long as there are channels, so that every shape fits somewhere."""

    def body(layers, x):
        return F.relu(layers["norm"](layers["conv"](x) + layers["constant"].value))

    norm = nn.BatchNorm2d(8).requires_grad_(False)
    norm.running_var.uniform_(0.5, 2.0)
    found = check(WithConstants({"conv": conv(3, 8, bias=False), "norm": norm}, body, *shape), (1, 3, 8, 8))
    assert (found == ["pointwise"]) == (shape in ((8, 1, 1), (1, 8, 1, 1)))


@pytest.mark.parametrize(
    "body",
    {
        "first in a concatenation": lambda layers, x: layers["head"](torch.cat([x[:, :0], layers["stem"](x)], 1)),
        "nothing but such": lambda layers, x: torch.cat([x[:, :0], layers["stem"](x)[:, 8:]], 1),
        "the answer": lambda layers, x: torch.relu(layers["stem"](x))[:, :, 2:2] * 2.0,
        "of a split": lambda layers, x: torch.cat(layers["stem"](x).split([0, 3, 0, 5], 1)[::-1], 1),
        "an empty batch": lambda layers, x: layers["head"](layers["stem"](x[:0])),
        "a sum": lambda layers, x: layers["stem"](x)[:, :0].sum(1) + x.sum(),
        "split into one": lambda layers, x: layers["head"](layers["stem"](x).chunk(1, 1)[0]),
    }.values(),
)
def test_parts_without_elements_are_no_parts(body):
    check(Net({"stem": conv(3, 8), "head": conv(8, 4)}, body), (1, 3, 6, 6))


def test_a_relu_after_a_concatenation_moves_into_its_branches():
    layers = {"stem": conv(3, 6), "left": conv(6, 4), "right": conv(6, 5)}

    def body(layers, x):
        stem = layers["stem"](x)
        return F.relu(torch.cat([layers["left"](stem), layers["right"](stem)], 1))

    assert check(Net(layers, body), (1, 3, 4, 4)) == ["pointwise", "pointwise", "pointwise*"]


# Random programs: whatever is split, shuffled, concatenated and convolved, the result is PyTorch's


@settings(deadline=None, max_examples=15, derandomize=True)
@given(steps=st.lists(STEP, min_size=3, max_size=14))
def test_a_random_program_computes_what_torch_computes(steps):
    net = Program([("pointwise", 0, 0), *steps])
    with torch.no_grad():
        channels = net(torch.zeros(1, 8, 4, 4)).shape[1]
    if channels <= 64:
        check(net, (1, 8, 4, 4))
