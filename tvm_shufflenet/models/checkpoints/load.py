"""Loads checkpoints into models, strictly, under the parameter names of popular implementations.

A naming belongs to an arithmetic (``shufflenet_v1.ARITHMETICS``): a checkpoint trained with one is refused by a
network of another, even where every shape fits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...errors import BadInput, lines_of
from ..zoo.shufflenet_v1 import ARITHMETICS, STAGE_REPEATS, ShuffleNetV1
from .safetensors_files import is_safetensors, read_safetensors
from .state_dicts import State, states_in

# How a zoo network is made, given its number of ``classes``; and all of them by name.
Builder = Callable[..., nn.Module]
Zoo = Iterable[tuple[str, Builder]]
MOST_NAMES = 6  # that an error lists of each kind
NUMBERED = {
    "compress": "conv1",
    "compress_bn": "bn1",
    "depthwise": "conv2",
    "depthwise_bn": "bn2",
    "expand": "conv3",
    "expand_bn": "bn3",
}


@dataclass(frozen=True)
class Naming:
    """How an implementation of ShuffleNet v1 calls our modules. ``unit`` may use {stage}, {index} and {unit}."""

    source: str
    arithmetic: str
    stem: str
    stem_bn: str
    unit: str
    layers: dict[str, str]
    classifier: str

    def name_of(self, ours: str) -> str:
        """The implementation's name of our parameter ``units.5.expand.weight``, ``stem.weight``, ..."""
        if not ours.startswith("units."):
            layer, _, parameter = ours.partition(".")
            return f"{getattr(self, layer)}.{parameter}"
        _, unit, layer, parameter = ours.split(".")
        stage, index = _stage_and_index(int(unit))
        return f"{self.unit.format(stage=stage, index=index, unit=unit)}.{self.layers[layer]}.{parameter}"


NAMINGS = (
    Naming(
        source="jaxony/ShuffleNet",
        arithmetic="biased",
        stem="conv1",
        stem_bn="",
        unit="stage{stage}.ShuffleUnit_Stage{stage}_{index}",
        layers={
            "compress": "g_conv_1x1_compress.conv1x1",
            "compress_bn": "g_conv_1x1_compress.batch_norm",
            "depthwise": "depthwise_conv3x3",
            "depthwise_bn": "bn_after_depthwise",
            "expand": "g_conv_1x1_expand.conv1x1",
            "expand_bn": "g_conv_1x1_expand.batch_norm",
        },
        classifier="fc",
    ),
    Naming("KaiyangZhou/deep-person-reid", "", "conv1.0", "conv1.1", "stage{stage}.{index}", NUMBERED, "classifier"),
    Naming("conv1, stage2, ..., fc", "relu", "conv1", "bn1", "stage{stage}.{index}", NUMBERED, "fc"),
    Naming("conv1.0, stage2, ..., fc", "relu", "conv1.0", "conv1.1", "stage{stage}.{index}", NUMBERED, "fc"),
    Naming(
        source="megvii-model/ShuffleNet-Series",
        arithmetic="megvii",
        stem="first_conv.0",
        stem_bn="first_conv.1",
        unit="features.{unit}",
        layers={
            "compress": "branch_main_1.0",
            "compress_bn": "branch_main_1.1",
            "depthwise": "branch_main_1.3",
            "depthwise_bn": "branch_main_1.4",
            "expand": "branch_main_2.0",
            "expand_bn": "branch_main_2.1",
        },
        classifier="classifier.0",
    ),
)


def _stage_and_index(unit: int) -> tuple[int, int]:
    """Stage, counted from 2 as in Table 1, and position in it of the ``unit``-th unit of the network."""
    for stage, repeats in enumerate(STAGE_REPEATS, 2):
        if unit < repeats:
            return stage, unit
        unit -= repeats
    raise ValueError("no such unit")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file of torch.save or of safetensors, by the names its author gave them: ``states`` of several
    places and spellings, the preferred first.
    """

    path: Path
    states: tuple[State, ...]


@dataclass(frozen=True)
class _Match:
    """The ``state`` of a checkpoint that is a network's, and our name of each of its tensors."""

    path: Path
    state: dict[str, object]
    ours: dict[str, str]
    note: str


def read_checkpoint(path: Path) -> Checkpoint:
    """The named tensors at ``path``; nothing else of the file is unpickled. Raises BadInput."""
    return Checkpoint(path, tuple(states_in(_read(path))))


def load_weights(module: nn.Module, checkpoint: Checkpoint, zoo: Zoo = ()) -> str:
    """The checkpoint into ``module``, every tensor of it and every tensor of the module. Returns what was chosen where
    several states of the checkpoint fit, else nothing.

    Only counters of batches may lack: they take no part in inference, and checkpoints older than torch 0.4.1 have
    none. Raises BadInput, which lists the missing, unexpected and misshapen tensors and the networks of ``zoo`` that
    the checkpoint fits, or those tensors that hold NaN.
    """
    match = _match(module, checkpoint)
    misfits = _misfits(match.state, _wanted(module, match))
    if misfits:
        fitting = _fitting(checkpoint, zoo) if match.state else []
        raise BadInput(
            f"{checkpoint.path} does not fit the model: {misfits}",
            "a checkpoint of another network or width",
            f"it fits --model {' or '.join(fitting[:MOST_NAMES])}" if fitting else "",
        )
    _check_numbers(match)
    module.load_state_dict({match.ours[name]: value for name, value in match.state.items()}, strict=False)
    return match.note


def classes_in(checkpoint: Checkpoint, build: Builder) -> int | None:
    """The number of classes of the checkpoint's classifier, where it is one of the network that ``build`` makes.

    ``build`` takes ``classes``. None where the checkpoint has no such tensors, or where they disagree.
    """
    module, other = _without_storage(build, classes=1000), _without_storage(build, classes=1001)
    try:
        match = _match(module, checkpoint)
    except BadInput:  # a checkpoint of another arithmetic; loading it says so
        return None
    shapes, others = ({name: value.shape for name, value in m.state_dict().items()} for m in (module, other))
    counts = set()
    for name, ours in match.ours.items():
        if shapes[ours] != others[ours]:  # it is the classifier's
            found = match.state.get(name)
            fits = _is_real(found) and found.ndim == len(shapes[ours]) and found.shape[1:] == shapes[ours][1:]
            counts.add(found.shape[0] if fits else None)
    return counts.pop() if len(counts) == 1 else None


def _fitting(checkpoint: Checkpoint, zoo: Zoo) -> list[str]:
    """The networks of ``zoo`` that the checkpoint is one of."""
    fitting = []
    for name, build in zoo:
        with suppress(BadInput):  # of another arithmetic
            if _fits(checkpoint, build):
                fitting.append(name)
    return fitting


def _fits(checkpoint: Checkpoint, build: Builder) -> bool:
    """Whether the checkpoint, whatever its number of classes, is one of the network that ``build`` makes."""
    module = _without_storage(build)
    match = _match(module, checkpoint)
    wanted = _wanted(module, match)
    if not match.state.keys() <= wanted.keys():
        return False
    shapes = ((getattr(match.state.get(name), "shape", None), tensor.shape) for name, tensor in wanted.items())
    if sum(found is not None and found != shape for found, shape in shapes) > len(("weight", "bias")):
        return False  # more than a classifier differs: the usual case, told quickly
    classes = classes_in(checkpoint, build)
    if not classes:
        return False
    return not _misfits(match.state, _wanted(_without_storage(build, classes=classes), match))


def _wanted(module: nn.Module, match: _Match) -> dict[str, torch.Tensor]:
    """The tensors of ``module`` by the checkpoint's names."""
    tensors = module.state_dict()
    return {name: tensors[ours] for name, ours in match.ours.items()}


def _without_storage(build: Builder, **arguments: int) -> nn.Module:
    with torch.device("meta"):
        return build(**arguments)


def _read(path: Path) -> dict:
    """What the file holds: named tensors, or containers of some. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"there is no file {path}", "", "write --weights FILE.pth, or FILE.safetensors")
    try:
        loaded = read_safetensors(path) if is_safetensors(path) else _unpickled(path)
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror or exc}", "", "correct its permissions") from exc
    if not isinstance(loaded, dict):
        raise BadInput(
            f"{path} does not fit the model: it holds a {type(loaded).__name__}, not named tensors",
            "",
            "save model.state_dict()",
        )
    return loaded


def _unpickled(path: Path) -> object:
    try:
        # Options of training scripts, kept beside the tensors: a namespace has no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as exc:
        raise BadInput(
            f"{path} is no checkpoint that can be loaded safely",
            lines_of(exc)[0][:200],
            "save the tensors alone: torch.save(model.state_dict(), FILE.pth)",
        ) from exc


def _match(module: nn.Module, checkpoint: Checkpoint) -> _Match:
    """The state and the naming that have the most of the module's names, and the fewest others; the first of equals.

    Raises BadInput.
    """
    wanted = list(module.state_dict())
    ours = {name: name for name in wanted}
    known: list[tuple[Naming | None, dict[str, str]]] = [(None, ours)]
    if isinstance(module, ShuffleNetV1):
        known += [(naming, {naming.name_of(name): name for name in wanted}) for naming in NAMINGS]
    found = [
        (len(names.keys() & state.tensors.keys()), -len(state.tensors.keys() - names.keys()), state, naming, names)
        for state in checkpoint.states
        for naming, names in known
    ]
    count, _, state, naming, names = max(found, key=lambda entry: entry[:2])
    if naming is not None and 2 * count <= len(names):  # every network has some layer called conv1
        naming, names = None, ours
    if naming is not None and ARITHMETICS[naming.arithmetic] != module.arithmetic:
        suffix = f"ends in _{naming.arithmetic}" if naming.arithmetic else "has no suffix"
        raise BadInput(
            f"{checkpoint.path} does not fit the model: it has the names of {naming.source}, which computes something "
            "else",
            "",
            f"name the --model that {suffix}, or rename the tensors as in {wanted[0]}",
        )
    others = {other.keys: other.label for size, _, other, *_ in found if size == count and other.keys != state.keys}
    note = ""
    if others:
        why = "averaged weights come first" if state.averaged else "the first that fits"
        note = f"weights: {state.label} of {checkpoint.path}, not {', '.join(others.values())}: {why}"
    return _Match(checkpoint.path, state.tensors, names, note)


def _misfits(state: dict[str, object], wanted: dict[str, torch.Tensor]) -> str:
    """What is missing, unexpected, misshapen or no tensor, with the first names of each; empty for a fit."""
    missing = [name for name in wanted if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    both = [name for name in wanted if name in state]
    strange = [name for name in both if not _is_real(state[name])]
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in both
        if name not in strange and state[name].shape != wanted[name].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "no numbers": strange}
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in lists.items() if names)


def _check_numbers(match: _Match) -> None:
    """Raises BadInput for what is no number in float32, as it is loaded."""
    for kind, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        spoilt = [name for name in match.ours if name in match.state and test(match.state[name].float()).any()]
        if spoilt:
            raise BadInput(
                f"{match.path} holds {kind} in {_some(spoilt)}",
                "a training run that diverged",
                "take an earlier checkpoint",
            )


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _is_real(value: object) -> bool:
    """Whether ``value`` is an ordinary tensor of real numbers."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_nested
        and not (value.is_complex() or value.is_quantized or value.is_meta)
    )
