"""Devices by name, and what a session with one is set to."""

from dataclasses import replace

import pytest

from tvm_shufflenet.devices import Endpoint, find_device
from tvm_shufflenet.errors import DeviceFailed
from tvm_shufflenet.hardware.targets import targets

ARM64, LOCAL = targets()["arm64"], targets()["local"]


@pytest.mark.parametrize(
    ("spec", "endpoint"),
    [
        ("rpc://board:9090", Endpoint("board", 9090, None, 3)),
        ("tracker://10.0.0.1:9190/rpi4b", Endpoint("10.0.0.1", 9190, "rpi4b", 3)),
        ("rpc://[::1]:9090", Endpoint("[::1]", 9090, None, 3)),
    ],
)
def test_an_address_is_parsed_and_told_how_many_threads(spec, endpoint):
    device = find_device(spec, ARM64, threads=3)
    assert device.endpoint() == endpoint and device.clock == "measured" and device.machine == "aarch64"


def test_arm_targets_run_on_the_emulated_core_and_local_ones_here():
    assert find_device(None, ARM64).name == "emulated:cortex-a72" and find_device(None, LOCAL).name == "local"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_uses_as_many_threads_as_asked_for(threads):
    with find_device("local", LOCAL, threads=2) as device:
        session = replace(device.endpoint(), threads=threads).connect(10)
        assert session.get_function("runtime.NumThreads")() == threads


def test_a_tracker_without_such_a_device_says_so_at_once():
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=9490, port_end=9590, silent=True)
    try:
        with pytest.raises(DeviceFailed, match="no device has registered as 'rpi4b'"):
            Endpoint("127.0.0.1", tracker.port, "rpi4b").connect(10)
    finally:
        tracker.terminate()
