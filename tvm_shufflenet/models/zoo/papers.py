"""Complexities printed in the papers, to compare with our counts."""

from __future__ import annotations

from dataclasses import dataclass

SHUFFLENET_V1, SHUFFLENET_V2 = "ShuffleNet v1 (arXiv:1707.01083)", "ShuffleNet v2 (arXiv:1807.11164)"


@dataclass(frozen=True)
class Figure:
    """``macs_m`` million multiply-adds as printed in ``source``; ``margin`` is the share that a count may differ."""

    macs_m: float
    source: str
    margin: float = 0.02


def _figures(source: str, macs_m: dict[str, float], margin: float = 0.02) -> dict[str, Figure]:
    return {name: Figure(value, source, margin) for name, value in macs_m.items()}


# By zoo name. Table 2 of ShuffleNet v1 has one figure for all groups of a width. It is left out for g=8 below 1x, where
# no stem of 8 or 16 channels gives it: the authors' own code has 16 at 0.5x (shufflenet_v1.stem_channels), 40 M in all.
FIGURES: dict[str, Figure] = {
    **_figures(
        f"{SHUFFLENET_V1}, Table 1",
        {
            "shufflenet_v1_g1_x1_0": 143,
            "shufflenet_v1_g2_x1_0": 140,
            "shufflenet_v1_g3_x1_0": 137,
            "shufflenet_v1_g4_x1_0": 133,
            "shufflenet_v1_g8_x1_0": 137,
        },
    ),
    **_figures(f"{SHUFFLENET_V1}, Table 2", {f"shufflenet_v1_g{g}_x0_5": 38 for g in (1, 2, 3, 4)}),
    # Printed without a decimal: up to half a million off.
    **_figures(f"{SHUFFLENET_V1}, Table 2", {f"shufflenet_v1_g{g}_x0_25": 13 for g in (1, 2, 3, 4)}, 0.5 / 13),
    **_figures(f"{SHUFFLENET_V1}, Table 5", {"shufflenet_v1_g3_x1_5": 292, "shufflenet_v1_g3_x2_0": 524}),
    **_figures(
        f"{SHUFFLENET_V2}, Table 8",
        {"shufflenet_v2_x0_5": 41, "shufflenet_v2_x1_0": 146, "shufflenet_v2_x1_5": 299, "shufflenet_v2_x2_0": 591},
    ),
    **_figures(f"{SHUFFLENET_V1}, Table 6", {"alexnet": 720, "squeezenet": 833, "vgg16": 15300}),
    # "A computational budget of 1.5 billion multiply-adds" in its own paper (arXiv:1409.4842), which it exceeds.
    **_figures(f"{SHUFFLENET_V1}, Table 6", {"googlenet": 1500}, 0.06),
    **_figures(
        f"MobileNet (arXiv:1704.04861), Table 6, and {SHUFFLENET_V1}, Table 5",
        {
            "mobilenet_v1": 569,
            "mobilenet_v1_x1_0": 569,
            "mobilenet_v1_x0_75": 325,
            "mobilenet_v1_x0_5": 149,
            "mobilenet_v1_x0_25": 41,
        },
    ),
    **_figures("MobileNet v2 (arXiv:1801.04381), Table 4", {"mobilenet_v2": 300}),
    **_figures("ResNet (arXiv:1512.03385), Table 1", {"resnet18": 1800}),
    # ResNet's own paper has 3.8 billion for ResNet-50, with the stride in the first convolution of a block. Ours has it
    # in the second, as ResNeXt's paper, which counts it so.
    **_figures("ResNeXt (arXiv:1611.05431), Table 1", {"resnet50": 4100, "resnext50": 4200}),
    **_figures(
        f"{SHUFFLENET_V1}, Table 4",
        {f"ablation_{unit}_{macs}m": macs for unit in ("resnet", "resnext") for macs in (140, 38, 13)},
    ),
    # The rows of Table 4 are 140, 38 and 13 M; this network is in Table 1 too.
    **_figures(f"{SHUFFLENET_V1}, Table 1, g=1", {"ablation_xception_140m": 143}),
    **_figures(f"{SHUFFLENET_V1}, Table 4", {"ablation_xception_38m": 38, "ablation_xception_13m": 13}),
}
