"""ShuffleNet v1 in PyTorch, from the paper: Zhang et al., "ShuffleNet", arXiv:1707.01083, section 3 and Table 1.

Popular implementations compute something else than the paper; ``ARITHMETICS`` says what, and each runs as written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

# Table 1: output channels of stages 2, 3 and 4 at width 1, by number of groups.
STAGE_CHANNELS = {1: (144, 288, 576), 2: (200, 400, 800), 3: (240, 480, 960), 4: (272, 544, 1088), 8: (384, 768, 1536)}
STAGE_REPEATS = (4, 8, 4)


@dataclass(frozen=True)
class Arithmetic:
    """Where an implementation departs from the paper; the defaults are the paper."""

    conv_bias: bool = False  # biases in all convolutions, batch norm or not
    plain_stem: bool = False  # neither batch norm nor ReLU after the first convolution
    narrow_g1: bool = False  # 567 channels in the last stage for g=1, where Table 1 has 576
    bottleneck_rounds_down: bool = False  # a quarter of those 567 is 141, where the nearest number is 142
    log_softmax: bool = False  # log-probabilities, not logits
    relu_after_depthwise: bool = False
    shuffle_in_first_unit: bool = True
    late_inverse_shuffle: bool = False  # after the depthwise convolution, and the inverse permutation
    classifier_bias: bool = True


PAPER = Arithmetic()
# By the suffix of the zoo name.
ARITHMETICS = {
    "": PAPER,
    # The widely copied jaxony/ShuffleNet.
    "biased": Arithmetic(
        conv_bias=True, plain_stem=True, narrow_g1=True, bottleneck_rounds_down=True, log_softmax=True
    ),
    # A ReLU after the depthwise convolution, and the first unit, whose compression has no groups, does not shuffle.
    "relu": Arithmetic(relu_after_depthwise=True, shuffle_in_first_unit=False),
    # megvii-model/ShuffleNet-Series, ShuffleNetV1.
    "megvii": Arithmetic(late_inverse_shuffle=True, classifier_bias=False),
}


def stage_channels(groups: int, width: float, arithmetic: Arithmetic = PAPER) -> tuple[int, ...]:
    """Output channels of stages 2, 3 and 4 (Table 1), scaled by ``width``."""
    channels = STAGE_CHANNELS[groups]
    if arithmetic.narrow_g1 and groups == 1:
        channels = (*channels[:2], 567)
    return tuple(int(count * width) for count in channels)


def stem_channels(groups: int, width: float) -> int:
    """Channels of the first convolution: 24 at width 1 (Table 1), halved below it and doubled at 2.

    The paper prints no other width, but only these give its 38 and 524 MFLOPs (Tables 2 and 5). Rounded up to a
    multiple of ``groups``, because the first shortcut is concatenated in front of a grouped convolution's output:
    16 at half width in 8 groups, as in the authors' own code.
    """
    channels = 12 if width < 1 else 48 if width >= 2 else 24
    return -(-channels // groups) * groups


def bottleneck_channels(out_channels: int, groups: int, arithmetic: Arithmetic = PAPER) -> int:
    """A quarter of the output channels (section 3.3), as the nearest multiple of ``groups``.

    It is exact at width 1; g=2 and g=4 at odd widths (50 / 4, 68 / 4) have no exact quarter that splits in groups.
    """
    multiple = out_channels / 4 / groups
    return max(1, int(multiple if arithmetic.bottleneck_rounds_down else multiple + 0.5)) * groups


def channel_shuffle(data: torch.Tensor, groups: int) -> torch.Tensor:
    """Exchange channels between groups. data: (N, C, H, W), C divisible by groups; same shape back. Section 3.1."""
    if groups == 1:
        return data
    batch, channels, height, width = data.shape
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be shuffled in {groups} groups")
    split = data.view(batch, groups, channels // groups, height, width)
    return split.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Figure 2 (b) at stride 1, (c) at stride 2. (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride).

    At stride 2 the shortcut is a 3x3 average pool, concatenated with the residual branch, which therefore makes
    ``out_channels - in_channels`` channels. ``pointwise_groups`` is 1 for the very first unit, whose input is too
    narrow for groups (section 3.2). ``arithmetic`` selects another implementation's departures. Raises ValueError for
    channels that do not divide into the groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        stride: int,
        pointwise_groups: int,
        arithmetic: Arithmetic = PAPER,
    ):
        super().__init__()
        middle = bottleneck_channels(out_channels, groups, arithmetic)
        branch = out_channels - in_channels if stride == 2 else out_channels
        bias = arithmetic.conv_bias
        if stride == 1 and in_channels != out_channels:
            raise ValueError(f"a unit of stride 1 adds its {in_channels} input channels to {out_channels} of its own")
        for name, channels, split in (("input", in_channels, pointwise_groups), ("residual branch", branch, groups)):
            if channels < 1 or channels % split:
                raise ValueError(f"the {name}'s {channels} channels are not divisible by {split} groups")
        self.groups, self.stride, self.arithmetic = groups, stride, arithmetic
        self.shuffle_groups = groups if arithmetic.shuffle_in_first_unit else pointwise_groups
        self.compress = nn.Conv2d(in_channels, middle, 1, groups=pointwise_groups, bias=bias)
        self.compress_bn = nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=bias)
        self.depthwise_bn = nn.BatchNorm2d(middle)
        self.expand = nn.Conv2d(middle, branch, 1, groups=groups, bias=bias)
        self.expand_bn = nn.BatchNorm2d(branch)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.compress_bn(self.compress(data)))
        if not self.arithmetic.late_inverse_shuffle:
            branch = channel_shuffle(branch, self.shuffle_groups)
        branch = self.depthwise_bn(self.depthwise(branch))
        if self.arithmetic.relu_after_depthwise:
            branch = F.relu(branch)
        if self.arithmetic.late_inverse_shuffle:
            branch = channel_shuffle(branch, branch.shape[1] // self.shuffle_groups)
        branch = self.expand_bn(self.expand(branch))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(data, 3, 2, 1), branch], 1))
        return F.relu(data + branch)


class ShuffleNetV1(nn.Module):
    """The whole network of Table 1. data: (N, 3, H, W) float32; returns logits (N, classes).

    With ``arithmetic``, what another implementation computes; with its ``log_softmax``, log-probabilities.
    """

    def __init__(self, groups: int = 3, width: float = 1.0, classes: int = 1000, arithmetic: Arithmetic = PAPER):
        super().__init__()
        if groups not in STAGE_CHANNELS:
            raise ValueError(f"groups must be one of {sorted(STAGE_CHANNELS)}, not {groups}")
        self.arithmetic = arithmetic
        in_channels = stem_channels(groups, width)
        self.stem = nn.Conv2d(3, in_channels, 3, 2, 1, bias=arithmetic.conv_bias)
        if not arithmetic.plain_stem:
            self.stem_bn = nn.BatchNorm2d(in_channels)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        stages = stage_channels(groups, width, arithmetic)
        for stage, (out_channels, repeats) in enumerate(zip(stages, STAGE_REPEATS, strict=True)):
            for index in range(repeats):
                first = stage == 0 and index == 0
                stride = 2 if index == 0 else 1
                pointwise_groups = 1 if first else groups
                units.append(ShuffleUnit(in_channels, out_channels, groups, stride, pointwise_groups, arithmetic))
                in_channels = out_channels
        self.units = nn.Sequential(*units)
        self.classifier = nn.Linear(in_channels, classes, bias=arithmetic.classifier_bias)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        data = self.stem(data)
        if not self.arithmetic.plain_stem:
            data = F.relu(self.stem_bn(data))
        logits = self.classifier(self.units(self.maxpool(data)).mean((2, 3)))
        return F.log_softmax(logits, 1) if self.arithmetic.log_softmax else logits
