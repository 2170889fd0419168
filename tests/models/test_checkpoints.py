"""Checkpoints of popular ShuffleNet v1 implementations: names, arithmetic as their authors wrote it, and misfits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tvm_shufflenet import models
from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.checkpoints.load import NAMINGS
from tvm_shufflenet.models.zoo.shufflenet_v1 import ARITHMETICS, ShuffleNetV1

REPEATS = (4, 8, 4)
IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
NUMBERED = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
SMALL = "shufflenet_v1_g3_x0_25"


class Checkpoint:
    """Random weights under an implementation's names, and the operations its author applied to them."""

    def __init__(self, bias: bool):
        self.bias, self.state = bias, {}
        self.generator = torch.Generator().manual_seed(2)

    def draw(self, *shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def make_conv(self, name: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = (3 / (inputs * kernel * kernel)) ** 0.5
        self.state[f"{name}.weight"] = self.draw(outputs, inputs, kernel, kernel, low=-scale, high=scale)
        if self.bias:
            self.state[f"{name}.bias"] = self.draw(outputs)

    def make_norm(self, name: str, channels: int) -> None:
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5)):
            self.state[f"{name}.{part}"] = self.draw(channels, low=low, high=high)
        self.state[f"{name}.running_var"] = self.draw(channels, low=0.5, high=1.5)

    def make_linear(self, name: str, inputs: int, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = self.draw(1000, inputs, low=-0.1, high=0.1)
        if bias:
            self.state[f"{name}.bias"] = self.draw(1000)

    def conv(self, name: str, data, **options):
        return F.conv2d(data, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def norm(self, name: str, data):
        parts = (self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(data, *parts)

    def linear(self, name: str, data):
        return F.linear(data, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))


def channels_of(stages):
    """(stage, index, inputs, outputs) of every unit."""
    inputs = 24
    for stage, (outputs, repeats) in enumerate(zip(stages, REPEATS, strict=True), 2):
        for index in range(repeats):
            yield stage, index, inputs, outputs
            inputs = outputs


def shuffled(data, groups):
    batch, channels, height, width = data.shape
    return data.view(batch, groups, channels // groups, height, width).transpose(1, 2).flatten(1, 2)


def biased(groups: int, stages: tuple[int, ...]):
    """jaxony/ShuffleNet: checkpoint and output for IMAGE."""
    made = Checkpoint(bias=True)
    made.make_conv("conv1", 24, 3, 3)
    data = F.max_pool2d(made.conv("conv1", IMAGE, stride=2, padding=1), 3, 2, 1)
    for stage, index, inputs, outputs in channels_of(stages):
        unit, middle = f"stage{stage}.ShuffleUnit_Stage{stage}_{index}", outputs // 4
        split = groups if stage > 2 or index else 1
        made.make_conv(f"{unit}.g_conv_1x1_compress.conv1x1", middle, inputs // split, 1)
        made.make_norm(f"{unit}.g_conv_1x1_compress.batch_norm", middle)
        made.make_conv(f"{unit}.depthwise_conv3x3", middle, 1, 3)
        made.make_norm(f"{unit}.bn_after_depthwise", middle)
        branch = outputs if index else outputs - inputs
        made.make_conv(f"{unit}.g_conv_1x1_expand.conv1x1", branch, middle // groups, 1)
        made.make_norm(f"{unit}.g_conv_1x1_expand.batch_norm", branch)
        out = made.conv(f"{unit}.g_conv_1x1_compress.conv1x1", data, groups=split)
        out = shuffled(F.relu(made.norm(f"{unit}.g_conv_1x1_compress.batch_norm", out)), groups)
        out = made.conv(f"{unit}.depthwise_conv3x3", out, stride=1 if index else 2, padding=1, groups=middle)
        out = made.norm(f"{unit}.bn_after_depthwise", out)
        out = made.conv(f"{unit}.g_conv_1x1_expand.conv1x1", out, groups=groups)
        out = made.norm(f"{unit}.g_conv_1x1_expand.batch_norm", out)
        data = F.relu(data + out if index else torch.cat((F.avg_pool2d(data, 3, 2, 1), out), 1))
    made.make_linear("fc", data.shape[1])
    return made.state, F.log_softmax(made.linear("fc", data.mean((2, 3))), dim=1)


def numbered(groups, stages, stem, stem_bn, classifier, relu=False, shuffle_first=True):
    """conv1, bn1, ... in stage2.0 and so on, as in deep-person-reid; optionally with the ReLU variant's arithmetic."""
    made = Checkpoint(bias=False)
    made.make_conv(stem, 24, 3, 3)
    made.make_norm(stem_bn, 24)
    data = F.max_pool2d(F.relu(made.norm(stem_bn, made.conv(stem, IMAGE, stride=2, padding=1))), 3, 2, 1)
    for stage, index, inputs, outputs in channels_of(stages):
        conv1, bn1, conv2, bn2, conv3, bn3 = (f"stage{stage}.{index}.{part}" for part in NUMBERED)
        first, middle = stage == 2 and index == 0, outputs // 4
        split = 1 if first else groups
        branch = outputs if index else outputs - inputs
        made.make_conv(conv1, middle, inputs // split, 1)
        made.make_norm(bn1, middle)
        made.make_conv(conv2, middle, 1, 3)
        made.make_norm(bn2, middle)
        made.make_conv(conv3, branch, middle // groups, 1)
        made.make_norm(bn3, branch)
        out = F.relu(made.norm(bn1, made.conv(conv1, data, groups=split)))
        out = shuffled(out, groups if shuffle_first or not first else 1)
        out = made.norm(bn2, made.conv(conv2, out, stride=1 if index else 2, padding=1, groups=middle))
        out = made.norm(bn3, made.conv(conv3, F.relu(out) if relu else out, groups=groups))
        data = F.relu(data + out if index else torch.cat((F.avg_pool2d(data, 3, 2, 1), out), 1))
    made.make_linear(classifier, data.shape[1])
    return made.state, made.linear(classifier, data.mean((2, 3)))


def megvii(groups: int, stages: tuple[int, ...]):
    """megvii-model/ShuffleNet-Series, ShuffleNetV1: its shuffle splits the channels the other way round."""
    made = Checkpoint(bias=False)
    made.make_conv("first_conv.0", 24, 3, 3)
    made.make_norm("first_conv.1", 24)
    data = made.norm("first_conv.1", made.conv("first_conv.0", IMAGE, stride=2, padding=1))
    data = F.max_pool2d(F.relu(data), 3, 2, 1)
    for number, (stage, index, inputs, outputs) in enumerate(channels_of(stages)):
        first, second = f"features.{number}.branch_main_1", f"features.{number}.branch_main_2"
        middle, split = outputs // 4, groups if stage > 2 or index else 1
        branch = outputs if index else outputs - inputs
        made.make_conv(f"{first}.0", middle, inputs // split, 1)
        made.make_norm(f"{first}.1", middle)
        made.make_conv(f"{first}.3", middle, 1, 3)
        made.make_norm(f"{first}.4", middle)
        made.make_conv(f"{second}.0", branch, middle // groups, 1)
        made.make_norm(f"{second}.1", branch)
        out = F.relu(made.norm(f"{first}.1", made.conv(f"{first}.0", data, groups=split)))
        out = made.conv(f"{first}.3", out, stride=1 if index else 2, padding=1, groups=middle)
        out = shuffled(made.norm(f"{first}.4", out), middle // groups)
        out = made.norm(f"{second}.1", made.conv(f"{second}.0", out, groups=groups))
        data = F.relu(out + data) if index else torch.cat((F.avg_pool2d(data, 3, 2, 1), F.relu(out)), 1)
    made.make_linear("classifier.0", data.shape[1], bias=False)
    return made.state, made.linear("classifier.0", data.mean((2, 3)))


G3 = (240, 480, 960)
IMPLEMENTATIONS = {
    "shufflenet_v1_g1_x1_0_biased": lambda: biased(1, (144, 288, 567)),
    "shufflenet_v1_g3_x1_0_biased": lambda: biased(3, G3),
    "shufflenet_v1_g8_x1_0_biased": lambda: biased(8, (384, 768, 1536)),
    "shufflenet_v1_g3_x1_0": lambda: numbered(3, G3, "conv1.0", "conv1.1", "classifier"),
    "shufflenet_v1_g3_x1_0_relu": lambda: numbered(3, G3, "conv1", "bn1", "fc", relu=True, shuffle_first=False),
    "shufflenet_v1_g2_x1_0_relu": lambda: numbered(
        2, (200, 400, 800), "conv1.0", "conv1.1", "fc", relu=True, shuffle_first=False
    ),
    "shufflenet_v1_g3_x1_0_megvii": lambda: megvii(3, G3),
    "shufflenet_v1_g8_x1_0_megvii": lambda: megvii(8, (384, 768, 1536)),
}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@torch.no_grad()
def test_an_implementation_s_checkpoint_computes_what_its_author_computes(name, tmp_path):
    state, expected = IMPLEMENTATIONS[name]()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "theirs.pth")
    output = find_model(name, weights=tmp_path / "theirs.pth").module(IMAGE)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_the_variants_differ_from_the_paper():
    names = ["shufflenet_v1_g3_x1_0", *(f"shufflenet_v1_g3_x1_0_{variant}" for variant in models.V1_VARIANTS)]
    outputs = [find_model(name).module(IMAGE) for name in names]
    for index, output in enumerate(outputs):
        assert output.shape == (1, 1000)
        assert not any(torch.allclose(output, other, rtol=1e-2) for other in outputs[:index])


@pytest.mark.parametrize(
    ("checkpoint", "other", "advice"),
    [
        ("shufflenet_v1_g3_x1_0_biased", "shufflenet_v1_g3_x1_0", "ends in _biased"),
        ("shufflenet_v1_g3_x1_0_relu", "shufflenet_v1_g3_x1_0", "ends in _relu"),
        ("shufflenet_v1_g3_x1_0_megvii", "shufflenet_v1_g3_x1_0_relu", "ends in _megvii"),
        ("shufflenet_v1_g3_x1_0", "shufflenet_v1_g3_x1_0_relu", "has no suffix"),
    ],
)
def test_a_checkpoint_of_another_arithmetic_is_refused_even_where_shapes_fit(checkpoint, other, advice, tmp_path):
    torch.save(IMPLEMENTATIONS[checkpoint]()[0], tmp_path / "theirs.pth")
    with pytest.raises(BadInput, match="computes something else") as refused:
        find_model(other, weights=tmp_path / "theirs.pth")
    assert advice in str(refused.value)


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.source)
@torch.no_grad()
def test_a_naming_goes_there_and_back(naming, tmp_path):
    groups, width = (1, 1.0) if naming.arithmetic == "biased" else (3, 0.5)
    torch.manual_seed(1)
    module = ShuffleNetV1(groups, width, arithmetic=ARITHMETICS[naming.arithmetic])
    state = {naming.name_of(name): value for name, value in module.state_dict().items()}
    assert len(state) == len(module.state_dict())
    torch.save(state, tmp_path / "theirs.pth")
    suffix = f"_{naming.arithmetic}" if naming.arithmetic else ""
    name = f"shufflenet_v1_g{groups}_x{'1_0' if width == 1 else '0_5'}{suffix}"
    loaded = find_model(name, weights=tmp_path / "theirs.pth", seed=9).module
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in module.state_dict().items())
    assert torch.equal(loaded(IMAGE), module.eval()(IMAGE))


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.source)
def test_the_number_of_classes_is_the_checkpoint_s(naming, tmp_path):
    module = ShuffleNetV1(3, 1.0, classes=10, arithmetic=ARITHMETICS[naming.arithmetic])
    state = {naming.name_of(name): value for name, value in module.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "ten.pth")
    name = "shufflenet_v1_g3_x1_0" + (f"_{naming.arithmetic}" if naming.arithmetic else "")
    model = find_model(name, weights=tmp_path / "ten.pth")
    assert model.module.classifier.out_features == 10
    assert model.notes == (f"classes: 10, as in {tmp_path}/ten.pth",)


@pytest.mark.parametrize("name", [SMALL, "shufflenet_v2_x0_5", "squeezenet", "mobilenet_v1_x0_25"])
@torch.no_grad()
def test_a_checkpoint_of_other_classes_goes_there_and_back(name, tmp_path):
    saved = find_model(name, classes=7, seed=3)
    assert saved.notes == ()
    torch.save(saved.module.state_dict(), tmp_path / "seven.pth")
    for classes in (None, 7):
        loaded = find_model(name, weights=tmp_path / "seven.pth", classes=classes)
        assert bool(loaded.notes) == (classes is None)
        assert torch.equal(loaded.module(IMAGE), saved.module(IMAGE))


def refusal(state: dict, tmp_path, name: str = SMALL) -> str:
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(BadInput) as refused:
        find_model(name, weights=tmp_path / "bad.pth")
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_all_misfits_are_listed_at_once(tmp_path):
    state = find_model(SMALL).module.state_dict()
    del state["stem.weight"], state["units.7.expand.weight"]
    state |= {"head.weight": torch.zeros(2), "head.bias": torch.zeros(2), "classifier.bias": torch.zeros(7)}
    state["units.3.depthwise_bn.bias"] = "word"
    message = refusal(state, tmp_path)
    assert "2 missing: stem.weight, units.7.expand.weight;" in message
    assert "2 unexpected: head.weight, head.bias;" in message
    assert "1 misshapen: classifier.bias (7,) for (1000,)" in message
    assert "1 no numbers: units.3.depthwise_bn.bias" in message


def test_misfits_bear_the_names_of_the_checkpoint(tmp_path):
    state = IMPLEMENTATIONS["shufflenet_v1_g3_x1_0_biased"]()[0]
    del state["stage3.ShuffleUnit_Stage3_7.depthwise_conv3x3.bias"]
    message = refusal(state, tmp_path, "shufflenet_v1_g3_x1_0_biased")
    assert "1 missing: stage3.ShuffleUnit_Stage3_7.depthwise_conv3x3.bias" in message
    assert "misshapen: stage2.ShuffleUnit_Stage2_0" in refusal(state, tmp_path, "shufflenet_v1_g4_x1_0_biased")


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value, word):
    state = find_model(SMALL).module.state_dict()
    state["units.4.expand.weight"][0, 0] = value
    state["classifier.bias"][5] = value
    message = refusal(state, tmp_path)
    assert f"holds {word} in units.4.expand.weight, classifier.bias" in message


def test_a_checkpoint_without_batch_counters_loads(tmp_path):
    state = find_model(SMALL, seed=3).module.state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    loaded = find_model(SMALL, weights=tmp_path / "old.pth").module.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


def test_a_model_of_one_s_own_is_loaded_by_its_own_names(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    )
    torch.save(nn.Sequential(nn.Conv2d(3, 5, 3)).state_dict(), tmp_path / "bad.pth")
    with pytest.raises(BadInput, match=r"2 misshapen: 0\.weight \(5, 3, 3, 3\) for \(4, 3, 3, 3\), 0\.bias"):
        find_model(f"{tmp_path}/own.py:make", weights=tmp_path / "bad.pth")
