"""Random networks of far more parts than people combine: what is fused, what is not, and what looks like nothing.

A network is made by drawing parts one after the other, each applied to values that exist by then: the newest with
preference, but older ones stay alive and are read late, so that whatever is written in place too early shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 120_000  # elements of a value


@dataclass(frozen=True)
class Step:
    """``apply`` computes a new value from ``operands``, indices of earlier values; ``layers`` are its parameters."""

    name: str
    operands: tuple[int, ...]
    apply: Callable[..., Tensor]
    layer: nn.Module | None


class Generated(nn.Module):
    """The network that ``seed`` makes, in eval mode. ``shape`` is its input's, ``parts`` names what it is made of."""

    def __init__(self, seed: int):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.shape = _input_shape(draw)
        values, self.steps, self.layers = [torch.randn(self.shape)], [], nn.ModuleList()
        for _ in range(draw.randint(3, 12)):
            step = _step(draw, values)
            if step.layer is not None:
                self.layers.append(step.layer.eval().requires_grad_(False))
            with torch.no_grad():
                values.append(step.apply(*(values[index] for index in step.operands)))
            self.steps.append(step)
        self.outputs = _outputs(draw, values)
        self.eval()

    @property
    def parts(self) -> str:
        return ", ".join(f"{step.name}{list(step.operands)}" for step in self.steps) + f" -> {self.outputs}"

    def forward(self, data: Tensor) -> Tensor:
        values = [data]
        for step in self.steps:
            values.append(step.apply(*(values[index] for index in step.operands)))
        chosen = [values[index] for index in self.outputs]
        return chosen[0] if len(chosen) == 1 else torch.cat([each.flatten() for each in chosen])


def _input_shape(draw: random.Random) -> tuple[int, ...]:
    side = draw.choice([1, 2, 5, 6, 7, 8, 12, 14, 28])
    other = draw.choice([side, side, side + 1, 1])
    return draw.choice([1, 1, 1, 2]), draw.choice([1, 3, 3, 4, 8, 12, 16, 24, 64]), side, other


def _outputs(draw: random.Random, values: list[Tensor]) -> list[int]:
    """The last value, beside some that must still be what they were."""
    newest = len(values) - 1
    others = draw.sample(range(len(values)), min(len(values), draw.choice([0, 0, 1, 2])))
    return [newest, *others]


def _step(draw: random.Random, values: list[Tensor]) -> Step:
    while True:
        index = len(values) - 1 if draw.random() < 0.7 else draw.randrange(len(values))
        made = draw.choice(PARTS)(draw, values, index)
        if made is not None:
            name, operands, apply, layer = made
            try:
                with torch.no_grad():
                    result = apply(*(values[each] for each in operands))
            except (RuntimeError, IndexError, ValueError):
                continue  # a part that does not fit the value's shape
            finite = result.numel() == 0 or bool(result.isfinite().all() and result.abs().max() < 1e4)
            if finite and result.numel() <= LARGEST and result.dtype == torch.float32:
                return Step(name, operands, apply, layer)


Made = tuple[str, tuple[int, ...], Callable[..., Tensor], nn.Module | None] | None
PARTS: list[Callable[[random.Random, list[Tensor], int], Made]] = []


def part(weight: int):
    """Registers a part that is drawn ``weight`` times as often as one of weight 1."""

    def register(make):
        PARTS.extend([make] * weight)
        return make

    return register


class Constant(nn.Module):
    """A buffer of the given shape."""

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("value", torch.randn(shape))


def _image(value: Tensor) -> bool:
    return value.dim() == 4 and value.numel() > 0


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.uniform_(-0.5, 0.5), norm.running_var.uniform_(0.5, 2.0)
    nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.uniform_(norm.bias, -0.5, 0.5)
    return norm


def _with_norm(draw: random.Random, conv: nn.Module, channels: int) -> nn.Module:
    layers = [conv]
    if draw.random() < 0.4:
        layers.append(_norm(channels))
    if draw.random() < 0.5:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _groups(draw: random.Random, channels: int, outputs: int) -> int:
    return draw.choice([g for g in (1, 1, 2, 3, 4, 8) if channels % g == 0 and outputs % g == 0])


@part(7)
def pointwise(draw, values, index):
    if not _image(values[index]):
        return None
    channels = values[index].shape[1]
    outputs = draw.choice([channels, channels, 8, 12, 24, 6, 1])
    conv = nn.Conv2d(channels, outputs, 1, groups=_groups(draw, channels, outputs), bias=draw.random() < 0.7)
    layer = _with_norm(draw, conv, outputs)
    return "pointwise", (index,), layer, layer


@part(3)
def depthwise(draw, values, index):
    if not _image(values[index]):
        return None
    channels, kernel = values[index].shape[1], draw.choice([3, 3, 5])
    padding = draw.choice([kernel // 2, kernel // 2, 0])
    conv = nn.Conv2d(channels, channels, kernel, draw.choice([1, 1, 2]), padding, groups=channels)
    layer = _with_norm(draw, conv, channels)
    return "depthwise", (index,), layer, layer


@part(3)
def convolution(draw, values, index):
    if not _image(values[index]) or values[index].shape[1] > 24:
        return None
    channels, outputs = values[index].shape[1], draw.choice([8, 12, 5])
    kernel, stride = draw.choice([(3, 1), (3, 2), ((1, 3), 1), (1, 2), (2, 1)])
    dilation = draw.choice([1, 1, 1, 2])
    conv = nn.Conv2d(channels, outputs, kernel, stride, draw.choice([0, 1]), dilation)
    layer = _with_norm(draw, conv, outputs)
    return "convolution", (index,), layer, layer


@part(1)
def transposed(draw, values, index):
    if not _image(values[index]) or values[index].shape[1] > 24:
        return None
    layer = nn.ConvTranspose2d(values[index].shape[1], draw.choice([4, 8]), draw.choice([2, 3]), draw.choice([1, 2]))
    return "transposed", (index,), layer, layer


@part(2)
def normalised(draw, values, index):
    if not _image(values[index]):
        return None
    layer = _norm(values[index].shape[1])
    return "norm", (index,), layer, layer


@part(2)
def activation(draw, values, index):
    layer = draw.choice(
        [
            nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.Hardswish, nn.SiLU, nn.GELU, nn.Tanh, nn.Hardsigmoid, nn.ELU,
            nn.Softplus, nn.Mish, nn.PReLU, nn.Hardtanh, nn.Identity, nn.Dropout,
        ]
    )().eval()  # fmt: skip
    return type(layer).__name__, (index,), layer, layer


@part(3)
def relu(draw, values, index):
    return "relu", (index,), torch.relu, None


@part(6)
def joined(draw, values, index):
    """Two values of one shape, or one with itself: the residual's place."""
    same = [other for other, value in enumerate(values) if value.shape == values[index].shape]
    other = draw.choice(same)
    kind = draw.choice([torch.add, torch.add, torch.add, torch.mul, torch.sub, torch.maximum, torch.minimum])
    pair = (index, other) if draw.random() < 0.5 else (other, index)
    rectified = draw.random() < 0.5
    return kind.__name__, pair, lambda a, b: torch.relu(kind(a, b)) if rectified else kind(a, b), None


@part(6)
def residual(draw, values, index):
    """A branch of one or two convolutions around a value, as networks write it."""
    if not _image(values[index]):
        return None
    channels = values[index].shape[1]
    first = _with_norm(draw, nn.Conv2d(channels, channels, 1), channels)
    second = draw.choice([nn.Identity(), nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 3, 1, 1)])
    layer = nn.Sequential(first, second)
    around = draw.choice([lambda x: x, lambda x: F.pad(x, (0, 0, 0, 0)), lambda x: x.repeat(1, 1, 1, 1), torch.relu])
    return "residual", (index,), lambda x: torch.relu(layer(x) + around(x)), layer


@part(3)
def with_constant(draw, values, index):
    """A constant of any shape that broadcasts to the value's, or to which the value does."""
    shape = [extent if draw.random() < 0.5 else 1 for extent in values[index].shape]
    constant = Constant(*shape[draw.randrange(len(shape) + 1) :])
    kind = draw.choice([torch.add, torch.add, torch.mul, torch.sub])
    return f"{kind.__name__} constant", (index,), lambda x: kind(x, constant.value), constant


@part(2)
def with_scalar(draw, values, index):
    kind = draw.choice([lambda x: x * 2.0, lambda x: x + 0.5, lambda x: x * 1.0, lambda x: x + 0.0, lambda x: 1.0 - x])
    return "scalar", (index,), kind, None


@part(7)
def nothing(draw, values, index):
    """What changes no element, and often not even the shape; some over an axis of extent 1."""
    value = values[index]
    unit = [axis for axis in range(value.dim()) if value.shape[axis] == 1]
    axis = draw.choice(unit) if unit else 0
    other = draw.randrange(max(1, value.dim()))
    every = list(range(value.dim()))
    order = [each for each in every if each not in unit]
    places = sorted(draw.sample(every, len(order)))
    permuted = list(unit)
    for place, each in zip(places, order, strict=True):
        permuted.insert(place, each)
    kinds = {
        "pad": lambda x: F.pad(x, (0, 0) * min(2, x.dim())),
        "repeat": lambda x: x.repeat(*[1] * x.dim()),
        "tile": lambda x: x.tile((1,)),
        "clone": lambda x: x.clone(),
        "contiguous": lambda x: x.contiguous(),
        "slice": lambda x: x[:],
        "slice all": lambda x: x[..., 0 : x.shape[-1]],
        "chunk": lambda x: x.chunk(1, dim=other)[0],
        "split": lambda x: x.split(x.shape[other], dim=other)[0],
        "narrow": lambda x: x.narrow(other, 0, x.shape[other]),
        "reshape": lambda x: x.reshape(x.shape),
        "flatten": lambda x: x.flatten(1).reshape(x.shape),
        "unsqueeze": lambda x: x.unsqueeze(other).squeeze(other),
        "expand": lambda x: x.expand(*x.shape),
        "roll": lambda x: torch.roll(x, 0, other),
        "concatenate": lambda x: torch.cat([x], other),
        "stack": lambda x: torch.stack([x])[0],
        "permute": lambda x: x.permute(every),
        "pool": lambda x: F.avg_pool2d(x, 1),
        "max pool": lambda x: F.max_pool2d(x, 1, 1),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, x.shape[-2:]),
        "interpolate": lambda x: F.interpolate(x, size=x.shape[-2:], mode="nearest"),
        "repeat_interleave": lambda x: torch.repeat_interleave(x, 1, dim=other),
        "where": lambda x: torch.where(torch.ones_like(x, dtype=torch.bool), x, x),
        "select": lambda x: torch.index_select(x, other, torch.arange(x.shape[other])),
        "unbind": lambda x: torch.stack(x.unbind(other), other),
        "to": lambda x: x.to(x.dtype),
    }
    over_units = {
        "flip": lambda x: x.flip(axis),
        "mean": lambda x: x.mean(axis, keepdim=True),
        "sum": lambda x: x.sum(axis, keepdim=True),
        "cumsum": lambda x: x.cumsum(axis),
        "transpose": lambda x: x.transpose(axis, other),
        "permute units": lambda x: x.permute(permuted),
        "movedim": lambda x: x.movedim(axis, other),
        "squeeze": lambda x: x.squeeze(axis),
        "interleave": lambda x: x.transpose(axis, other).transpose(axis, other),
    }
    name = draw.choice([*kinds, *(over_units if unit else [])])
    return name, (index,), (kinds | over_units)[name], None


@part(4)
def channels(draw, values, index):
    """Planes taken by number, from the end as well, in any order and more than once."""
    if not _image(values[index]):
        return None
    count = values[index].shape[1]
    chosen = [draw.randrange(-count, count) for _ in range(draw.choice([count, max(1, count // 2)]))]
    start, stop, step = draw.randrange(-count, count), draw.randrange(-count, count + 1), draw.choice([1, 1, 2, 3])
    half, groups = max(1, count // 2), draw.choice([g for g in (1, 2, 3, 4) if count % g == 0])
    kinds = {
        "index": lambda x: x[:, chosen],
        "slice": lambda x: x[:, start:stop:step],
        "flip": lambda x: x.flip(1),
        "roll": lambda x: torch.roll(x, start, 1),
        "first half": lambda x: x[:, :half],
        "second half": lambda x: x.split(half, 1)[-1],
        "chunk": lambda x: x.chunk(3, 1)[-1],
        "shuffle": lambda x: F.channel_shuffle(x, groups),
        "shuffle by views": lambda x: (
            x.view(x.shape[0], groups, count // groups, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        ),
        "sizes": lambda x: torch.cat(x.split([half, count - half], 1)[::-1], 1),
        "none": lambda x: torch.cat([x[:, :0], x, x[:, count:]], 1),
    }
    name = draw.choice(list(kinds))
    return f"channels {name}", (index,), kinds[name], None


@part(5)
def concatenated(draw, values, index):
    """Values and constants beside each other: the same one twice, and parts without elements, now and then."""
    value = values[index]
    if value.dim() == 0:
        return None
    axis = 1 if value.dim() == 4 and draw.random() < 0.8 else draw.randrange(value.dim())

    def fits(other: Tensor) -> bool:
        shapes = [[extent for at, extent in enumerate(each.shape) if at != axis] for each in (value, other)]
        return other.dim() == value.dim() and shapes[0] == shapes[1]

    others = [other for other, each in enumerate(values) if fits(each)]
    chosen = [index, *(draw.choice(others) for _ in range(draw.choice([0, 1, 1, 2])))]
    draw.shuffle(chosen)
    shape = list(value.shape)
    shape[axis] = draw.choice([0, 1, 2, 3])
    constant = Constant(*shape) if draw.random() < 0.4 else None
    where = draw.randrange(len(chosen) + 1)

    def apply(*parts: Tensor) -> Tensor:
        beside = [] if constant is None else [constant.value]
        return torch.cat([*parts[:where], *beside, *parts[where:]], axis)

    return "concatenated", tuple(chosen), apply, constant


@part(3)
def unit(draw, values, index):
    """ShuffleNet v2's: half of the channels go through a branch, then both are shuffled."""
    if not _image(values[index]) or values[index].shape[1] % 2:
        return None
    half = values[index].shape[1] // 2
    branch = nn.Sequential(
        _with_norm(draw, nn.Conv2d(half, half, 1), half),
        nn.Conv2d(half, half, 3, 1, 1, groups=half),
        _with_norm(draw, nn.Conv2d(half, half, 1), half),
    )

    def apply(x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([kept, branch(changed)], 1), 2)

    return "unit", (index,), apply, branch


@part(3)
def pooled(draw, values, index):
    if not _image(values[index]):
        return None
    kernel, stride = draw.choice([(2, 2), (3, 1), (3, 2), ((1, 2), 1)])
    padding = draw.choice([0, 0, 1]) if kernel == 3 else 0
    kinds = {
        "max": lambda x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil),
        "average": lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, include),
        "global": lambda x: F.adaptive_avg_pool2d(x, 1),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        "mean": lambda x: x.mean((2, 3), keepdim=True),
    }
    ceil, include, name = draw.random() < 0.3, draw.random() < 0.5, draw.choice(list(kinds))
    return f"pool {name}", (index,), kinds[name], None


@part(1)
def resized(draw, values, index):
    if not _image(values[index]):
        return None
    mode = draw.choice(["nearest", "bilinear"])
    return f"resize {mode}", (index,), lambda x: F.interpolate(x, scale_factor=2, mode=mode), None


@part(2)
def gated(draw, values, index):
    """Squeeze and excite."""
    if not _image(values[index]):
        return None
    channels = values[index].shape[1]
    layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Hardsigmoid())
    return "gated", (index,), lambda x: x * layer(x), layer


@part(2)
def classified(draw, values, index):
    value = values[index]
    outputs, rectified = draw.choice([5, 10, 16]), draw.random() < 0.3
    if _image(value) and draw.random() < 0.7:
        layer = nn.Linear(value.shape[1], outputs)
        mean = draw.choice([lambda x: x.mean((2, 3)), lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)])
        return "classified", (index,), lambda x: torch.relu(layer(mean(x))) if rectified else layer(mean(x)), layer
    if value.dim() == 0 or not 0 < value.shape[-1] <= 64:
        return None
    layer = nn.Linear(value.shape[-1], outputs, bias=draw.random() < 0.7)
    return "linear", (index,), layer, layer


@part(2)
def reshaped(draw, values, index):
    """The same elements in another shape, of four axes with preference."""
    value = values[index]
    if value.numel() == 0:
        return None
    batch, rest = value.shape[0] if value.dim() else 1, value.numel() // (value.shape[0] if value.dim() else 1)
    divisors = [each for each in range(1, min(rest, 32) + 1) if rest % each == 0]
    planes = draw.choice(divisors)
    height = draw.choice([each for each in divisors if rest // planes % each == 0])
    shapes = [(batch, planes, height, -1), (batch, planes, height, -1), (batch, -1), (-1,), (1, *value.shape)]
    shape = draw.choice(shapes)
    return f"reshape {shape}", (index,), lambda x: x.reshape(shape), None


@part(1)
def without_elements(draw, values, index):
    if values[index].dim() == 0:
        return None
    axis = draw.randrange(values[index].dim())
    return "without elements", (index,), lambda x: x.narrow(axis, 0, 0), None


@part(1)
def reduced(draw, values, index):
    if values[index].dim() == 0:
        return None
    axis, keep = draw.randrange(values[index].dim()), draw.random() < 0.5
    kind = draw.choice(["sum", "mean"])
    return f"reduced {kind}", (index,), lambda x: getattr(x, kind)(axis, keepdim=keep), None


@part(1)
def transposed_image(draw, values, index):
    order = list(range(values[index].dim()))
    draw.shuffle(order)
    return f"permute {order}", (index,), lambda x: x.permute(order), None


def inputs(network: Generated, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Different inputs of a network, the last of them large."""
    numbers = np.random.default_rng(seed)
    for number in range(count):
        yield numbers.standard_normal(network.shape, dtype=np.float32) * (20.0 if number == count - 1 else 1.0)
