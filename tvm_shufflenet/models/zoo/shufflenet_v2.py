"""ShuffleNet v2 in PyTorch, from the paper: Ma et al., "ShuffleNet V2", arXiv:1807.11164, section 3 and Table 5.

Parameters bear torchvision's names, so that its checkpoints (``shufflenet_v2_x1_0-*.pth``) load as they are.
"""

from __future__ import annotations

import torch
from torch import nn

from .shufflenet_v1 import channel_shuffle

# Table 5: output channels of stages 2, 3, 4 and of the last convolution, by width. The stem always makes 24.
STAGE_CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
STAGE_REPEATS = (4, 8, 4)
STEM_CHANNELS = 24
WIDTHS = tuple(STAGE_CHANNELS)


def pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    """1x1 convolution, batch norm, ReLU: (N, in_channels, H, W) to (N, out_channels, H, W)."""
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise convolution and batch norm, no ReLU: (N, channels, H, W) to (N, channels, H/stride, W/stride)."""
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class ShuffleUnit(nn.Module):
    """Figure 3 (c) at stride 1, (d) at stride 2. (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride).

    At stride 1, ``in_channels`` equals ``out_channels``: the first half of the channels passes as it is and the other
    goes through ``branch2``. At stride 2 both branches read all channels. Either way the two halves of the output are
    concatenated and shuffled by 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        if out_channels % 2 or (stride == 1 and in_channels != out_channels):
            raise ValueError(f"no unit of stride {stride} makes {out_channels} channels of {in_channels}")
        half = out_channels // 2
        self.stride = stride
        self.branch1 = nn.Sequential(
            *(depthwise(in_channels, stride) + pointwise(in_channels, half) if stride > 1 else [])
        )
        self.branch2 = nn.Sequential(
            *pointwise(in_channels if stride > 1 else half, half), *depthwise(half, stride), *pointwise(half, half)
        )

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            halves = self.branch1(data), self.branch2(data)
        else:
            kept, changed = data.chunk(2, 1)
            halves = kept, self.branch2(changed)
        return channel_shuffle(torch.cat(halves, 1), 2)


class ShuffleNetV2(nn.Module):
    """The whole network of Table 5. data: (N, 3, H, W) float32; returns logits (N, classes)."""

    def __init__(self, width: float = 1.0, classes: int = 1000):
        super().__init__()
        if width not in STAGE_CHANNELS:
            raise ValueError(f"width must be one of {list(STAGE_CHANNELS)}, not {width}")
        *stages, last = STAGE_CHANNELS[width]
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM_CHANNELS), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (STEM_CHANNELS, *stages)
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(ShuffleUnit(before, after, 2), *(ShuffleUnit(after, after, 1) for _ in range(repeats - 1)))
            for before, after, repeats in zip(inputs, stages, STAGE_REPEATS, strict=False)
        )
        self.conv5 = nn.Sequential(*pointwise(stages[-1], last))
        self.fc = nn.Linear(last, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        data = self.maxpool(self.conv1(data))
        data = self.stage4(self.stage3(self.stage2(data)))
        return self.fc(self.conv5(data).mean((2, 3)))
