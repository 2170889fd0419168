"""Architectures of the zoo, untuned, on this machine and on the emulated core: it runs, and agrees with PyTorch.

Small images and narrow networks, to be quick; benchmarks/zoo.py does it for every name at 224x224.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch

from helpers.tensors import only
from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.graph.pipeline import stock
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.scheduling import schedule_untuned
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.workflow.imported import Imported, import_model

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]
# Odd planes on the way: 24, 12, 6, 3, 2.
SIZE = 48
# What rounding explains in these networks is less than this share of the largest output.
RELATIVE = 1e-3

SHUFFLENETS = [
    "shufflenet_v1_g1_x0_25",
    "shufflenet_v1_g3_x0_25_relu",
    "shufflenet_v1_g8_x0_5_megvii",
    "shufflenet_v2_x0_5",
]
# Minutes in all, most of them for weights: benchmarks/zoo.py has them. The ablation below has grouped bottlenecks too.
LARGER = ["shufflenet_v1_g1_x1_0_biased", "alexnet", "googlenet", "resnet18", "resnext50", "vgg16"]
OTHERS = [
    "mobilenet_v1_x0_25",
    "mobilenet_v2",
    "squeezenet",
    "ablation_resnext_13m",
]


@functools.cache
def imported(name: str) -> Imported:
    return import_model(models.find_model(name, input_shape=(1, 3, SIZE, SIZE)))


@pytest.fixture(scope="module")
def local():
    target = find_target("local")
    with find_device("local", target) as device:
        yield target, device


@pytest.fixture(scope="module")
def emulated():
    target = find_target("arm64")
    with find_device("emulated", target) as device:
        yield target, device


def check(name: str, bench, folder) -> None:
    network, (target, device) = imported(name), bench
    library = build(schedule_untuned(stock(network.module, target)), folder / "network.so")
    with Network(device, library, network.signature) as running:
        outputs = running.run(network.inputs)
    reference = only(network.reference)
    assert only(outputs).shape == reference.shape == (1, 1000)
    assert network.answers.blind is None and network.answers.note is None
    found = network.answers.reference.difference(outputs)
    assert found.right and found.tolerance <= RELATIVE * np.abs(reference).max()


@pytest.mark.parametrize("name", SHUFFLENETS + OTHERS)
def test_on_this_machine(name, local, tmp_path):
    check(name, local, tmp_path)


def test_on_the_emulated_core(emulated, tmp_path):
    """v2; test_tiny.py has v1."""
    check("shufflenet_v2_x0_5", emulated, tmp_path)


@pytest.mark.parametrize("name", [*SHUFFLENETS, *OTHERS, "shufflenet_v1_g1_x1_0_biased", "googlenet", "resnet18"])
def test_two_images_have_answers_of_their_own(name):
    """By a thousand times more than any check allows: random weights keep every layer alive. alexnet, resnext50 and
    vgg16 take gigabytes here; benchmarks/zoo.py has them."""
    model = models.find_model(name, input_shape=(1, 3, SIZE, SIZE))
    images = (np.random.default_rng(seed).standard_normal(model.input_shape, np.float32) for seed in (0, 1))
    (one,), (other,) = map(model, images)
    largest = np.abs(one).max()
    assert np.abs(one - other).max() > 1e-2 * largest and 1 < largest < 1e3


def test_the_weights_are_the_seed_s():
    first, again, other = (models.find_model("shufflenet_v2_x0_5", seed=seed).module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert all(value.dtype is not torch.float64 for value in first.values())


def test_every_architecture_is_here():
    """A new network of the zoo is another width of one above, or is added there."""
    assert {architecture(name) for name in models.names()} == {
        architecture(name) for name in SHUFFLENETS + OTHERS + LARGER
    }


def architecture(name: str) -> str:
    """A zoo name without groups, width and complexity. Xception-like is ShuffleNet v1, ResNet ResNeXt in one group."""
    plain = "_".join(word for word in name.split("_") if not re.fullmatch(r"g\d|x?\d+m?", word))
    same = {"resnet50": "resnext50", "ablation_xception": "shufflenet_v1", "ablation_resnet": "ablation_resnext"}
    return same.get(plain, plain)
