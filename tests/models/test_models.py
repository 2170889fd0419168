"""The zoo against the paper, and models from the user's own files."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tvm_shufflenet import models
from tvm_shufflenet.errors import BadInput, ImportFailed, UnknownName
from tvm_shufflenet.models import exporting, find_model
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleNetV1, ShuffleUnit, channel_shuffle

# Table 1 of the paper, written down once more.
TABLE_1 = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
SMALL = "shufflenet_v1_g3_x0_25"
FACTORIES = """
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

def not_a_module():
    return {"weights": 1}

def broken():
    return good()[17]

def helper_raises():
    raise KeyError("the checkpoint of last spring")
"""


def unit_shapes(groups: int, width: float) -> list[tuple[int, ...]]:
    """(channels, height, width) after the pool, then after every unit, for a 224x224 image; computes nothing."""
    shapes = []
    with torch.device("meta"):
        network, image = ShuffleNetV1(groups, width).eval(), torch.empty(1, 3, 224, 224)

    def note(_module, inputs, output):
        shapes.extend([tuple(inputs[0].shape[1:])] * (not shapes) + [tuple(output.shape[1:])])

    for unit in network.units:
        unit.register_forward_hook(note)
    assert network(image).shape == (1, 1000)
    return shapes


@pytest.mark.parametrize("width", models.WIDTHS.values())
@pytest.mark.parametrize("groups", models.GROUPS)
def test_stages_have_the_shapes_of_table_1(groups, width):
    stem, *units = unit_shapes(groups, width)
    assert stem[1:] == (56, 56)
    if width == 1.0:
        assert stem[0] == 24
    stages = zip(TABLE_1[groups], (28, 14, 7), (4, 8, 4), strict=True)
    expected = [(int(channels * width), side, side) for channels, side, repeats in stages for _ in range(repeats)]
    assert units == expected


@pytest.mark.parametrize("groups", models.GROUPS)
def test_only_the_first_unit_compresses_without_groups(groups):
    units = ShuffleNetV1(groups, 1.0).units
    assert [unit.compress.groups for unit in units] == [1] + [groups] * 15
    assert [unit.expand.groups for unit in units] == [groups] * 16
    assert [unit.stride for unit in units] == [2, 1, 1, 1] + [2] + [1] * 7 + [2, 1, 1, 1]
    assert all(unit.depthwise.groups == unit.depthwise.out_channels for unit in units)


def test_bottleneck_is_a_quarter_of_the_output():
    for groups, stages in TABLE_1.items():
        widths = [unit.depthwise.out_channels for unit in ShuffleNetV1(groups, 1.0).units]
        assert sorted(set(widths)) == [channels // 4 for channels in stages], groups


def unit(stride: int) -> ShuffleUnit:
    torch.manual_seed(0)
    made = ShuffleUnit(12, 24 if stride == 2 else 12, 3, stride, 3)
    models.randomise_batch_norms(made)
    return made.eval()


def by_hand(made: ShuffleUnit, data: torch.Tensor) -> torch.Tensor:
    """The residual branch as Figure 2 draws it: no ReLU after the depthwise convolution."""
    branch = F.relu(made.compress_bn(made.compress(data)))
    branch = nn.ChannelShuffle(3)(branch)
    branch = made.depthwise_bn(made.depthwise(branch))
    assert (branch < 0).any(), "a ReLU here would go unnoticed"
    return made.expand_bn(made.expand(branch))


@torch.no_grad()
def test_stride_1_unit_adds():
    made, data = unit(1), torch.randn(2, 12, 8, 8)
    torch.testing.assert_close(made(data), F.relu(data + by_hand(made, data)))


@torch.no_grad()
def test_stride_2_unit_concatenates_the_average_pool():
    made, data = unit(2), torch.randn(2, 12, 8, 8)
    output = made(data)
    assert output.shape == (2, 24, 4, 4)
    torch.testing.assert_close(output[:, :12], F.relu(F.avg_pool2d(data, 3, 2, 1)))
    torch.testing.assert_close(output[:, 12:], F.relu(by_hand(made, data)))


@pytest.mark.parametrize(("channels", "groups"), [(12, 1), (12, 2), (12, 3), (12, 4), (12, 12), (240, 3), (384, 8)])
def test_channel_shuffle_is_torch_s(channels, groups):
    data = torch.randn(2, channels, 3, 5)
    assert torch.equal(channel_shuffle(data, groups), nn.ChannelShuffle(groups)(data))


def weights_of(seed: int) -> dict[str, torch.Tensor]:
    return find_model(SMALL, seed=seed).module.state_dict()


def test_a_seed_decides_the_weights_and_leaves_torch_s_own_state_alone():
    before = torch.get_rng_state()
    first, again, other = weights_of(7), weights_of(7), weights_of(8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
    assert not torch.equal(first["stem_bn.running_mean"], other["stem_bn.running_mean"])


def test_batch_norms_are_no_identities():
    state = weights_of(0)
    for name in ("running_mean", "running_var", "weight", "bias"):
        values = state[f"units.3.expand_bn.{name}"]
        assert values.unique().numel() == values.numel()
    assert (state["units.3.expand_bn.running_var"] > 0).all()


def test_the_zoo_is_in_eval_mode_and_named_by_groups_and_width():
    assert len(models.names()) == len(set(models.names()))
    plain = [name for name in models.names() if name.startswith("shufflenet_v1_") and name[-1].isdigit()]
    assert len(plain) == 25
    assert models.DEFAULT in models.names()
    assert not any(module.training for module in find_model(SMALL).module.modules())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("shufflenet_v1_g3_x1", "shufflenet_v1_g3_x1_0"),
        ("shufflenet_v1_g5_x1_0", "shufflenet_v1_g4_x1_0"),
        ("Shufflenet_v1_g8_x2_0", "shufflenet_v1_g8_x2_0"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(UnknownName) as refused:
        find_model(name)
    assert refused.value.exit_code == 2
    assert nearest in refused.value.nearest and nearest in str(refused.value) and name in str(refused.value)


@pytest.mark.parametrize("name", ["", "resnet", ":", "\x00"])
def test_other_words_are_unknown_names_too(name):
    with pytest.raises(UnknownName):
        find_model(name)


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """A model file's folder joins sys.path for good; not beyond its test."""
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORIES)
    return f"{tmp_path}/mine.py:"


def test_a_factory_makes_a_model(factories):
    model = find_model(factories + "good", input_shape=(1, 3, 8, 8))
    assert model.name == "mine_good" and not model.module.training
    assert model(np.zeros((1, 3, 8, 8), dtype=np.float32))[0].shape == (1, 4, 6, 6)
    assert find_model(factories + "good").input_shape == (1, 3, 224, 224)


def test_a_factory_that_raises_shows_its_own_traceback(factories):
    with pytest.raises(ImportFailed, match="the checkpoint of last spring") as failed:
        find_model(factories + "helper_raises")
    assert 'raise KeyError("the checkpoint of last spring")' in str(failed.value)
    assert "mine.py" in str(failed.value) and "in helper_raises" in str(failed.value)
    with pytest.raises(ImportFailed, match="IndexError"):
        find_model(factories + "broken")


def test_a_factory_that_is_missing_or_makes_something_else_is_refused(factories, tmp_path):
    with pytest.raises(ImportFailed, match="returned dict"):
        find_model(factories + "not_a_module")
    with pytest.raises(ImportFailed, match="absent"):
        find_model(factories + "absent")
    with pytest.raises(BadInput, match="no file"):
        find_model(f"{tmp_path}/other.py:good")


def test_a_file_that_does_not_parse_is_shown(tmp_path):
    (tmp_path / "bad.py").write_text("def good(:\n    pass\n")
    with pytest.raises(ImportFailed, match="SyntaxError"):
        find_model(f"{tmp_path}/bad.py:good")


def test_a_model_file_may_hold_dataclasses_and_import_its_neighbour(tmp_path):
    (tmp_path / "my_layers.py").write_text("from torch import nn\n\nclass Layer(nn.ReLU):\n    pass\n")
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from my_layers import Layer\n\n"
        "@dataclass\nclass Config:\n    kind: ClassVar[str] = 'relu'\n    width: int = 3\n\n"
        "def make():\n    return Layer()\n"
    )
    assert type(find_model(f"{tmp_path}/mine.py:make").module).__name__ == "Layer"


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_come_from_a_checkpoint(tmp_path, wrapped):
    state = weights_of(5)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "good.pth")
    loaded = find_model(SMALL, weights=tmp_path / "good.pth", seed=1).module
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_weights_of_a_factory_s_model(factories, tmp_path):
    torch.save(find_model(factories + "good").module.state_dict(), tmp_path / "good.pth")
    find_model(factories + "good", weights=tmp_path / "good.pth")
    with pytest.raises(BadInput, match="does not fit"):
        find_model(SMALL, weights=tmp_path / "good.pth")


def misfits():
    state = weights_of(0)
    lacking = {name: value for name, value in state.items() if name != "stem.weight"}
    wider = find_model("shufflenet_v1_g3_x0_5").module.state_dict()
    return {
        "lacking": lacking,
        "more": state | {"extra": torch.zeros(1)},
        "wider": wider,
        "a list": [1, 2],
        "a tensor": torch.zeros(3),
        "numbers for names": {1: torch.zeros(1)},
        "words for weights": {name: "word" for name in state},
        "nothing": {},
    }


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    for name, state in misfits().items():
        torch.save(state, tmp_path / "bad.pth")
        with pytest.raises(BadInput, match="does not fit") as refused:
            find_model(SMALL, weights=tmp_path / "bad.pth")
        assert "bad.pth" in str(refused.value), name


class Trap:
    """What an attacker pickles: loading it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_a_file_that_is_no_checkpoint_is_refused_and_never_run(tmp_path):
    torch.save(weights_of(0), tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    damaged = {
        "empty": b"",
        "garbage": bytes(range(256)),
        "truncated": whole[: len(whole) // 2],
        "a trap": pickle.dumps(Trap(tmp_path / "sprung"), protocol=2),
    }
    for name, content in damaged.items():
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(BadInput, match="no checkpoint"):
            find_model(SMALL, weights=tmp_path / "bad.pth")
        assert not (tmp_path / "sprung").exists(), name
    with pytest.raises(BadInput, match="missing"):
        find_model(SMALL, weights=tmp_path / "missing.pth")


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, data):
        return F.relu(self.conv(data))


class TwoInputs(nn.Module):
    def forward(self, left, right):
        return left + right


def exported(module: nn.Module, path, *shapes):
    torch.export.save(torch.export.export(module.eval(), tuple(torch.zeros(shape) for shape in shapes)), path)


def test_an_exported_program_is_a_model_of_its_own_shape(tmp_path):
    module = Tiny()
    exported(module, tmp_path / "tiny.pt2", (2, 3, 6, 5))
    model = find_model(str(tmp_path / "tiny.pt2"))
    assert (model.name, model.input_shape) == ("tiny", (2, 3, 6, 5))
    data = torch.randn(2, 3, 6, 5)
    np.testing.assert_allclose(model(data.numpy())[0], module(data).detach().numpy(), atol=1e-6)
    assert model.exported() is model.program
    assert find_model(str(tmp_path / "tiny.pt2"), input_shape=(2, 3, 6, 5)).input_shape == (2, 3, 6, 5)
    with pytest.raises(BadInput, match="was exported for input"):
        find_model(str(tmp_path / "tiny.pt2"), input_shape=(1, 3, 6, 5))


def test_a_file_that_is_no_exported_program_is_refused(tmp_path):
    exported(Tiny(), tmp_path / "good.pt2", (1, 3, 6, 5))
    whole = (tmp_path / "good.pt2").read_bytes()
    for content in (b"", bytes(range(256)), whole[: len(whole) // 2]):
        (tmp_path / "bad.pt2").write_bytes(content)
        with pytest.raises(ImportFailed, match=r"bad\.pt2"):
            find_model(str(tmp_path / "bad.pt2"))
    with pytest.raises(BadInput, match=r"missing\.pt2"):
        find_model(str(tmp_path / "missing.pt2"))


def test_a_program_of_two_inputs_is_refused(tmp_path):
    exported(TwoInputs(), tmp_path / "two.pt2", (1, 3), (1, 3))
    with pytest.raises(ImportFailed, match="2 inputs"):
        find_model(str(tmp_path / "two.pt2"))


def test_training_mode_is_refused():
    with pytest.raises(ImportFailed, match="training mode"):
        exporting.export(Tiny().train(), (1, 3, 8, 8))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32), (1, 3, 2, 2)])
def test_an_input_shape_that_the_model_does_not_take_is_refused(shape):
    with pytest.raises(ImportFailed, match=r"torch\.export refused"):
        exporting.export(Tiny().eval(), shape)
