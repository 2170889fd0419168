"""How near the pointwise template comes to the limit of the core, shape by shape of the ShuffleNets at 224 x 224.

    python benchmarks/pointwise.py --target local
    python benchmarks/pointwise.py --target cortex-a76 --variants 4 --json pointwise-a76.json

Each line: the rate of the template's default choice, and of the best of its first ``--variants`` variants, each with
its share of the peak. For this machine rates are measured, on one thread, and so is the peak, by multiply-adds on
registers in the same process; for ARM targets they are modelled by the emulated core, whose peak its units give.
``x86-64`` (AVX2) is timed on this machine too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TVM_NUM_THREADS", "1")

import timing
import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvm_shufflenet.devices import find_device
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.hardware.machine import Machine, machine_for
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.operators import registry
from tvm_shufflenet.operators.pointwise import Pointwise
from tvm_shufflenet.schedules import pointwise

# Blocks, input and output channels of each, pixels.
SHAPES = {
    "v1 g3 1x": ((1, 24, 60, 3136), (3, 20, 72, 784), (3, 80, 20, 784), (3, 20, 80, 784), (3, 80, 40, 784),
                 (3, 40, 80, 196), (3, 160, 40, 196), (3, 40, 160, 196), (3, 160, 80, 196), (3, 80, 160, 49),
                 (3, 320, 80, 49), (3, 80, 320, 49)),
    "v1 g3 0.5x": ((3, 40, 10, 784), (3, 10, 40, 784), (3, 80, 20, 196), (3, 20, 80, 196), (3, 160, 40, 49),
                   (3, 40, 160, 49)),
    "v1 g8 1x": ((8, 48, 12, 784), (8, 12, 48, 784), (8, 96, 24, 196), (8, 24, 96, 196), (8, 192, 48, 49),
                 (8, 48, 192, 49)),
    "v2 0.5x": ((1, 24, 24, 784), (1, 48, 48, 196), (1, 96, 96, 49), (1, 192, 1024, 49)),
    "v2 1x": ((1, 24, 58, 3136), (1, 58, 58, 784), (1, 116, 116, 784), (1, 116, 116, 196), (1, 232, 232, 196),
              (1, 232, 232, 49), (1, 464, 1024, 49)),
    "v2 2x": ((1, 122, 122, 784), (1, 244, 244, 784), (1, 244, 244, 196), (1, 488, 488, 196), (1, 488, 488, 49),
              (1, 976, 2048, 49)),
}  # fmt: skip
PEAK_STEPS = 20_000
WINDOW_SECONDS = 5e-4  # of one timing: shorter than the turns that other processes of a busy machine take


@dataclass(frozen=True)
class Result:
    """Multiply-adds a nanosecond (measured) or a cycle (modelled)."""

    network: str
    shape: tuple[int, int, int, int]
    default: float
    best: float
    variant: str
    peak: float

    def line(self) -> str:
        shares = f"{self.default:7.2f} {self.default / self.peak:4.0%} {self.best:7.2f} {self.best / self.peak:4.0%}"
        return f"{self.network:10} {self.shape!s:22} {shares}  {self.variant}"


def operator(shape: tuple[int, int, int, int]) -> Pointwise:
    """A plain convolution with ReLU; v1's are shuffled, which costs nothing."""
    blocks, inputs, outputs, pixels = shape
    side = int(pixels**0.5)
    channels = blocks * inputs
    return Pointwise(1, channels, side, side, channels, blocks * outputs, blocks, relu=True, shuffle_groups=blocks)


def default_of(mod: tvm.IRModule, variant: pointwise.Variant) -> tvm.IRModule:
    """``variant`` with the first candidate of each knob."""
    drawn = Schedule(mod, seed=1)
    pointwise.pointwise_template(drawn, variant)
    trace = drawn.trace
    for knob in list(trace.decisions):
        trace = trace.with_decision(knob, 0, remove_postproc=True)
    schedule = Schedule(mod, seed=1)
    trace.apply_to_schedule(schedule, remove_postproc=True)
    return schedule.mod


class Here:
    """This machine, in this process: the fastest of many runs, since others may use it too."""

    def __init__(self, target: Target, machine: Machine):
        self.target, self.machine = target, machine
        self.unit = "GMAC/s"

    def seconds(self, mod: tvm.IRModule) -> float:
        timer = tvm.compile(mod, self.target.tvm()).mod.time_evaluator
        arguments = ms.arg_info.ArgInfo.from_prim_func(mod["main"])
        tensors = [tvm.runtime.empty(tuple(map(int, each.shape)), str(each.dtype)) for each in arguments]
        fill = tvm.get_global_func("tvm.contrib.random.random_fill_for_measure")
        for tensor in tensors:
            fill(tensor)
        once = min(timer("main", tvm.cpu(), number=1, repeat=3)(*tensors).results)
        number = max(1, round(WINDOW_SECONDS / once))
        return min(timer("main", tvm.cpu(), number=number, repeat=100)(*tensors).results)

    def rate(self, mod: tvm.IRModule, multiply_adds: int) -> float:
        return multiply_adds / 1e9 / self.seconds(mod)

    def peak(self) -> float:
        """Multiply-adds on so many registers that none waits for itself."""
        lanes, accumulators = self.machine.lanes, self.machine.registers - 4
        with IRBuilder() as builder, T.prim_func(s_tir=True):
            T.func_name("main")
            factor = T.arg("factor", T.buffer((lanes,), "float32"))
            result = T.arg("result", T.buffer((accumulators, lanes), "float32"))
            sums = T.sblock_alloc_buffer((accumulators, lanes), "float32", scope="local")
            with T.unroll(accumulators) as row, T.vectorized(lanes) as lane:
                T.buffer_store(sums, T.float32(0), [row, lane])
            with T.serial(PEAK_STEPS), T.unroll(accumulators) as row, T.vectorized(lanes) as lane:
                T.buffer_store(sums, sums[row, lane] * factor[lane] + factor[lane], [row, lane])
            with T.unroll(accumulators) as row, T.vectorized(lanes) as lane:
                T.buffer_store(result, sums[row, lane], [row, lane])
        mod = tvm.IRModule({"main": builder.get().with_attr("tirx.noalias", True)})
        return PEAK_STEPS * accumulators * lanes / 1e9 / self.seconds(mod)


class Emulated:
    """The emulated core of an ARM target: one run says all."""

    unit = "MAC/cycle"

    def __init__(self, target: Target, device):
        self.target, self.device, self.board = target, device, find_board(target.board)

    def rate(self, mod: tvm.IRModule, multiply_adds: int) -> float:
        cycles = timing.seconds(mod, self.target, self.device) * self.board.clock_ghz * 1e9
        return multiply_adds / cycles

    def peak(self) -> float:
        return float(self.board.core.fp32_macs_per_cycle)


def bench(place, machine: Machine, network: str, shape: tuple[int, int, int, int], limit: int) -> Result:
    kernel = registry.laid_out(operator(shape), machine)
    mod = tvm.IRModule({"main": kernel.function().with_attr({"global_symbol": "main", "tirx.noalias": True})})
    blocks, inputs, outputs, pixels = shape
    variants = pointwise.variants(pointwise.Shape(*shape), machine)[:limit]
    rates = [place.rate(default_of(mod, variant), blocks * inputs * outputs * pixels) for variant in variants]
    best = max(range(len(rates)), key=rates.__getitem__)
    return Result(network, shape, rates[0], rates[best], describe(variants[best], shape), place.peak())


def describe(variant: pointwise.Variant, shape: tuple[int, int, int, int]) -> str:
    words = [f"{variant.rows[0]} x {variant.vectors} vectors", "pixels outer" if variant.pixels_outer else ""]
    words.append(f"{variant.depth} inputs a pass" if variant.depth < shape[1] else "")
    words.append(f"strips of {variant.strip}" if variant.strip < shape[3] else "")
    words.append("staged" if variant.staged else "")
    return ", ".join(filter(None, words))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="local", help="see tvm-shufflenet targets (local)")
    parser.add_argument("--variants", type=int, default=6, help="how many variants to look for the best in (6)")
    parser.add_argument("--networks", nargs="*", default=list(SHAPES), choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    options = parser.parse_args()
    target = find_target(options.target)
    machine = machine_for(target)
    results = []

    def run(place) -> None:
        print(f"{target.name}, one thread, {place.unit}: default, best of {options.variants} variants, share of peak")
        for network in options.networks:
            for shape in SHAPES[network]:
                results.append(bench(place, machine, network, shape, options.variants))
                print(results[-1].line(), flush=True)

    if target.is_arm:
        with find_device(None, target) as device:
            run(Emulated(target, device))
    else:
        run(Here(target, machine))
    if options.json:
        options.json.write_text(json.dumps({"target": target.name, "results": [asdict(r) for r in results]}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
