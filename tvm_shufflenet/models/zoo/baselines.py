"""The networks that the ShuffleNet papers compare with, as published.

torchvision has most of them, but its wheels on the package index are built against CUDA's torch, so they are written
here. ResNet, ResNeXt, VGG, MobileNet v2 and SqueezeNet bear torchvision's parameter names and compute what torchvision
computes. Every network takes (N, 3, H, W) float32 and returns logits (N, classes).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, relu: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, batch norm, ``relu``: (N, in, H, W) to (N, out, H/stride, W/stride)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), relu(inplace=True))


def conv_relu(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1):
    """The layers of a convolution with bias and its ReLU, as before batch norm was known."""
    return [nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups), nn.ReLU(inplace=True)]


class AlexNet(nn.Module):
    """Krizhevsky et al., NIPS 2012, Figure 2: convolutions 2, 4 and 5 in two groups, as on its two GPUs.

    The local response normalisation of section 3.3 is left out, as in most deployed copies.
    """

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.features = nn.Sequential(
            *conv_relu(3, 96, 11, 4, 2),
            nn.MaxPool2d(3, 2),
            *conv_relu(96, 256, 5, 1, 2, groups=2),
            nn.MaxPool2d(3, 2),
            *conv_relu(256, 384, 3, 1, 1),
            *conv_relu(384, 384, 3, 1, 1, groups=2),
            *conv_relu(384, 256, 3, 1, 1, groups=2),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = _three_layers(256 * 36, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(data)).flatten(1))


class VGG16(nn.Module):
    """Simonyan and Zisserman, arXiv:1409.1556, Table 1, column D."""

    BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers, inputs = [], 3
        for block in self.BLOCKS:
            for outputs in block:
                layers += conv_relu(inputs, outputs, 3, 1, 1)
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = _three_layers(512 * 49, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.avgpool(self.features(data)).flatten(1))


def _three_layers(inputs: int, classes: int) -> nn.Sequential:
    """Fully connected layers of AlexNet and VGG, (N, inputs) to (N, classes)."""
    first = [nn.Linear(inputs, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return nn.Sequential(*first, nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes))


class MobileNetV1(nn.Module):
    """Howard et al., arXiv:1704.04861, Table 1; ``width`` is the multiplier of section 3.3."""

    # (output channels, stride) of each pair of a depthwise and a pointwise convolution.
    PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

    def __init__(self, width: float = 1.0, classes: int = 1000):
        super().__init__()
        inputs = int(32 * width)
        layers = [conv_bn(3, inputs, 3, 2)]
        for channels, stride in self.PAIRS:
            outputs = int(channels * width)
            layers += [conv_bn(inputs, inputs, 3, stride, groups=inputs), conv_bn(inputs, outputs, 1)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(data).mean((2, 3)))


class InvertedResidual(nn.Module):
    """MobileNet v2's unit, Figure 4 (d): expansion, depthwise, linear projection; a sum where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        middle = in_channels * expansion
        expand = [conv_bn(in_channels, middle, 1, relu=nn.ReLU6)] if expansion > 1 else []
        depthwise = conv_bn(middle, middle, 3, stride, groups=middle, relu=nn.ReLU6)
        project = [nn.Conv2d(middle, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.conv = nn.Sequential(*expand, depthwise, *project)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return data + self.conv(data) if self.residual else self.conv(data)


class MobileNetV2(nn.Module):
    """Sandler et al., arXiv:1801.04381, Table 2."""

    # expansion, output channels, repeats, stride of the first.
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers, inputs = [conv_bn(3, 32, 3, 2, relu=nn.ReLU6)], 32
        for expansion, outputs, repeats, stride in self.STAGES:
            for index in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, conv_bn(inputs, 1280, 1, relu=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(data).mean((2, 3)))


class Fire(nn.Module):
    """SqueezeNet's module, section 3.2: 1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        data = F.relu(self.squeeze(data))
        return torch.cat((F.relu(self.expand1x1(data)), F.relu(self.expand3x3(data))), 1)


class SqueezeNet(nn.Module):
    """Iandola et al., arXiv:1602.07360, Table 1 (version 1.0, without bypass)."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.features = nn.Sequential(
            *conv_relu(3, 96, 7, 2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU(inplace=True))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(data)).mean((2, 3))


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions: He et al., arXiv:1512.03385, Figure 5, left."""

    EXPANSION = 1

    def __init__(self, in_channels: int, width: int, stride: int, _groups: int = 1, _group_width: int = 64):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.bn1(self.conv1(data)))
        return F.relu(self.bn2(self.conv2(branch)) + (data if self.downsample is None else self.downsample(data)))


class Bottleneck(nn.Module):
    """ResNet's block of 1x1, 3x3, 1x1 (Figure 5, right), the stride in the 3x3 convolution.

    With groups, ResNeXt's block: Xie et al., arXiv:1611.05431, Figure 3 (c).
    """

    EXPANSION = 4

    def __init__(self, in_channels: int, width: int, stride: int, groups: int = 1, group_width: int = 64):
        super().__init__()
        middle, outputs = width * group_width // 64 * groups, width * self.EXPANSION
        self.conv1 = nn.Conv2d(in_channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(in_channels, outputs, stride)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        branch = F.relu(self.bn1(self.conv1(data)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        return F.relu(self.bn3(self.conv3(branch)) + (data if self.downsample is None else self.downsample(data)))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut where shapes differ (option B of section 4.1), or None for the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """Table 1 of He et al.; with ``groups`` of ``group_width`` channels, Table 1 of Xie et al."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        repeats: tuple[int, int, int, int],
        groups: int = 1,
        group_width: int = 64,
        classes: int = 1000,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stages = 64, []
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), repeats, strict=True)):
            units = []
            for index in range(count):
                units.append(block(inputs, width, 2 if stage and index == 0 else 1, groups, group_width))
                inputs = width * block.EXPANSION
            stages.append(nn.Sequential(*units))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, classes)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        data = self.maxpool(F.relu(self.bn1(self.conv1(data))))
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(data)))).mean((2, 3)))


class Inception(nn.Module):
    """GoogLeNet's module, Figure 2 (b): 1x1, 3x3, 5x5 and pool branches side by side, each reduced by a 1x1.

    ``widths``: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj, in the order of Table 1.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.one = nn.Sequential(*conv_relu(in_channels, one, 1))
        self.three = nn.Sequential(*conv_relu(in_channels, reduce3, 1), *conv_relu(reduce3, three, 3, 1, 1))
        self.five = nn.Sequential(*conv_relu(in_channels, reduce5, 1), *conv_relu(reduce5, five, 5, 1, 2))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv_relu(in_channels, pool, 1))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.one(data), self.three(data), self.five(data), self.pool(data)), 1)


class GoogLeNet(nn.Module):
    """Szegedy et al., arXiv:1409.4842, Table 1, without the auxiliary classifiers and local response normalisation."""

    STAGES = (
        ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        (
            (192, 96, 208, 16, 48, 64),
            (160, 112, 224, 24, 64, 64),
            (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64),
            (256, 160, 320, 32, 128, 128),
        ),
        ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    )

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers = [*conv_relu(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True)]
        layers += [*conv_relu(64, 64, 1), *conv_relu(64, 192, 3, 1, 1)]
        inputs = 192
        for stage in self.STAGES:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for widths in stage:
                layers.append(Inception(inputs, widths))
                inputs = widths[0] + widths[2] + widths[4] + widths[5]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.4), nn.Linear(inputs, classes))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(data).mean((2, 3)))


# By zoo name; each takes its number of ``classes``.
BASELINES: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "mobilenet_v1_x0_25": partial(MobileNetV1, 0.25),
    "mobilenet_v1_x0_5": partial(MobileNetV1, 0.5),
    "mobilenet_v1_x0_75": partial(MobileNetV1, 0.75),
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v1_x1_0": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "squeezenet": SqueezeNet,
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnext50": partial(ResNet, Bottleneck, (3, 4, 6, 3), groups=32, group_width=4),
    "googlenet": GoogLeNet,
    "vgg16": VGG16,
}
