"""The zoo, and models from the user's own files."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput, UnknownName
from .model import Model

if TYPE_CHECKING:
    from torch import nn

DEFAULT = "shufflenet_v1_g3_x1_0"
IMAGENET_SHAPE = (1, 3, 224, 224)
IMAGENET_CLASSES = 1000
GROUPS = (1, 2, 3, 4, 8)
WIDTHS = {"0_25": 0.25, "0_5": 0.5, "1_0": 1.0, "1_5": 1.5, "2_0": 2.0}
V2_WIDTHS = {name: width for name, width in WIDTHS.items() if width >= 0.5}
# Groups and widths of the popular implementations that depart from the paper (shufflenet_v1.ARITHMETICS).
V1_VARIANTS = {"biased": (GROUPS, ("1_0",)), "relu": (GROUPS, tuple(WIDTHS)), "megvii": ((3, 8), tuple(V2_WIDTHS))}


def names() -> list[str]:
    """Every zoo name."""
    from .zoo.ablation import ABLATIONS
    from .zoo.baselines import BASELINES

    v1 = [f"shufflenet_v1_g{groups}_x{width}" for groups in GROUPS for width in WIDTHS]
    variants = [
        f"shufflenet_v1_g{count}_x{width}_{variant}"
        for variant, (groups, widths) in V1_VARIANTS.items()
        for count in groups
        for width in widths
    ]
    v2 = [f"shufflenet_v2_x{width}" for width in V2_WIDTHS]
    return v1 + variants + v2 + list(BASELINES) + list(ABLATIONS)


def find_model(
    spec: str,
    *,
    weights: Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> Model:
    """The model that ``--model`` names: a zoo name, ``FILE.pt2``, ``FILE.onnx``, or ``FILE.py:factory``.

    A zoo model has random weights drawn from ``seed``, scaled so that every layer tells images apart, unless
    ``weights`` names a checkpoint. It has as many ``classes`` as told, else as the checkpoint's classifier, else 1000.
    Raises UnknownName, BadInput or ImportFailed.
    """
    if input_shape is not None and (len(input_shape) != 4 or min(input_shape) < 1):
        raise BadInput(f"no network here takes input {input_shape}", "", "give four positive numbers: N,C,H,W")
    path, _, factory = spec.rpartition(":")
    if is_file(spec) and classes is not None:
        raise BadInput("--classes is for networks of the zoo", "", "give the model of the file that many classes")
    if spec.endswith(".pt2"):
        return _from_export(Path(spec), weights, input_shape)
    if spec.endswith(".onnx"):
        return _from_onnx(Path(spec), weights, input_shape)
    if path.endswith(".py"):
        return _from_factory(Path(path), factory, weights, input_shape or IMAGENET_SHAPE)
    if spec.endswith(".py"):
        raise BadInput(f"{spec} names no factory", "", f"write --model {spec}:FACTORY, a function without arguments")
    check_name(spec)
    return _from_zoo(spec, weights, input_shape or IMAGENET_SHAPE, classes, seed)


def is_file(spec: str) -> bool:
    """Whether ``--model`` names a file, not a network of the zoo."""
    return spec.endswith((".pt2", ".onnx", ".py")) or spec.rpartition(":")[0].endswith(".py")


def check_name(name: str) -> None:
    """Raises UnknownName, with the nearest names, for one that is not in the zoo."""
    if name not in names():
        raise UnknownName("model", name, names(), "tvm-shufflenet models")


def _from_zoo(name: str, weights: Path | None, input_shape: tuple[int, ...], classes: int | None, seed: int) -> Model:
    import torch

    from .checkpoints.load import classes_in, load_weights, read_checkpoint
    from .zoo.random_weights import keep_alive

    checkpoint = read_checkpoint(weights) if weights is not None else None
    found = classes_in(checkpoint, builder(name)) if checkpoint is not None else None
    if found is not None and classes is not None and found != classes:
        raise BadInput(f"{weights} has {found} classes, --classes says {classes}", "", "leave --classes out")
    count = classes or found or IMAGENET_CLASSES
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = builder(name)(classes=count)
        randomise_batch_norms(module)
        if checkpoint is None:
            keep_alive(module)
    notes = (f"classes: {count}, as in {weights}",) if count not in (classes, IMAGENET_CLASSES) else ()
    if checkpoint is not None:
        chosen = load_weights(module, checkpoint, [(other, builder(other)) for other in names()])
        notes += (chosen,) if chosen else ()
    return Model(name, input_shape, module.eval(), notes=notes)


def _from_export(path: Path, weights: Path | None, input_shape: tuple[int, ...] | None) -> Model:
    from .sources.exported_files import load_program

    if weights is not None:
        raise BadInput(f"--weights does not apply to {path}", "a .pt2 holds its weights", "leave --weights out")
    program, shape = load_program(path, input_shape)
    return Model(path.stem, shape, program=program)


def _from_onnx(path: Path, weights: Path | None, input_shape: tuple[int, ...] | None) -> Model:
    from .sources.onnx_files import load_onnx

    if weights is not None:
        raise BadInput(f"--weights does not apply to {path}", "an .onnx holds its weights", "leave --weights out")
    return load_onnx(path, input_shape)


def _from_factory(path: Path, factory: str, weights: Path | None, input_shape: tuple[int, ...]) -> Model:
    """A fresh nn.Module is in training mode, whatever its author wants with it: here it is deployed."""
    from .checkpoints.load import load_weights, read_checkpoint
    from .sources.factories import make_module

    module = make_module(path, factory)
    chosen = load_weights(module, read_checkpoint(weights)) if weights is not None else ""
    return Model(f"{path.stem}_{factory}", input_shape, module.eval(), notes=(chosen,) if chosen else ())


def builder(name: str) -> Callable[..., nn.Module]:
    """What makes a zoo network, given its number of ``classes``."""
    from .zoo.ablation import ABLATIONS
    from .zoo.baselines import BASELINES
    from .zoo.shufflenet_v1 import ARITHMETICS, ShuffleNetV1
    from .zoo.shufflenet_v2 import ShuffleNetV2

    if name in BASELINES or name in ABLATIONS:
        return (BASELINES | ABLATIONS)[name]
    version, groups, width, variant = re.fullmatch(
        r"shufflenet_(v1|v2)_(?:g(\d)_)?x(\d_\d+)_?(biased|relu|megvii)?", name
    ).groups()
    if version == "v2":
        return partial(ShuffleNetV2, WIDTHS[width])
    return partial(ShuffleNetV1, int(groups), WIDTHS[width], arithmetic=ARITHMETICS[variant or ""])


def randomise_batch_norms(module: nn.Module) -> None:
    """Statistics and factors as after training, drawn from torch's random state: a fresh one is an identity."""
    import torch
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                layer.running_mean.uniform_(-0.1, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.1, 0.1)
