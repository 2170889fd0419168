"""The gain of alternating traversal, by which each operator begins with what is still in the cache.

    python benchmarks/traversal.py --targets cortex-a72 cortex-a53 --models shufflenet_v1_g3_x1_0

Each network is built twice from the same schedules, with ``AlternateTraversal`` and without, and timed on the modelled
core: milliseconds, and lines of the second cache that missed, in thousands.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from unittest import mock

from tvm_shufflenet.graph.pipeline import fuse

os.environ.setdefault("TVM_NUM_THREADS", "1")

from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.library import alternate
from tvm_shufflenet.library.build import build
from tvm_shufflenet.verification.networks import check
from tvm_shufflenet.workflow.imported import Imported, import_model
from tvm_shufflenet.workflow.schedules import open_records, schedule_network


def timed(imported: Imported, target: Target, device: Device, library: Path) -> tuple[float, float]:
    """Milliseconds, and thousands of misses."""
    store = open_records(target, None)
    build(schedule_network(fuse(imported.module, target), store, device.clock), library)
    with Network(device, library, imported.signature) as network:
        check(network, imported.answers, library.name)
        milliseconds = network.latency(1).median_us / 1000
    return milliseconds, device.last_cost().l2_misses / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=["cortex-a72", "cortex-a53", "cortex-a76"])
    parser.add_argument("--models", nargs="+", default=["shufflenet_v1_g3_x1_0", "shufflenet_v2_x1_0"])
    options = parser.parse_args()
    print(f"{'target':12}{'network':24}{'forwards':>10}{'alternating':>12}{'ratio':>8}{'misses':>10}{'misses':>10}")
    for target in map(find_target, options.targets):
        with find_device("emulated", target) as device, tempfile.TemporaryDirectory() as folder:
            for name in options.models:
                imported = import_model(models.find_model(name))
                with mock.patch.object(alternate, "walked_backwards", lambda _bindings: set()):
                    forwards, lost = timed(imported, target, device, Path(folder) / "forwards.so")
                alternating, fewer = timed(imported, target, device, Path(folder) / "alternating.so")
                ratio = alternating / forwards
                print(
                    f"{target.name:12}{name:24}{forwards:10.2f}{alternating:12.2f}{ratio:8.3f}{lost:10.0f}{fewer:10.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
