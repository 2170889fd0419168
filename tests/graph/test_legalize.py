"""What TVM's own operators would compute otherwise than PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F

from helpers.networks import Applied, answer, check_import, machine_of
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.models import exporting

SHAPE = (1, 3, 56, 56)
LONG = {
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum((2, 3), keepdim=True),
    "everything": lambda x: x.mean().reshape(1),
    "global pooling": lambda x: F.adaptive_avg_pool2d(x, 1),
    "pooling of the whole": lambda x: F.avg_pool2d(x, 56),
    "variance": lambda x: x.var((2, 3)),
    "norm": lambda x: x.flatten(2).norm(dim=2),
}


@pytest.mark.parametrize("way", [pipeline.stock, pipeline.fuse])
@pytest.mark.parametrize("name", LONG)
def test_a_sum_of_thousands_is_as_exact_as_pytorch_s(name, way):
    """Numbers that come again, as after a resize, round the same way each time: a plain sum is off by 80 roundings."""
    data = np.random.default_rng(0).uniform(0, 1, (1, 3, 7, 7)).astype("float32").repeat(8, 2).repeat(8, 3)
    module = Applied(LONG[name]).eval()
    exact = module(torch.from_numpy(data).double()).numpy()
    machine = machine_of(way(frontend.to_relax(exporting.export(module, SHAPE)), find_target("local")).module)
    found = answer(machine, tvm.runtime.tensor(data))
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact, rtol=6 * np.finfo("float32").eps)


def test_maxima_begin_below_every_number():
    module = Applied(
        lambda x: torch.cat([x.amax((2, 3)), -x.neg().amin((2, 3)), F.max_pool2d(x, 56).flatten(1)])
    ).eval()
    data = np.full(SHAPE, -np.inf, "float32")
    machine = machine_of(
        pipeline.stock(frontend.to_relax(exporting.export(module, SHAPE)), find_target("local")).module
    )
    np.testing.assert_array_equal(answer(machine, tvm.runtime.tensor(data)), module(torch.from_numpy(data)).numpy())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5, 2.0])).float(),
        lambda x: x.scatter(3, torch.arange(56).flip(0).expand(1, 3, 56, 56), x + 1),
    ],
    ids=["bucketize", "scatter"],
)
def test_a_function_of_one_block_can_be_scheduled(function):
    check_import(Applied(function).eval(), SHAPE)
