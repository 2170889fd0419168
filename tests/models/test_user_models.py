"""Models of people's own, other shapes, batches and class counts: from the command line to a device of this machine."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.models import builder, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
from tvm_shufflenet.support import toolchain

ZIG = [tool for tool in toolchain.all_tools() if tool.name == "zig"]
pytestmark = pytest.mark.skipif(not ZIG or ZIG[0].path is None, reason="missing: zig")
MIXED = """
import torch
from torch import nn
from torch.nn import functional as F
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo import shufflenet_v1 as v1, shufflenet_v2 as v2

class Mixed(nn.Module):
    \"\"\"Units of both versions among layers that neither has.\"\"\"

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.Hardswish(), nn.MaxPool2d(3, 2, 1))
        self.first = nn.Sequential(v1.ShuffleUnit(24, 48, 3, 2, 1), v1.ShuffleUnit(48, 48, 3, 1, 3))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 12, 1), nn.ReLU(), nn.Conv2d(12, 48, 1))
        self.second = nn.Sequential(v2.ShuffleUnit(48, 96, 2), v2.ShuffleUnit(96, 96, 1))
        self.dilated = nn.Conv2d(96, 96, 3, padding=2, dilation=2, groups=4)
        self.up = nn.Sequential(nn.ConvTranspose2d(96, 48, 2, 2), nn.PReLU(48))
        self.head = nn.Sequential(nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 7))

    def forward(self, data):
        data = self.first(self.stem(data))
        data = self.second(data * F.hardsigmoid(self.gate(data)))
        data = self.up(F.interpolate(self.dilated(data), scale_factor=2)) 
        return {"logits": self.head(data.mean((2, 3)))}

def make():
    torch.manual_seed(0)
    made = Mixed()
    randomise_batch_norms(made)
    return made
"""


@pytest.fixture(autouse=True)
def own_records(tmp_path, monkeypatch):
    """Records of the current folder, of which there are none: every operator has its default schedule."""
    (tmp_path / "tuning_logs").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def say(capfd):
    """Run a command that must succeed; what it printed."""

    def say(*words: object) -> str:
        capfd.readouterr()
        with contextlib.suppress(SystemExit):
            code = cli.main([str(word) for word in words])
        out, error = capfd.readouterr()
        assert code == 0, error
        return out

    return say


def check(say, *model: object) -> None:
    """Compile the model for this machine, run it, compare with PyTorch: ``bench`` refuses a wrong answer."""
    say("compile", "--target", "local", "-o", "package", "--model", *model)
    facts = json.loads(say("bench", "package", "--repeat", "1", "--warmup", "0", "--json", "-"))
    assert facts["max_abs_err"] <= facts["tolerance"]


def test_units_among_other_layers_in_a_batch_of_odd_size(say, tmp_path):
    (tmp_path / "mixed.py").write_text(MIXED)
    check(say, f"{tmp_path}/mixed.py:make", "--input-shape", "2,3,131,97")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("shufflenet_v1_g3_x0_25", "2,3,65,97"),
        ("shufflenet_v2_x0_5", "1,3,96,128"),
        pytest.param("shufflenet_v1_g8_x0_25", "3,3,33,47", marks=pytest.mark.slow),
    ],
)
def test_networks_of_the_zoo_at_other_shapes(say, name, shape):
    check(say, name, "--input-shape", shape, "--classes", "11")


def test_a_dynamic_program_at_a_fixed_shape(say, tmp_path):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), ShuffleUnit(24, 48, 3, 2, 1), ShuffleUnit(48, 48, 3, 1, 3))
    randomise_batch_norms(network)
    dims = {0: torch.export.Dim("batch", max=64), 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network.eval(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes=(dims,))
    torch.export.save(program, tmp_path / "any.pt2")
    check(say, tmp_path / "any.pt2", "--input-shape", "3,3,95,65")


def test_a_checkpoint_of_ten_classes_from_a_photograph_to_their_names(say, tmp_path, capfd):
    torch.manual_seed(4)
    network = builder("shufflenet_v1_g3_x0_25")(classes=10)
    randomise_batch_norms(network)
    torch.save(network.state_dict(), tmp_path / "ten.pth")
    model = ["--model", "shufflenet_v1_g3_x0_25", "--weights", "ten.pth", "--input-shape", "2,3,65,47"]
    said = say("compile", *model, "--target", "local", "--untuned", "-o", "package")
    assert said.startswith("classes: 10, as in ten.pth\n")

    pixels = np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "labels.txt").write_text("".join(f"breed [{index}]\n" for index in range(10)))
    files = ["--input", "photo.png", "--output", "out.npy", "--labels", "labels.txt"]
    lines = say("run", "package", *files, "--top", "2").splitlines()
    output = np.load("out.npy")
    assert output.shape == (2, 10) and (output[0] == output[1]).all()
    best = output[0].argmax()
    for line, image in zip(lines[1:], (0, 1), strict=True):
        assert line.startswith(f"image {image}: breed [{best}] (class {best}): {output[0, best]:.4f}, breed [")

    Path("labels.txt").write_text("cat\ndog\n")
    assert cli.main(["run", "package", "--labels", "labels.txt"]) == 2
    assert "labels.txt has 2 labels, the network has 10 classes" in capfd.readouterr().err
