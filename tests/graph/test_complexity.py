"""Counts on the Relax graph: against torch's own counter, against hand counts, against the papers."""

from __future__ import annotations

import math

import pytest
import torch
import tvm
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_shufflenet import models
from tvm_shufflenet.errors import UnknownName
from tvm_shufflenet.graph import frontend
from tvm_shufflenet.graph.complexity import Complexity, count
from tvm_shufflenet.models import exporting
from tvm_shufflenet.models.zoo import ablation
from tvm_shufflenet.models.zoo.papers import FIGURES
from tvm_shufflenet.models.zoo.shufflenet_v1 import STAGE_CHANNELS, ShuffleUnit, bottleneck_channels
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.support.surroundings import Unusable
from tvm_shufflenet.workflow import zoo_complexity

# The issue's own list, in millions.
ISSUE = {
    "shufflenet_v1_g1_x1_0": 143,
    "shufflenet_v1_g2_x1_0": 140,
    "shufflenet_v1_g3_x1_0": 137,
    "shufflenet_v1_g4_x1_0": 133,
    "shufflenet_v1_g8_x1_0": 137,
    "shufflenet_v1_g3_x0_5": 38,
    "shufflenet_v1_g3_x2_0": 524,
    "shufflenet_v2_x0_5": 41,
    "shufflenet_v2_x1_0": 146,
    "shufflenet_v2_x1_5": 299,
    "shufflenet_v2_x2_0": 591,
    "mobilenet_v1": 569,
    "alexnet": 720,
}
# Of each kind of convolution, and of both papers.
FAMILIES = (
    "shufflenet_v1_g1_x1_0_biased",
    "shufflenet_v1_g3_x0_5",
    "shufflenet_v1_g3_x0_5_megvii",
    "shufflenet_v2_x0_5",
    "alexnet",
    "mobilenet_v1_x0_25",
    "mobilenet_v2",
    "resnet18",
    "ablation_resnext_38m",
)


@pytest.fixture(scope="module")
def zoo() -> dict[str, tuple[int, int]]:
    return zoo_complexity.zoo_complexity(None, lambda done, total: None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path))
    return tmp_path


def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return models.builder(name)().eval()


def folded_parameters(module: nn.Module) -> int:
    """Weights, and a bias for each output of a convolution: its own, its batch norm's, or both in one."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            total += layer.weight.numel() + layer.out_channels
        elif isinstance(layer, nn.Linear):
            total += sum(parameter.numel() for parameter in layer.parameters())
    return total


def test_every_network_counts_as_torch_counts_it(zoo):
    assert list(zoo) == models.names()
    for name, counted in zoo.items():
        module = meta(name)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(models.IMAGENET_SHAPE, device="meta"))
        assert counted == (counter.get_total_flops() // 2, folded_parameters(module)), name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_zoo_count_is_that_of_the_graph_that_is_compiled(zoo, name):
    complexity = count(frontend.to_relax(models.find_model(name).exported()))
    assert (complexity.multiply_adds, complexity.parameters) == zoo[name]


@pytest.mark.parametrize("name", FIGURES)
def test_multiply_adds_are_the_paper_s(zoo, name):
    figure = FIGURES[name]
    assert zoo[name][0] / 1e6 == pytest.approx(figure.macs_m, rel=figure.margin), figure.source


@pytest.mark.parametrize("name", ISSUE)
def test_the_figures_that_were_asked_for_hold_within_2_percent(zoo, name):
    assert FIGURES[name].macs_m == ISSUE[name]
    assert zoo[name][0] / 1e6 == pytest.approx(ISSUE[name], rel=0.02)


def imported(module: nn.Module, shape: tuple[int, ...]) -> Complexity:
    models.randomise_batch_norms(module)
    return count(frontend.to_relax(exporting.export(module.eval(), shape)))


@pytest.mark.parametrize("groups", STAGE_CHANNELS)
def test_a_unit_has_the_multiply_adds_of_the_paper_s_formula(groups):
    """Section 3.2: hw(2cm/g + 9m) for input c x h x w and m bottleneck channels; stages 2 to 4 at width 1."""
    for stage, channels in enumerate(STAGE_CHANNELS[groups], 2):
        side, middle = 112 >> stage, bottleneck_channels(channels, groups)
        complexity = imported(ShuffleUnit(channels, channels, groups, 1, groups), (1, channels, side, side))
        assert complexity.multiply_adds * groups == side**2 * (2 * channels * middle + 9 * middle * groups)
        weights = 2 * channels * middle // groups + 9 * middle
        assert complexity.parameters == weights + 2 * middle + channels
        assert complexity.by_operator() == {"relax.nn.conv2d": complexity.multiply_adds}


@pytest.mark.parametrize(("groups", "ratio"), [(1, 4), (16, 2)], ids=["resnet", "resnext"])
def test_the_compared_units_have_the_multiply_adds_of_their_formula(groups, ratio):
    """Section 3.2: hw(2cm + 9m^2) for ResNet, hw(2cm + 9m^2/g) for ResNeXt."""
    channels, side = 128, 14
    middle = channels // ratio
    complexity = imported(ablation.BottleneckUnit(channels, middle, channels, 1, groups), (1, channels, side, side))
    assert complexity.multiply_adds == side**2 * (2 * channels * middle + 9 * middle**2 // groups)


ROWS = [("resnet", ablation.RESNET, 4), ("resnext", ablation.RESNEXT, 2)]


@pytest.mark.parametrize(("unit", "rows", "ratio"), ROWS, ids=["resnet", "resnext"])
def test_ablations_have_equal_complexity_and_the_paper_s_ratio_and_width(zoo, unit, rows, ratio):
    """Section 4.2: bottleneck ratios, cardinality 16, and 192 channels in stage 4 at 38 MFLOPs."""
    assert rows[38].stages[-1] == 192
    for target, widths in rows.items():
        assert zoo[f"ablation_{unit}_{target}m"][0] / 1e6 == pytest.approx(target, rel=0.02)
        assert widths.groups == (16 if unit == "resnext" else 1)
        for outputs, middle in zip(widths.stages, widths.bottlenecks, strict=True):
            assert middle % widths.groups == 0 and abs(middle - outputs / ratio) <= widths.groups / 2


def test_the_xception_like_network_is_the_paper_s():
    """Section 4.2: 288 channels in stage 4 at 38 MFLOPs, no groups, and so no shuffle."""
    network = models.builder("ablation_xception_38m")()
    assert network.classifier.in_features == 288
    program = exporting.export(network.eval(), models.IMAGENET_SHAPE)
    assert not any("transpose" in str(node.target) for node in program.graph.nodes)
    assert all(unit.compress.groups == unit.expand.groups == 1 for unit in network.units)


class Mixed(nn.Module):
    """Operators that a user's network may have: a transposed convolution, one dimension, a product of activations."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.conv = nn.Conv1d(4, 5, 3, padding=1)
        self.shared = nn.Linear(16, 16)

    def forward(self, data):
        rows = self.shared(self.shared(self.conv(self.up(data).mean(3))))
        return rows @ rows.transpose(1, 2)


def test_other_operators_are_counted_too():
    complexity = imported(Mixed(), (2, 6, 8, 8))
    by_hand = {
        "relax.nn.conv2d_transpose": 2 * 6 * 8 * 8 * 2 * 2 * 2,  # each input, 2 outputs of its group, a 2x2 kernel
        "relax.nn.conv1d": 2 * 5 * 16 * 4 * 3,
        "relax.matmul": 2 * (2 * 5 * 16 * 16) + 2 * 5 * 5 * 16,
    }
    assert complexity.by_operator() == by_hand
    assert list(complexity.by_operator().values()) == sorted(by_hand.values(), reverse=True)
    assert complexity.parameters >= (6 * 2 * 4 + 4) + (4 * 5 * 3 + 5) + (16 * 16 + 16)
    assert complexity.operators[0].output_shape == (2, 4, 16, 16)


@I.ir_module
class Constants:
    @R.function
    def main(data: R.Tensor((1, 4), "float32")):
        with R.dataflow():
            weight = R.permute_dims(R.const([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], "float32"))
            square = R.matmul(R.permute_dims(weight), weight)
            result = R.matmul(R.matmul(data, weight), square)
            scaled = R.multiply(result, R.const(2.0, "float32"))
            R.output(scaled)
        return scaled


def test_constants_are_counted_as_if_they_were_folded():
    """What is computed of constants alone is one constant; the scalar is a factor and no parameter."""
    complexity = count(Constants)
    with tvm.target.Target("llvm"):
        folded = count(relax.transform.FoldConstant()(relax.transform.CanonicalizeBindings()(Constants)))
    assert complexity == folded
    assert (complexity.multiply_adds, complexity.parameters) == (4 * 2 + 2 * 2, 4 * 2 + 2 * 2)


def test_counts_are_kept_and_the_next_time_nothing_is_counted(cache, monkeypatch):
    names, seen = ["shufflenet_v2_x0_5", "ablation_resnet_13m"], []
    first = zoo_complexity.zoo_complexity(names, lambda *progress: seen.append(progress))
    assert seen == [(0, 2), (1, 2), (2, 2)] and list(first) == names
    monkeypatch.setattr(zoo_complexity, "_count", None)
    assert zoo_complexity.zoo_complexity(names[::-1], None) == first


def test_one_more_network_is_added_to_what_is_kept(cache, monkeypatch):
    zoo_complexity.zoo_complexity(["shufflenet_v2_x0_5"], lambda done, total: None)
    monkeypatch.setattr(zoo_complexity, "_count", lambda name: (math.prod(map(ord, name[:2])), 1))
    both = zoo_complexity.zoo_complexity(["shufflenet_v2_x0_5", "squeezenet"], lambda done, total: None)
    assert both["squeezenet"] == (ord("s") * ord("q"), 1) != both["shufflenet_v2_x0_5"]


def test_an_interrupt_keeps_what_has_been_counted(cache, monkeypatch):
    def interrupt(done, _total):
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(zoo_complexity, "_count", lambda name: (2, 1))
    with pytest.raises(KeyboardInterrupt):
        zoo_complexity.zoo_complexity(["squeezenet", "googlenet"], interrupt)
    monkeypatch.setattr(zoo_complexity, "_count", None)
    assert zoo_complexity.zoo_complexity(["squeezenet"], None) == {"squeezenet": (2, 1)}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"counts": {"squeezenet": 7}}'])
def test_a_damaged_cache_is_counted_anew(cache, monkeypatch, content):
    monkeypatch.setattr(zoo_complexity, "_count", lambda name: (2, 1))
    zoo_complexity.zoo_complexity(["squeezenet"], lambda done, total: None)
    (kept,) = cache.glob("complexity-*.json")
    kept.write_bytes(content)
    assert zoo_complexity.zoo_complexity(["squeezenet"], lambda done, total: None) == {"squeezenet": (2, 1)}
    assert kept.read_bytes() not in (content, b"")
    assert sorted(path.suffix for path in cache.iterdir() if path.name != toolchain.IN_USE) == [".json", ".lock"]


def test_a_cache_that_cannot_be_made_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TVM_SHUFFLENET_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(zoo_complexity, "_count", None)
    with pytest.raises(Unusable, match="cannot be used"):
        zoo_complexity.zoo_complexity(["squeezenet"], lambda done, total: None)


def test_an_unknown_network_is_refused_before_any_is_counted(cache, monkeypatch):
    monkeypatch.setattr(zoo_complexity, "_count", None)
    with pytest.raises(UnknownName, match="squeezenet"):
        zoo_complexity.zoo_complexity(["squeezenet", "sqeezenet"], lambda done, total: None)
