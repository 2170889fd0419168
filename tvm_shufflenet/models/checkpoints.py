"""Checkpoints into models: strict, under the names that popular implementations use.

A naming belongs to an arithmetic (``shufflenet_v1.ARITHMETICS``): a checkpoint trained with one is refused by a
network of another, even where every shape fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import BadInput
from .shufflenet_v1 import ARITHMETICS, STAGE_REPEATS, ShuffleNetV1

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


def load_weights(module: nn.Module, path: Path) -> None:
    """The checkpoint at ``path`` into ``module``, every tensor of it and every tensor of the module.

    Only counters of batches may lack: they take no part in inference, and checkpoints older than torch 0.4.1 have
    none. Raises BadInput, which lists all missing, unexpected and misshapen tensors, or those that hold NaN.
    """
    state = _read(path)
    wanted = module.state_dict()
    ours_by_name = {name: name for name in wanted}
    if isinstance(module, ShuffleNetV1):
        ours_by_name = _rename(module, state, path)
    _check(state, {name: wanted[ours] for name, ours in ours_by_name.items()}, path)
    module.load_state_dict({ours_by_name[name]: value for name, value in state.items()}, strict=False)


def _read(path: Path) -> dict[str, object]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        reason = str(exc).splitlines() or [type(exc).__name__]
        raise BadInput(f"{path} is no checkpoint that can be loaded safely", reason[0], "") from exc
    if isinstance(state, dict):
        state = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict):
        raise BadInput(
            f"{path} does not fit the model: it holds a {type(state).__name__}, not named tensors",
            "",
            "save model.state_dict()",
        )
    state = {str(name): value for name, value in state.items()}
    if state and all(name.startswith("module.") for name in state):  # saved from nn.DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _rename(module: ShuffleNetV1, state: dict[str, object], path: Path) -> dict[str, str]:
    """Our name of each tensor under the naming that the checkpoint is nearest to. Raises BadInput."""
    wanted = module.state_dict()
    ours = {name: name for name in wanted}
    known = [(None, ours)] + [(naming, {naming.name_of(name): name for name in wanted}) for naming in NAMINGS]
    naming, names = max(known, key=lambda entry: len(entry[1].keys() & state.keys()))  # the first of equals
    if naming is not None and ARITHMETICS[naming.arithmetic] != module.arithmetic:
        suffix = f"ends in _{naming.arithmetic}" if naming.arithmetic else "has no suffix"
        raise BadInput(
            f"{path} does not fit the model: it has the names of {naming.source}, which computes something else",
            "",
            f"name the --model that {suffix}, or rename the tensors as in {next(iter(wanted))}",
        )
    return names


def _check(state: dict[str, object], wanted: dict[str, torch.Tensor], path: Path) -> None:
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
    if any(lists.values()):
        what = "; ".join(f"{len(names)} {kind}: {', '.join(names)}" for kind, names in lists.items() if names)
        raise BadInput(f"{path} does not fit the model: {what}", "a checkpoint of another network or width", "")
    for kind, test in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        spoilt = [name for name in both if test(state[name]).any()]
        if spoilt:
            raise BadInput(f"{path} holds {kind} in {', '.join(spoilt)}", "a training run that diverged", "")


def _is_real(value: object) -> bool:
    """Whether ``value`` is an ordinary tensor of real numbers."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_complex() or value.is_quantized or value.is_meta)
    )
