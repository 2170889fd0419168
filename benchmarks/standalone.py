"""The standalone library against the library for TVM's VM: latency, size, and what the driver adds to its kernels.

    python benchmarks/standalone.py --target local
    python benchmarks/standalone.py --target cortex-a72 --models shufflenet_v1_g3_x1_0 shufflenet_v2_x1_0

Both come from the same scheduled operators and are timed by the same evaluator in sessions on the same device, in turn.
The driver's own cost is that of a network whose kernels do nothing; it is measured on this machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tvm_shufflenet.graph.pipeline import fuse

os.environ.setdefault("TVM_NUM_THREADS", "1")

from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.devices.kernels import Kernels
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.latency import MEASURED
from tvm_shufflenet.library.build import build
from tvm_shufflenet.standalone import build as standalone
from tvm_shufflenet.standalone.kernels import Kernel
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.schedules import default_clock, open_records, schedule_network

HERE = Path(__file__).parent
ROUNDS = 5
SAMPLES = 5


@dataclass(frozen=True)
class Row:
    """One network: medians in microseconds, the least of all rounds; sizes in bytes."""

    model: str
    device: str
    kind: str
    threads: int
    vm_us: float
    standalone_us: float
    driver_us: float | None
    library_bytes: int
    weight_bytes: int
    vm_library_bytes: int
    arena_bytes: int
    same_bits: bool

    def line(self) -> str:
        driver = f"{self.driver_us:8.2f}" if self.driver_us is not None else f"{'-':>8}"
        over = (self.library_bytes - self.weight_bytes) / 1000
        return (
            f"{self.model:24}{self.threads:3}{self.vm_us:12.1f}{self.standalone_us:12.1f}"
            f"{self.standalone_us / self.vm_us:8.3f}{driver}{self.library_bytes / 1e6:9.2f}{over:8.0f}"
            f"{self.arena_bytes / 1e6:8.2f}  {'same' if self.same_bits else 'DIFFERENT'} bits"
        )


HEADER = f"{'network':24}{'n':>3}{'VM us':>12}{'alone us':>12}{'ratio':>8}{'driver':>8}{'MB':>9}{'+KB':>8}{'arena':>8}"


def measure(name: str, target: Target, device: Device, threads: int, folder: Path) -> Row:
    imported = import_model(models.find_model(name))
    store = open_records(target, None)
    clock = default_clock(target)
    scheduled = schedule_network(fuse(imported.module, target), store, MEASURED, clock, threads=threads)
    vm = build(scheduled, folder / "vm.so")
    signature, answers = imported.signature, imported.answers
    alone = standalone.build_standalone(scheduled.module, target, name, signature, answers, folder / "alone")
    called = link_callable(target, name, threads, folder / "alone")
    vm_us, alone_us = [], []
    with Network(device, vm, signature) as network:
        (expected,) = network.run(imported.inputs).values()
    arguments = [(spec.shape, spec.dtype) for spec in (*signature.inputs, *signature.outputs)]
    for _ in range(1 if device.kind == "modelled" else ROUNDS):
        with Network(device, vm, signature) as network:
            network.set_inputs(imported.inputs)
            vm_us.append(network.latency(SAMPLES).median_us)
        with Kernels(device, called) as kernels:
            samples = 1 if device.kind == "modelled" else SAMPLES
            alone_us.append(kernels.latency("standalone", arguments, samples).median_us)
    native = target.machine == find_target("local").machine
    return Row(
        name,
        device.name,
        device.kind,
        threads,
        min(vm_us),
        min(alone_us),
        driver_us(target, name, threads, alone, folder / "alone") if native else None,
        alone.library.stat().st_size,
        len(alone.program.weights),
        vm.stat().st_size,
        alone.program.arena_bytes,
        same_bits(alone.bench, native, expected),
    )


def link_callable(target: Target, model: str, threads: int, folder: Path) -> Path:
    """The standalone library with one more function, which TVM's evaluator can call."""
    output = folder / "callable.so"
    sources = [*standalone.native(*standalone.DRIVER, "memory.c"), *standalone.MODEL, str(HERE / "callable.c")]
    shared = ["-shared", "-nostdlib", "-ffreestanding", f"-DTHREADS={threads}", *standalone.LAYOUT]
    standalone.compile_c(target, folder, [*shared, *sources], output)
    return output


def driver_us(target: Target, model: str, threads: int, built: standalone.StandaloneLibrary, folder: Path) -> float:
    """Latency of the network when its kernels do nothing: the driver, and the pool where there are threads."""
    kernels: dict[str, Kernel] = {step.kernel.name: step.kernel for step in built.program.steps}
    names = [phase.symbol for kernel in kernels.values() for phase in kernel.phases]
    (folder / "nothing.c").write_text("".join(f"void {name}(void) {{}}\n" for name in names))
    output = folder / "nothing"
    sources = [*standalone.native(*standalone.DRIVER, *standalone.BENCH), "tolerance.c", "reference.S"]
    sources += ["model.c", "weights.S", "nothing.c"]
    standalone.compile_c(target, folder, ["-static", *standalone.LAYOUT, "-Wno-everything", *sources], output)
    command = [str(output), "--json", "--threads", str(threads), "--warmup", "1000", "--repeat", "2000"]
    done = subprocess.run(command, capture_output=True, text=True)  # its answer is wrong, and it says so
    return json.loads(done.stdout)["latency_us"]["median"]


def same_bits(bench: Path, native: bool, expected) -> bool:
    output = bench.with_name("output")
    emulator = [] if native else ["qemu-aarch64"]
    subprocess.run([*emulator, str(bench), "--repeat", "1", "--output", str(output)], check=True, capture_output=True)
    return output.read_bytes() == expected.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="local")
    parser.add_argument("--device", help="local, emulated:CORE, ... (the target's own)")
    parser.add_argument("--models", nargs="+", default=["shufflenet_v1_g3_x1_0"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    target = find_target(options.target)
    rows = []
    print(HEADER)
    for name in options.models:
        with (
            tempfile.TemporaryDirectory() as folder,
            find_device(options.device, target, options.threads) as device,
        ):
            rows.append(measure(name, target, device, options.threads, Path(folder)))
        print(rows[-1].line(), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
