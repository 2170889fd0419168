"""The units that ShuffleNet v1 is compared with at equal complexity: arXiv:1707.01083, section 4.2 and Table 4.

"We replace the ShuffleNet units in Stage 2-4 with other structures, then adapt the number of channels to ensure the
complexity remains unchanged": what is around the units is Table 1, the stem included, whose channels are ShuffleNet's
at that complexity. The paper gives the units' bottleneck ratio and cardinality, and one width for each: 192 channels
in stage 4 at 38 MFLOPs for ResNet and ResNeXt, 288 for Xception-like. Those below have exactly these.

Not in the paper, and chosen here:
- ResNet and ResNeXt units of stride 2 have a projection shortcut and the stride in their 3x3 convolution, as ResNeXt's
  paper draws them. With the shortcut of Figure 2 (c), 192 channels do not make 38 MFLOPs.
- A bottleneck that the ratio leaves fractional, or not divisible by 16 groups (24 channels in stage 2 of ResNeXt at
  38 MFLOPs), is a nearest number that is whole or divisible.
- Widths at 140 and 13 MFLOPs, and which of two equally near bottlenecks: what comes nearest to that complexity.

Xception-like is "equivalent to ShuffleNet with g = 1" there, so it is that. The ShuffleNets of Table 4 are
``shufflenet_v1_g8_x1_0``, ``shufflenet_v1_g4_x0_5`` and ``shufflenet_v1_g8_x0_25``. VGG-like, which the paper has at
140 MFLOPs alone, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from .baselines import conv_bn
from .shufflenet_v1 import STAGE_REPEATS, ShuffleNetV1, stem_channels


@dataclass(frozen=True)
class Widths:
    """Channels of one network: of the stem, the outputs of stages 2 to 4, and their bottlenecks in ``groups``."""

    stem: int
    stage2: int
    bottlenecks: tuple[int, int, int]
    groups: int

    @property
    def stages(self) -> tuple[int, int, int]:
        """Doubled from stage to stage (section 3.3)."""
        return self.stage2, 2 * self.stage2, 4 * self.stage2


STEM_1_0, STEM_0_5 = stem_channels(1, 1.0), stem_channels(1, 0.5)
RESNET_GROUPS, RESNET_RATIO = 1, 4
RESNEXT_GROUPS, RESNEXT_RATIO = 16, 2
# By complexity in million multiply-adds.
RESNET = {
    140: Widths(STEM_1_0, 94, (24, 47, 94), RESNET_GROUPS),
    38: Widths(STEM_0_5, 48, (12, 24, 48), RESNET_GROUPS),
    13: Widths(STEM_0_5, 24, (6, 12, 24), RESNET_GROUPS),
}
RESNEXT = {
    140: Widths(STEM_1_0, 88, (48, 96, 176), RESNEXT_GROUPS),
    38: Widths(STEM_0_5, 48, (16, 48, 96), RESNEXT_GROUPS),
    13: Widths(STEM_0_5, 24, (16, 16, 48), RESNEXT_GROUPS),
}
XCEPTION = {140: 1.0, 38: 0.5, 13: 0.25}  # widths of ShuffleNet with one group


class BottleneckUnit(nn.Module):
    """1x1, 3x3 in ``groups``, 1x1, and a shortcut: (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, stride: int, groups: int):
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn(in_channels, middle, 1),
            conv_bn(middle, middle, 3, stride, groups),
            nn.Conv2d(middle, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return F.relu(self.branch(data) + self.shortcut(data))


class Ablation(nn.Module):
    """Table 1 with other units. data: (N, 3, H, W) float32; returns logits (N, classes)."""

    def __init__(self, widths: Widths, classes: int = 1000):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, widths.stem, 3, 2), nn.MaxPool2d(3, 2, 1))
        units, inputs = [], widths.stem
        for outputs, middle, repeats in zip(widths.stages, widths.bottlenecks, STAGE_REPEATS, strict=True):
            for index in range(repeats):
                units.append(BottleneckUnit(inputs, middle, outputs, 2 if index == 0 else 1, widths.groups))
                inputs = outputs
        self.units = nn.Sequential(*units)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.units(self.stem(data)).mean((2, 3)))


# By zoo name; each takes ``classes``.
ABLATIONS: dict[str, Callable[..., nn.Module]] = {
    **{f"ablation_resnet_{macs}m": partial(Ablation, widths) for macs, widths in RESNET.items()},
    **{f"ablation_resnext_{macs}m": partial(Ablation, widths) for macs, widths in RESNEXT.items()},
    **{f"ablation_xception_{macs}m": partial(ShuffleNetV1, 1, width) for macs, width in XCEPTION.items()},
}
