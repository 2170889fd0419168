"""The comparison networks: against the papers, against torchvision's names, and imported against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.networks import check_import
from tvm_shufflenet import models
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.zoo.baselines import BASELINES, BasicBlock, Bottleneck, Fire, Inception, InvertedResidual

# num_params in the metadata of torchvision's checkpoints.
TORCHVISION_PARAMETERS = {
    "mobilenet_v2": 3504872,
    "squeezenet": 1248424,
    "resnet18": 11689512,
    "resnet50": 25557032,
    "resnext50": 25028904,
    "vgg16": 138357544,
}
# Some names and shapes of torchvision's checkpoints.
TORCHVISION_NAMES = {
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.17.conv.3.bias": (320,),
        "features.18.1.running_var": (1280,),
        "classifier.1.weight": (1000, 1280),
    },
    "squeezenet": {"features.12.expand3x3.weight": (256, 64, 3, 3), "classifier.1.bias": (1000,)},
    "resnet18": {"layer4.1.conv2.weight": (512, 512, 3, 3), "layer2.0.downsample.0.weight": (128, 64, 1, 1)},
    "resnext50": {"layer1.0.conv2.weight": (128, 4, 3, 3), "layer1.0.downsample.1.weight": (256,)},
    "vgg16": {"features.28.weight": (512, 512, 3, 3), "classifier.6.bias": (1000,)},
}


@pytest.mark.parametrize("name", TORCHVISION_PARAMETERS)
def test_parameters_are_as_many_as_torchvision_s(name):
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in BASELINES[name]().parameters())
    assert parameters == TORCHVISION_PARAMETERS[name]


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_names_are_torchvision_s(name):
    with torch.device("meta"):
        state = BASELINES[name]().state_dict()
    assert {key: tuple(state[key].shape) for key in TORCHVISION_NAMES[name]} == TORCHVISION_NAMES[name]


def test_alexnet_has_its_two_groups():
    with torch.device("meta"):
        layers = [layer for layer in BASELINES["alexnet"]().modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in layers] == [1, 2, 1, 2, 2]


def test_every_baseline_is_in_the_zoo():
    assert set(BASELINES) <= set(models.names())
    assert not any(layer.training for layer in find_model("mobilenet_v1_x0_25").module.modules())


UNITS = {
    "residual block": lambda: BasicBlock(8, 16, 2),
    "bottleneck": lambda: Bottleneck(8, 4, 2),
    "resnext": lambda: Bottleneck(32, 16, 1, 4, 8),
    "inverted residual": lambda: InvertedResidual(8, 8, 1, 6),
    "fire, after the pool": lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 4, 8)),
    "inception": lambda: Inception(8, (4, 4, 8, 4, 8, 4)),
    "classifier of AlexNet": lambda: nn.Sequential(nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten()),
}


@pytest.mark.parametrize("name", UNITS)
def test_an_imported_unit_computes_what_torch_computes(name):
    torch.manual_seed(0)
    module = UNITS[name]()
    models.randomise_batch_norms(module)
    channels = next((layer.in_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)), 8)
    check_import(module.eval(), (1, channels, 14, 12))
