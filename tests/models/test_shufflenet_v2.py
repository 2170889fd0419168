"""ShuffleNet v2 against the paper, against torchvision's parameter names, and imported against PyTorch."""

from __future__ import annotations

import pytest
import torch

from helpers.networks import check_import
from tvm_shufflenet import models
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.zoo.shufflenet_v2 import ShuffleNetV2, ShuffleUnit

# Table 5 of the paper, written down once more: stages 2, 3, 4 and conv5.
TABLE_5 = {
    "0_5": (48, 96, 192, 1024),
    "1_0": (116, 232, 464, 1024),
    "1_5": (176, 352, 704, 1024),
    "2_0": (244, 488, 976, 2048),
}
# num_params in the metadata of torchvision's checkpoints.
TORCHVISION_PARAMETERS = {"0_5": 1366792, "1_0": 2278604, "1_5": 3503624, "2_0": 7393996}


@pytest.mark.parametrize("width", TABLE_5)
def test_parameters_are_as_many_as_torchvision_s(width):
    with torch.device("meta"):
        network = ShuffleNetV2(models.WIDTHS[width])
    assert sum(parameter.numel() for parameter in network.parameters()) == TORCHVISION_PARAMETERS[width]


@pytest.mark.parametrize("width", TABLE_5)
def test_stages_have_the_shapes_of_table_5(width):
    with torch.device("meta"):
        network, data = ShuffleNetV2(models.WIDTHS[width]).eval(), torch.empty(1, 3, 224, 224)
    data = network.maxpool(network.conv1(data))
    assert data.shape == (1, 24, 56, 56)
    *stages, last = TABLE_5[width]
    for stage, channels, side, units in zip(
        (network.stage2, network.stage3, network.stage4), stages, (28, 14, 7), (4, 8, 4), strict=True
    ):
        data = stage(data)
        assert data.shape == (1, channels, side, side)
        assert [unit.stride for unit in stage] == [2] + [1] * (units - 1)
    assert network.conv5(data).shape == (1, last, 7, 7)


def batch_norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{name}": (channels,) for name in names} | {f"{prefix}.num_batches_tracked": ()}


def torchvision_keys(stages: tuple[int, ...], last: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a torchvision checkpoint, from its published layout."""

    def conv(prefix, shape):
        norm = prefix.rpartition(".")
        return {f"{prefix}.weight": shape} | batch_norm(f"{norm[0]}.{int(norm[2]) + 1}", shape[0])

    keys = conv("conv1.0", (24, 3, 3, 3))
    inputs = 24
    for stage, (channels, repeats) in enumerate(zip(stages, (4, 8, 4), strict=True), 2):
        half = channels // 2
        for index in range(repeats):
            unit = f"stage{stage}.{index}"
            if index == 0:
                keys |= conv(f"{unit}.branch1.0", (inputs, 1, 3, 3)) | conv(f"{unit}.branch1.2", (half, inputs, 1, 1))
            keys |= conv(f"{unit}.branch2.0", (half, half if index else inputs, 1, 1))
            keys |= conv(f"{unit}.branch2.3", (half, 1, 3, 3)) | conv(f"{unit}.branch2.5", (half, half, 1, 1))
        inputs = channels
    return keys | conv("conv5.0", (last, inputs, 1, 1)) | {"fc.weight": (1000, last), "fc.bias": (1000,)}


@pytest.mark.parametrize("width", TABLE_5)
def test_keys_and_shapes_are_torchvision_s(width):
    *stages, last = TABLE_5[width]
    with torch.device("meta"):
        state = ShuffleNetV2(models.WIDTHS[width]).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == torchvision_keys(tuple(stages), last)


def test_a_torchvision_checkpoint_loads_as_it_is(tmp_path):
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.tensor(100) if shape == () else torch.rand(shape, generator=generator)
        for name, shape in torchvision_keys((48, 96, 192), 1024).items()
    }
    torch.save(state, tmp_path / "shufflenetv2_x0.5-f707e7126e.pth")
    module = find_model("shufflenet_v2_x0_5", weights=tmp_path / "shufflenetv2_x0.5-f707e7126e.pth").module
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def unit(inputs: int, outputs: int, stride: int) -> ShuffleUnit:
    torch.manual_seed(0)
    made = ShuffleUnit(inputs, outputs, stride)
    models.randomise_batch_norms(made)
    return made.eval()


@torch.no_grad()
def test_stride_1_unit_keeps_half_of_the_channels():
    made, data = unit(12, 12, 1), torch.randn(2, 12, 5, 7)
    output = made(data)
    assert torch.equal(output[:, 0::2], data[:, :6]), "the identity half, interleaved by the shuffle"
    torch.testing.assert_close(output[:, 1::2], made.branch2(data[:, 6:]))


@torch.no_grad()
def test_stride_2_unit_has_two_branches():
    made, data = unit(6, 16, 2), torch.randn(2, 6, 7, 5)
    output = made(data)
    assert output.shape == (2, 16, 4, 3)
    torch.testing.assert_close(output[:, 0::2], made.branch1(data))
    torch.testing.assert_close(output[:, 1::2], made.branch2(data))


def test_relu_follows_the_pointwise_convolutions_alone():
    kinds = [type(layer).__name__ for layer in unit(6, 16, 2).branch2]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU"]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(6, 8, 1), (6, 7, 2)])
def test_impossible_units_are_refused(inputs, outputs, stride):
    with pytest.raises(ValueError, match="stride"):
        ShuffleUnit(inputs, outputs, stride)
    with pytest.raises(ValueError, match="width"):
        ShuffleNetV2(0.75)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_imported_unit_computes_what_torch_computes(stride):
    check_import(unit(12, 12 if stride == 1 else 20, stride), (2, 12, 9, 7))


@pytest.mark.slow
def test_an_imported_network_computes_what_torch_computes():
    model = find_model("shufflenet_v2_x1_0", input_shape=(1, 3, 64, 64))
    check_import(model.module, model.input_shape)
