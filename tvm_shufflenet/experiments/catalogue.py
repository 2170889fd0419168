"""Every experiment, one entry each: which networks at which sizes, and what the paper printed of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import BadInput, UnknownName
from ..models import GROUPS, Model, find_model
from ..models.papers import FIGURES, SHUFFLENET_V1

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


@dataclass(frozen=True)
class Case:
    """One network at one ``size``. ``paper_ms`` and ``paper_macs_m`` (millions) are as printed, None where nothing is.

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
    """``paper_device`` is what the paper's times were measured on, None where it printed none. With ``untuned``, TVM's
    own code is timed as well."""

    name: str
    title: str
    source: str
    cases: tuple[Case, ...]
    paper_device: str | None = None
    untuned: bool = False

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


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "table8", "Latency on a mobile device", f"{SHUFFLENET_V1}, Table 8", _table8(),
            "one thread of a Qualcomm Snapdragon 820",
        ),
        Experiment(
            "groups", "Groups at equal multiply-adds", f"{SHUFFLENET_V1}, Tables 1 and 2", _groups(),
        ),
        Experiment(
            "shuffle", "What a channel shuffle costs", f"{SHUFFLENET_V1}, Table 3", _shuffle(), untuned=True,
        ),
    )
}  # fmt: skip


def find_experiment(name: str) -> Experiment:
    """Raises UnknownName."""
    if name not in EXPERIMENTS:
        raise UnknownName("table", name, EXPERIMENTS, "tvm-shufflenet reproduce --help")
    return EXPERIMENTS[name]
