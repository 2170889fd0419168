"""Times the operators that are no 1x1 convolution, one by one, as their templates schedule them without a record.

    python benchmarks/operators.py
    python benchmarks/operators.py --target cortex-a72 --only depthwise,stem

Beside each time stands what share of it the machine's limit is: multiply-adds at the rate, or bytes at the bandwidth,
that two kernels of nothing else reach in the same run, whichever takes longer. Operands are counted once each.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import dataclass

os.environ.setdefault("TVM_NUM_THREADS", "1")

import timing
import tvm
from tvm import te
from tvm.s_tir import Schedule

from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.hardware.machine import machine_for
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.operators import registry
from tvm_shufflenet.operators.convolution import Convolution
from tvm_shufflenet.operators.dense import Dense
from tvm_shufflenet.operators.depthwise import Depthwise
from tvm_shufflenet.operators.destination import Window
from tvm_shufflenet.operators.pooling import Pooling
from tvm_shufflenet.schedules import rules

TWO = (2, 2)
KERNELS = {
    "depthwise v1 60 56x56 s2": Depthwise(1, 60, 56, 56, stride=TWO),
    "depthwise v1 60 28x28": Depthwise(1, 60, 28, 28),
    "depthwise v1 120 28x28 s2": Depthwise(1, 120, 28, 28, stride=TWO),
    "depthwise v1 120 14x14": Depthwise(1, 120, 14, 14),
    "depthwise v1 240 14x14 s2": Depthwise(1, 240, 14, 14, stride=TWO),
    "depthwise v1 240 7x7": Depthwise(1, 240, 7, 7),
    "depthwise v2 58 28x28": Depthwise(1, 58, 28, 28),
    "depthwise v2 116 14x14": Depthwise(1, 116, 14, 14),
    "depthwise v2 232 7x7": Depthwise(1, 232, 7, 7),
    "stem 3x3 s2 3-24 224x224": Convolution(1, 3, 224, 224, 24, stride=TWO, relu=True),
    "max pool 24 112x112": Pooling(1, 24, 112, 112, relu=False, non_negative=True),
    "average pool 24 56x56 into window": Pooling(
        1, 24, 56, 56, "average", relu=True, window=Window(24, 240, first=True)
    ),
    "average pool 240 28x28 into window": Pooling(
        1, 240, 28, 28, "average", relu=True, window=Window(240, 480, first=True)
    ),
    "average pool 480 14x14 into window": Pooling(
        1, 480, 14, 14, "average", relu=True, window=Window(480, 960, first=True)
    ),
    "mean + dense 960-1000": Dense(1, 960, 1000, plane=(7, 7)),
    "mean + dense 1024-1000": Dense(1, 1024, 1000, plane=(7, 7)),
    "alexnet 11x11 s4 3-96": Convolution(1, 3, 224, 224, 96, 1, (11, 11), (4, 4), (2, 2, 2, 2), True),
    "alexnet 5x5 96-256 in 2 groups": Convolution(1, 96, 27, 27, 256, 2, (5, 5), padding=(2, 2, 2, 2), relu=True),
    "alexnet 3x3 256-384": Convolution(1, 256, 13, 13, 384, relu=True),
    "alexnet 3x3 384-384 in 2 groups": Convolution(1, 384, 13, 13, 384, 2, relu=True),
    "resnet 7x7 s2 3-64": Convolution(1, 3, 224, 224, 64, 1, (7, 7), TWO, (3, 3, 3, 3), True),
    "resnet 3x3 64-64 56x56": Convolution(1, 64, 56, 56, 64, relu=True),
}


@dataclass(frozen=True)
class Bench:
    """A device and what is compiled for it."""

    target: Target
    device: Device

    def seconds(self, mod: tvm.IRModule) -> float:
        return timing.seconds(mod, self.target, self.device)

    def multiply_adds_per_second(self) -> float:
        """With accumulators that stay in registers and operands that stay in L1."""
        lanes, rows, steps = self.target.isa.lanes(), 12, 4096
        left, right = te.placeholder((64,), name="left"), te.placeholder((rows, lanes), name="right")
        k = te.reduce_axis((0, steps), name="k")
        product = te.compute((rows, lanes), lambda i, j: te.sum(left[k % 32] * right[i, j], axis=k), name="product")
        sch = Schedule(tvm.IRModule({"main": te.create_prim_func([left, right, product])}))
        block = sch.get_sblock("product")
        i, j, k = sch.get_loops(block)
        sch.reorder(k, i, j)
        sch.unroll(i)
        sch.vectorize(j)
        sch.decompose_reduction(block, k)
        return rows * lanes * steps / self.seconds(sch.mod)

    def bytes_per_second(self, size: int) -> float:
        """Summing up ``size`` bytes again and again."""
        lanes, rows = self.target.isa.lanes(), 8
        steps = size // (4 * lanes * rows)
        data, k = te.placeholder((steps, rows, lanes), name="data"), te.reduce_axis((0, steps), name="k")
        total = te.compute((rows, lanes), lambda i, j: te.sum(data[k, i, j], axis=k), name="total")
        sch = Schedule(tvm.IRModule({"main": te.create_prim_func([data, total])}))
        block = sch.get_sblock("total")
        i, j, k = sch.get_loops(block)
        sch.reorder(k, i, j)
        sch.unroll(i)
        sch.vectorize(j)
        sch.decompose_reduction(block, k)
        return size / self.seconds(sch.mod)


def work(kernel) -> tuple[int, int]:
    """Multiply-adds, and bytes of all operands and results, of what is written only."""
    window = getattr(kernel, "window", None)
    written = math.prod(kernel.output_shape)
    if isinstance(window, Window):
        written = written // window.total * window.channels
    operands = [param.ty.shape for param in kernel.function().params][:-1]
    size = kernel.precision.bytes * (written + sum(math.prod(int(extent) for extent in shape) for shape in operands))
    if isinstance(kernel, Dense):
        return kernel.batch * kernel.inputs * kernel.outputs, size
    if isinstance(kernel, Pooling):
        return 0, size
    per_result = math.prod(kernel.kernel)
    if isinstance(kernel, Convolution):
        per_result *= kernel.in_channels // kernel.groups
    return written * per_result, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="local", help="a preset; its modelled core unless it is this machine's")
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    arguments = parser.parse_args()
    target = find_target(arguments.target)
    wanted = {
        name: kernel for name, kernel in KERNELS.items() if any(part in name for part in arguments.only.split(","))
    }
    with find_device(None, target) as device:
        bench = Bench(target, device)
        attempts = range(1 if device.kind == "modelled" else 4)  # a neighbour on this machine only ever slows them
        rate = max(bench.multiply_adds_per_second() for _ in attempts)
        sizes = (256 << 10, 768 << 10, 1280 << 10, 4 << 20)
        bandwidth = {size: max(bench.bytes_per_second(size) for _ in attempts) for size in sizes}
        print(f"{target.describe()}; {device.describe()}")
        speeds = ", ".join(f"{size >> 10} KiB {speed / 1e9:.0f}" for size, speed in bandwidth.items())
        print(f"limits: {rate / 1e9:.1f} GMAC/s; reading GB/s: {speeds}")
        print(f"{'operator':38} {'us':>9} {'GMAC/s':>8} {'GB/s':>7} {'limit':>6}")
        machine = machine_for(target)
        for name, kernel in wanted.items():
            kernel = registry.laid_out(kernel, machine)
            mod = tvm.IRModule({"main": kernel.function().with_attr("tirx.noalias", True)})
            seconds = bench.seconds(rules.default_schedule(mod, machine).mod)
            macs, size = work(kernel)
            nearest = min(bandwidth, key=lambda known, size=size: abs(math.log(known / size)))
            share = max(macs / rate, size / bandwidth[nearest]) / seconds
            print(
                f"{name:38} {1e6 * seconds:9.1f} {macs / seconds / 1e9:8.1f} {size / seconds / 1e9:7.1f} {share:6.0%}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
