"""A network on a device: what it leaves behind, and what its failures are."""

from __future__ import annotations

import gc
import time

import psutil
import pytest
from torch import nn

from helpers.tensors import only
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.errors import DeviceFailed
from tvm_shufflenet.graph.pipeline import stock
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.scheduling import schedule_untuned
from tvm_shufflenet.models import Model
from tvm_shufflenet.signature import Signature, TensorSpec
from tvm_shufflenet.workflow.imported import import_model

LOCAL = find_target("local")


@pytest.fixture(scope="module")
def relu():
    return import_model(Model("relu", (1, 2, 3, 4), nn.ReLU().eval()))


@pytest.fixture(scope="module")
def library(relu, tmp_path_factory):
    return build(schedule_untuned(stock(relu.module, LOCAL)), tmp_path_factory.mktemp("relu") / "relu.so")


@pytest.fixture
def device():
    with find_device("local", LOCAL) as device:
        yield device


def sessions() -> set[int]:
    """Processes that our children have started: the device server has one for each session."""
    return {process.pid for child in psutil.Process().children() for process in child.children()}


def test_its_session_ends_with_it_and_not_with_the_next_garbage_collection(relu, library, device):
    before = sessions()
    gc.disable()
    try:
        with Network(device, library, relu.signature) as network:
            assert (only(network.run(relu.inputs)) >= 0).all()
            network.run_again(relu.inputs)
            network.latency(1)
            during = sessions() - before
        assert during
        deadline = time.monotonic() + 5
        while during & sessions():
            assert time.monotonic() < deadline, "the session is still there"
            time.sleep(0.02)
    finally:
        gc.enable()


def test_a_signature_that_is_not_the_library_s_is_a_failure(relu, library, device):
    (source,) = relu.signature.inputs
    two = Signature((source,), (TensorSpec("a", source.shape), TensorSpec("b", source.shape)))
    with Network(device, library, two) as network, pytest.raises(DeviceFailed, match="while running the network"):
        network.run(relu.inputs)
    missing = Signature((TensorSpec("other", source.shape),), relu.signature.outputs)
    with Network(device, library, missing) as network, pytest.raises(DeviceFailed, match="while taking the input"):
        network.run(relu.inputs)
