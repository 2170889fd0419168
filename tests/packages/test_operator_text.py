"""Operators in the words of those who know the network: shapes, and the names that layers have in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers.kernels import module
from helpers.laid_out import Convolution, Dense, Depthwise, Pointwise, Pooling
from tvm_shufflenet import models
from tvm_shufflenet.graph.layers import fingerprint, layer_names, rows
from tvm_shufflenet.graph.pipeline import fuse, stock
from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.scheduling import schedule_tuned, schedule_untuned
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
from tvm_shufflenet.packages.operator_text import entry_text, layers_text, shape_text
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.workflow.compile import operator_entry, with_layers
from tvm_shufflenet.workflow.imported import import_model

LOCAL = find_target("local")


@pytest.mark.parametrize(
    ("name", "kernel", "expected"),
    [
        ("pointwise7", Pointwise(1, 240, 28, 28, 240, 60, 3), "240->60 1x1 g3 28x28"),
        ("pointwise", Pointwise(2, 48, 14, 14, 48, 60, 1), "48->60 1x1 14x14 n2"),
        ("depthwise12", Depthwise(1, 20, 14, 14, stride=(2, 2)), "20 3x3 dw s2 7x7"),
        ("convolution", Convolution(1, 3, 32, 32, 24, stride=(2, 2)), "3->24 3x3 s2 16x16"),
        ("dense", Dense(1, 60, 100, plane=(7, 7)), "60->100 dense 7x7"),
    ],
)
def test_shapes_as_people_write_them(name, kernel, expected):
    assert shape_text(name, [shape for shape, _ in argument_shapes(module(kernel))]) == expected


def test_a_pooling_and_what_tvm_generates():
    kernel = Pooling(1, 8, 28, 28)
    text = shape_text("pooling3", [shape for shape, _ in argument_shapes(module(kernel))])
    assert text.startswith("8 pool") and text.endswith(f"{kernel.output_shape[2]}x{kernel.output_shape[3]}")
    assert shape_text("fused_tir_tanh", [(1, 60, 28, 28), (1, 60, 28, 28)]) == "1x60x28x28 -> 1x60x28x28"
    assert shape_text("pointwise", [(3,)]) == "3" and shape_text("dense", []) == ""


@given(st.sampled_from(["pointwise", "depthwise", "dense", "pooling", "convolution", "conv2d"]),
       st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=5))  # fmt: skip
def test_any_shapes_have_some_text(name, shapes):
    """A manifest is somebody else's."""
    assert isinstance(shape_text(name, shapes), str)


def test_layers_in_a_row_are_one_range():
    names = [f"stage2.{unit}.gconv1" for unit in (1, 2, 3, 5)]
    assert layers_text(names) == "stage2.1-3.gconv1, stage2.5.gconv1"
    assert layers_text(["stem"]) == "stem" and layers_text([]) == ""
    assert layers_text(["a.1.b.0", "a.1.b.1", "c"]) == "a.1.b.0-1, c"
    assert layers_text(["conv1", "fc"]) == "conv1, fc"


class Network(nn.Module):
    """A unit with its batch norms and shuffle, a convolution of another kind, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.unit = ShuffleUnit(48, 48, 3, 1, 3)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.unit(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def imported():
    torch.manual_seed(0)
    network = Network()
    randomise_batch_norms(network)
    return import_model(models.Model("network", (1, 3, 16, 16), network.eval()))


def test_every_layer_is_found_in_its_operator(imported, tmp_path):
    store = RecordStore(tmp_path, LOCAL.tvm())
    wanted = {"stem", "head", *(f"unit.{name}" for name in ("compress", "depthwise", "expand"))}
    tuned = schedule_tuned(fuse(imported.module, LOCAL), store.database())
    for scheduled in (tuned, schedule_untuned(stock(imported.module, LOCAL))):
        named = with_layers(scheduled, imported).operators
        assert sorted(layer for operator in named for layer in operator.layers) == sorted(wanted)
    shapes = {layer: entry_text(operator_entry(each))
              for each in with_layers(tuned, imported).operators for layer in each.layers}  # fmt: skip
    assert shapes["stem"] == "3->48 3x3 s2 8x8" and shapes["unit.expand"].endswith("->48 1x1 g3 8x8")
    assert shapes["head"].startswith("48->10 dense")


def test_weights_are_known_again_however_they_were_scaled_permuted_and_padded():
    weights = {name: np.random.default_rng(seed).normal(size=(12, 8, 1, 1)) for seed, name in enumerate("ab")}
    scaled = weights["a"].reshape(12, 8) * np.linspace(-3, 5, 12)[:, None]
    permuted = scaled[np.random.default_rng(7).permutation(12)][:, np.random.default_rng(8).permutation(8)]
    padded = np.concatenate([permuted, np.zeros((4, 8))]).astype(np.float32)
    packed = padded.reshape(1, 4, 4, 8).transpose(0, 1, 3, 2)
    assert layer_names([rows("pointwise", packed)], weights) == ("a",)
    assert layer_names([padded + 0.01, np.zeros((12, 8))], weights) == ()
    assert fingerprint(np.zeros((3, 4))).size == 0
