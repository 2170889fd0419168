"""Batch norms go into the convolution before them, and nowhere else."""

import numpy as np
import pytest
import torch
import tvm
from torch import nn

from helpers.networks import calls, run
from tvm_shufflenet.graph.passes.fold_batch_norm import FoldBatchNorm
from tvm_shufflenet.graph.pipeline import fold
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.exporting import export


def imported(module: nn.Module, shape) -> tvm.IRModule:
    """The module as Relax, before anything is folded."""
    from tvm.relax.frontend.torch import from_exported_program

    return from_exported_program(export(module, shape), keep_params_as_input=False)


class ReadTwice(nn.Module):
    """The convolution's own result is used beside the normalised one: the fold must not replace it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, data):
        plain = self.conv(data)
        return self.norm(plain) - plain


def conv_norm(**options) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, **options), nn.BatchNorm2d(8, eps=1e-3))


CASES = {
    "bias": (conv_norm(), 1),
    "grouped, no bias": (conv_norm(groups=2, stride=2, bias=False), 1),
    "two in a row": (nn.Sequential(conv_norm(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)), 2),
    "result read twice": (ReadTwice(), 2),
    "norm before the convolution": (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3)), 1),
    "activation between": (nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_folding_changes_no_result_and_leaves_no_batch_norm(name):
    model, convolutions = CASES[name]
    torch.manual_seed(0)
    randomise_batch_norms(model.eval())
    data = np.random.default_rng(0).standard_normal((2, 4, 9, 7), dtype=np.float32)
    with tvm.target.Target("llvm"):
        folded = fold(imported(model, data.shape))
        assert calls(folded).count("relax.nn.batch_norm") == 0
        assert calls(folded).count("relax.nn.conv2d") == convolutions
        with torch.no_grad():
            expected = model(torch.from_numpy(data)).numpy()
        np.testing.assert_allclose(run(folded, data), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("bias", 0),
        ("grouped, no bias", 0),
        ("two in a row", 0),
        ("activation between", 1),
        ("norm before the convolution", 1),
    ],
)
def test_the_pass_itself_only_takes_a_norm_right_behind_a_convolution(name, left):
    module = imported(CASES[name][0].eval(), (1, 4, 9, 7))
    assert calls(FoldBatchNorm()(module)).count("relax.nn.batch_norm") == left
