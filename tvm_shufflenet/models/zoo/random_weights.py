"""Random weights under which the outputs of a network still depend on its input.

As PyTorch initialises them, convolutions shrink what they are given: after some layers the biases alone decide, and
logits move by less from image to image than rounding explains. A library that ignores its input would pass for right.
So every layer is scaled by what it makes of a seeded batch of images.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

IMAGES, SIZE = 4, 64
PATCHES = (1, 4, 16, 64)  # images of patches of several sizes: noise alone has no contrast left after some pooling
CONTRAST = (0.5, 1.5)
LEAST_VARIANCE = 0.1  # of a batch norm's input: a channel that hardly moves in the batch is not blown up


def keep_alive(module: nn.Module) -> None:
    """Scale the layers of a network for images of three channels, one after the other, in place: convolutions and
    fully connected layers so that their results deviate by 1, batch norms by the statistics of what they are given.

    The images are drawn from torch's random state. In float64, so that the float32 weights come out the same on every
    machine. Source: Mishkin and Matas, "All you need is a good init", arXiv:1511.06422.
    """
    images = _images()
    scaled = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    normed = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(_scale) for layer in scaled]
    hooks += [layer.register_forward_pre_hook(_take_statistics) for layer in normed]
    try:
        with torch.no_grad(), single_thread():
            module.double().eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        module.float()


def _images() -> torch.Tensor:
    """(IMAGES, 3, SIZE, SIZE) float64, of mean 0, each of another contrast."""
    layers = [torch.randn(IMAGES, 3, count, count, dtype=torch.float64) for count in PATCHES]
    images = sum(F.interpolate(layer, size=(SIZE, SIZE)) for layer in layers) / len(PATCHES) ** 0.5
    return images * torch.linspace(*CONTRAST, IMAGES, dtype=torch.float64).view(-1, 1, 1, 1)


def _scale(layer: nn.Conv2d | nn.Linear, inputs: tuple[torch.Tensor]) -> None:
    bias, layer.bias = layer.bias, None
    try:
        layer.weight.div_(layer.forward(*inputs).std())
    finally:
        layer.bias = bias


def _take_statistics(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance.clamp(min=LEAST_VARIANCE))


@contextmanager
def single_thread():
    """PyTorch's float64 grouped convolutions wait for each other's threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
