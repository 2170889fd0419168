"""All experiments, one entry each: networks, input sizes, and the figures that the paper printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import BadInput, UnknownName
from ..models import GROUPS, Model, find_model
from ..models.zoo.papers import FIGURES, SHUFFLENET_V1, SHUFFLENET_V2

if TYPE_CHECKING:
    from torch import nn

Size = tuple[int, int]  # height, width


def zoo(name: str) -> Callable[[Size], Model]:
    return lambda size: find_model(name, input_shape=(1, 3, *size))


def without_shuffle(name: str) -> Callable[[Size], Model]:
    """A ShuffleNet v1 whose groups never exchange channels: the left column of Table 3."""

    def make(size: Size) -> Model:
        model = find_model(name, input_shape=(1, 3, *size))
        for unit in model.module.units:
            unit.shuffle_groups = 1
        return replace(model, name=f"{name}_no_shuffle")

    return make


BLOCKS = 10  # of a guideline's stack, as in the paper


def stack(name: str, channels: int, block: Callable[[ModuleType], nn.Module]) -> Callable[[Size], Model]:
    """``BLOCKS`` of what ``block`` makes with the module ``guidelines``, which waits with PyTorch until it is used."""

    def make(size: Size) -> Model:
        from . import guidelines

        return Model(name, (1, channels, *size), guidelines.stacked(lambda: block(guidelines), BLOCKS))

    return make


@dataclass(frozen=True)
class Case:
    """One network at one ``size``. ``paper_ms`` and ``paper_macs_m`` (millions) are as printed, None where nothing is;
    where the paper prints images a second, ``paper_ms`` is a thousand divided by them.

    ``against`` is the label of the case at the same size that its speedup is over.
    """

    label: str
    make: Callable[[Size], Model]
    size: Size = (224, 224)
    paper_ms: float | None = None
    paper_macs_m: float | None = None
    against: str | None = None


@dataclass(frozen=True)
class Experiment:
    """``paper_device`` is what the paper's times were measured on, None where it printed none; ``over`` says what
    speedups are over. With ``untuned``, TVM's own code is timed as well.

    An experiment of a ``guideline`` compares each case with the one that follows it, which is ``against``: the others
    should be slower. What it adds beside convolutions are ``elementwise`` operations. Such cases differ by little, so
    that each of their operators has ``trials`` first, where it has had none. ``notes`` tell what is unlike the paper.
    """

    name: str
    title: str
    source: str
    cases: tuple[Case, ...]
    paper_device: str | None = None
    over: str = "the line above"
    untuned: bool = False
    guideline: str | None = None
    elementwise: str | None = None
    trials: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> list[Size]:
        return list(dict.fromkeys(case.size for case in self.cases))

    def at(self, sizes: list[Size]) -> Experiment:
        """With the cases of these sizes only. Raises BadInput for one that it does not have."""
        unknown = [size for size in sizes if size not in self.sizes]
        if unknown:
            known = ", ".join(map(size_name, self.sizes))
            raise BadInput(f"{self.name} has no size {size_name(unknown[0])}", f"it has {known}", "name one of these")
        return replace(self, cases=tuple(case for case in self.cases if case.size in sizes))


def size_name(size: Size) -> str:
    return "x".join(map(str, size))


def _table8() -> tuple[Case, ...]:
    sizes = ((224, 224), (480, 640), (720, 1280))
    rows = (
        ("ShuffleNet 0.5x (g=3)", "shufflenet_v1_g3_x0_5", 38, (15.2, 87.4, 260.1)),
        ("ShuffleNet 1x (g=3)", "shufflenet_v1_g3_x1_0", 140, (37.8, 222.2, 684.5)),
        ("ShuffleNet 2x (g=3)", "shufflenet_v1_g3_x2_0", 524, (108.8, 617.0, 1857.6)),
        ("AlexNet", "alexnet", 720, (184.0, 1156.7, 3633.9)),
        ("1.0 MobileNet-224", "mobilenet_v1", 569, (110.0, 612.0, 1879.2)),
    )
    # The paper's multiply-adds are those at 224x224.
    return tuple(
        Case(label, zoo(name), size, ms, macs if size == sizes[0] else None, "AlexNet")
        for column, size in enumerate(sizes)
        for label, name, macs, times in rows
        for ms in (times[column],)
    )


def _groups() -> tuple[Case, ...]:
    names = {groups: f"shufflenet_v1_g{groups}_x1_0" for groups in GROUPS}
    return tuple(
        Case(f"ShuffleNet 1x (g={groups})", zoo(name), paper_macs_m=FIGURES[name].macs_m, against="ShuffleNet 1x (g=1)")
        for groups, name in names.items()
    )


def _shuffle() -> tuple[Case, ...]:
    # The widths and groups of Table 3. Its figures are errors, so none stands here.
    pairs = {
        f"{width}x (g={groups})": f"shufflenet_v1_g{groups}_x{zoo_width}"
        for width, zoo_width, groups in (("1", "1_0", 3), ("1", "1_0", 8), ("0.5", "0_5", 3), ("0.25", "0_25", 3))
    }
    return tuple(
        case
        for label, name in pairs.items()
        for case in (
            Case(f"{label}, no shuffle", without_shuffle(name)),
            Case(f"{label}, shuffle", zoo(name), against=f"{label}, no shuffle"),
        )
    )


FEATURE_MAP = (56, 56)


def _per_second(images: float) -> float:
    """Milliseconds for an image."""
    return 1e3 / images


def _stacks(follows: str, *rows: tuple) -> tuple[Case, ...]:
    """Of rows of label, name, channels, block and the paper's images a second; ``follows`` is the guideline's own."""
    return tuple(
        Case(label, stack(name, channels, block), FEATURE_MAP, _per_second(images), against=follows)
        for label, name, channels, block, images in rows
    )


def _ratios() -> tuple[Case, ...]:
    rows = (("1:1", 32, 32, 76.2), ("1:2", 22, 44, 72.9), ("1:6", 13, 78, 69.1), ("1:12", 9, 108, 57.6))
    return _stacks(
        "1:1 (32, 32)",
        *(
            (f"{ratio} ({c1}, {c2})", f"g1_{c1}_{c2}", c1, lambda blocks, c=(c1, c2): blocks.ratio(*c), images)
            for ratio, c1, c2, images in rows
        ),
    )


def _group_numbers() -> tuple[Case, ...]:
    rows = ((1, 64, 40.0), (2, 90, 35.0), (4, 128, 32.9), (8, 184, 27.8))
    return _stacks(
        "g=1 (c=64)",
        *(
            (f"g={g} (c={c})", f"g2_{c}_g{g}", c, lambda blocks, c=c, g=g: blocks.grouped(c, g), images)
            for g, c, images in rows
        ),
    )


def _fragments() -> tuple[Case, ...]:
    # Twice or four times as many convolutions have channels divided by the root of that: 64, 45 and 32.
    return _stacks(
        "1-fragment",
        ("1-fragment", "g3_1", 64, lambda blocks: blocks.series(64, 1), 40.2),
        ("2-fragment-series", "g3_series_2", 45, lambda blocks: blocks.series(45, 2), 38.6),
        ("4-fragment-series", "g3_series_4", 32, lambda blocks: blocks.series(32, 4), 38.4),
        ("2-fragment-parallel", "g3_parallel_2", 45, lambda blocks: blocks.Parallel(45, 2), 33.4),
        ("4-fragment-parallel", "g3_parallel_4", 32, lambda blocks: blocks.Parallel(32, 4), 35.0),
    )


def _elementwise() -> tuple[Case, ...]:
    rows = (
        ("ReLU, shortcut", True, True, 16.9),
        ("ReLU", True, False, 18.8),
        ("shortcut", False, True, 18.2),
        ("neither", False, False, 20.2),
    )
    return _stacks(
        "neither",
        *(
            (label, f"g4_{relu:d}{add:d}", 64, lambda blocks, on=(relu, add): blocks.Bottleneck(64, *on), images)
            for label, relu, add, images in rows
        ),
    )


def _complexities() -> tuple[Case, ...]:
    # Multiply-adds and ARM's images a second, of v2, v1 (g=3) and MobileNet v1, as Table 8 has them.
    levels = (
        ("0.5x", "0.5x", "0.25", "0_5", "0_5", "x0_25", ((41, 57.0), (38, 56.8), (41, 36.4))),
        ("1x", "1x", "0.5", "1_0", "1_0", "x0_5", ((146, 24.4), (140, 21.8), (149, 16.5))),
        ("1.5x", "1.5x", "0.75", "1_5", "1_5", "x0_75", ((299, 11.8), (292, 10.3), (325, 10.6))),
        ("2x", "2x", "1.0", "2_0", "2_0", "x1_0", ((591, 6.7), (524, 6.4), (569, 6.5))),
    )
    cases = []
    for v2, v1, mobile, v2_name, v1_name, mobile_name, figures in levels:
        against = f"{mobile} MobileNet v1"
        named = (
            (f"ShuffleNet v2 {v2}", f"shufflenet_v2_x{v2_name}"),
            (f"ShuffleNet v1 {v1}", f"shufflenet_v1_g3_x{v1_name}"),
            (against, f"mobilenet_v1_{mobile_name}"),
        )
        for (label, name), (macs, images) in zip(named, figures, strict=True):
            cases.append(Case(label, zoo(name), paper_ms=_per_second(images), paper_macs_m=macs, against=against))
    return tuple(cases)


SNAPDRAGON_810 = "a thread of a Snapdragon 810 (images/s there)"
TRIALS = 16
ONE_SCALE = "the paper's x1 for ARM alone: its x2 and x4 take an emulated core minutes"
CPU_COLUMN = "the paper's column is headed CPU; its text speaks of it as ARM"

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "table8", "Latency on a mobile device", f"{SHUFFLENET_V1}, Table 8", _table8(),
            "one thread of a Qualcomm Snapdragon 820", "AlexNet",
        ),
        Experiment(
            "groups", "Groups at equal multiply-adds", f"{SHUFFLENET_V1}, Tables 1 and 2", _groups(),
            over="ShuffleNet 1x (g=1)",
        ),
        Experiment(
            "shuffle", "What a channel shuffle costs", f"{SHUFFLENET_V1}, Table 3", _shuffle(), untuned=True,
        ),
        Experiment(
            "g1", "Guideline G1, channel ratios of 1x1 convolutions", f"{SHUFFLENET_V2}, Table 1", _ratios(),
            SNAPDRAGON_810, "1:1", trials=TRIALS, guideline="equal channel widths are fastest",
            notes=(ONE_SCALE,),
        ),
        Experiment(
            "g2", "Guideline G2, groups of pointwise convolutions", f"{SHUFFLENET_V2}, Table 2", _group_numbers(),
            SNAPDRAGON_810, "g=1", trials=TRIALS, guideline="more groups are slower",
            notes=(ONE_SCALE, CPU_COLUMN, "g=8 has 184 channels: the paper's 180 do not make eight groups"),
        ),
        Experiment(
            "g3", "Guideline G3, fragmentation", f"{SHUFFLENET_V2}, Table 3", _fragments(),
            SNAPDRAGON_810, "1-fragment", trials=TRIALS, guideline="more fragments are slower",
            notes=(ONE_SCALE, CPU_COLUMN, "parallel fragments are summed: the paper's text does not say how they join"),
        ),
        Experiment(
            "g4", "Guideline G4, element-wise operations", f"{SHUFFLENET_V2}, Table 4, c=64", _elementwise(),
            SNAPDRAGON_810, "neither", trials=TRIALS, guideline="ReLUs and shortcuts cost time",
            elementwise="ReLUs and sums",
            notes=(
                CPU_COLUMN,
                "the table names neither image size nor bottleneck: 56x56 and a quarter of c here, so compare ratios",
            ),
        ),
        Experiment(
            "networks", "Networks at 40, 140, 300 and 500 MFLOPs", f"{SHUFFLENET_V2}, Table 8", _complexities(),
            SNAPDRAGON_810, "MobileNet v1 of the same level",
        ),
    )
}  # fmt: skip


def find_experiment(name: str) -> Experiment:
    """Raises UnknownName."""
    if name not in EXPERIMENTS:
        raise UnknownName("table", name, EXPERIMENTS, "tvm-shufflenet reproduce --help")
    return EXPERIMENTS[name]
