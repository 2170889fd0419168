"""The ladder: one operator, one unit, one network, each on the emulated Cortex-A72 and on this machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm

from helpers.laid_out import Pointwise
from helpers.tensors import only
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.graph.pipeline import fuse, stock
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.link import link, linker_command
from tvm_shufflenet.library.scheduling import schedule_tuned, schedule_untuned
from tvm_shufflenet.models import Model, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleNetV1, ShuffleUnit
from tvm_shufflenet.schedules import rules
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.workflow.compare import compare_network
from tvm_shufflenet.workflow.imported import Imported, import_model
from tvm_shufflenet.workflow.tune import tune_network

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
EMULATED, LOCAL = "emulated", "local"


@pytest.fixture(scope="module", params=[EMULATED, LOCAL])
def bench(request):
    """(target, started device)"""
    target = find_target("arm64" if request.param == EMULATED else "local")
    with find_device(request.param, target) as device:
        yield target, device


@pytest.fixture(scope="module")
def smallest():
    """The smallest ShuffleNet of the zoo, on a small image."""
    return imported("shufflenet_v1_g3_x0_25", ShuffleNetV1(3, 0.25), (1, 3, 32, 32))


@pytest.fixture
def empty(tmp_path):
    """name -> a store without records for that target."""
    return lambda target: RecordStore(tmp_path / target.name, target.tvm())


def imported(name: str, module: torch.nn.Module, shape: tuple[int, ...]) -> Imported:
    torch.manual_seed(0)
    randomise_batch_norms(module)
    return import_model(Model(name, shape, module.eval()))


def expected(data, weight, bias, addend, groups: int, shuffle_groups: int) -> np.ndarray:
    """The pointwise operator with a ReLU, in NumPy and float64."""
    batch, channels, height, width = data.shape
    split = data.reshape(batch, groups, channels // groups, height, width)
    kernels = weight.reshape(groups, -1, channels // groups)
    result = np.einsum("ngihw,goi->ngohw", split, kernels, dtype="float64").reshape(batch, -1, height, width)
    result = np.maximum(result + bias[:, None, None] + addend, 0)
    shuffled = result.reshape(batch, shuffle_groups, -1, height, width).swapaxes(1, 2)
    return shuffled.reshape(result.shape)


@pytest.mark.parametrize(
    ("channels", "out_channels", "groups", "shuffle_groups", "residual", "size"),
    [(24, 48, 3, 3, False, 8), (48, 24, 3, 1, True, 7), (16, 20, 1, 2, False, 5)],
)
def test_one_operator(bench, tmp_path, channels, out_channels, groups, shuffle_groups, residual, size):
    """A pointwise operator by its default schedule."""
    target, device = bench
    kernel = Pointwise(
        1,
        channels,
        size,
        size,
        channels,
        out_channels,
        groups,
        relu=True,
        residual=residual,
        shuffle_groups=shuffle_groups,
    )
    schedule = rules.default_schedule(tvm.IRModule({"main": kernel.function()}), machine_for(target))
    library = tmp_path / "operator.so"

    def link_objects(output, objects, **_options):
        link(objects, output, linker_command(target), target.machine)

    tvm.compile(schedule.mod, target.tvm()).export_library(str(library), fcompile=link_objects)

    random = np.random.default_rng(0)
    plane = (size, size)
    data = random.standard_normal((1, channels, *plane), dtype="float32")
    weight = random.standard_normal((out_channels, channels // groups, 1, 1), dtype="float32")
    bias = random.standard_normal(out_channels, dtype="float32")
    addend = random.standard_normal((1, out_channels, *plane), dtype="float32") if residual else np.zeros((), "float32")
    result = np.full((1, out_channels, *plane), np.nan, "float32")

    session = device.endpoint().connect(60)
    session.upload(str(library))
    arguments = [data, kernel.pack_weight(weight), bias, *([addend] if residual else []), result]
    remote = [tvm.runtime.tensor(value, session.cpu()) for value in arguments]
    session.load_module(library.name)["main"](*remote)
    np.testing.assert_allclose(
        remote[-1].numpy(), expected(data, weight, bias, addend, groups, shuffle_groups), atol=1e-5
    )


@pytest.mark.parametrize("tuned", [False, True], ids=["untuned", "templates"])
@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), [(48, 48, 1), (24, 60, 2)])
def test_one_unit(bench, tmp_path, empty, in_channels, out_channels, stride, tuned):
    """A unit as a network of its own: TVM's untuned code, and our operators by their default schedules."""
    target, device = bench
    unit = imported("unit", ShuffleUnit(in_channels, out_channels, 3, stride, 3), (1, in_channels, 8, 8))
    library = tmp_path / "unit.so"
    if tuned:
        scheduled = schedule_tuned(fuse(unit.module, target), empty(target).database())
        build(scheduled, library)
        names = ["depthwise", "pointwise", "pointwise", *(["pooling"] if stride > 1 else [])]
        assert sorted(operator.name.rstrip("0123456789") for operator in scheduled.operators) == sorted(names)
        assert {operator.schedule for operator in scheduled.operators} == {"template"}
    else:
        build(schedule_untuned(stock(unit.module, target)), library)
    with Network(device, library, unit.signature) as network:
        for seed in range(2):
            data = np.random.default_rng(seed).standard_normal((1, in_channels, 8, 8), dtype="float32")
            (source,) = unit.signature.input_names
            (expected,) = unit.model(data)
            np.testing.assert_allclose(only(network.run({source: data})), expected, atol=1e-5)
        assert network.latency(2).kind == device.kind


@pytest.mark.slow
def test_one_network(bench, empty, smallest):
    """Tuned a little, right, and faster than untuned for it."""
    target, device = bench
    store = empty(target)
    result = tune_network(
        fuse(smallest.module, target),
        device,
        store,
        strategy="template",
        trials=12,
        seed=0,
        on_progress=lambda progress: None,
    )
    assert (result.measured, result.failed, result.reused) == (12, 0, 0)
    comparison = compare_network(smallest, target, device, store, repeats=3)
    assert comparison.max_abs_err <= comparison.tolerance
    assert comparison.untuned.kind == comparison.tuned.kind == device.kind
    assert device.kind == ("modelled" if device.name.startswith(EMULATED) else "measured")
    assert {operator.schedule for operator in comparison.operators} >= {"record", "template"}
    assert comparison.speedup > 1
