"""Proves that every network of the zoo compiles untuned for a target, runs there, and agrees with PyTorch.

    python benchmarks/zoo.py --target local --json zoo-local.json
    python benchmarks/zoo.py --target arm64 --models shufflenet --json zoo-arm64.json

One line a network, and a JSON file that is written anew after each: the run takes minutes on this machine and more on
an emulated core, so it can be stopped, and goes on with ``--resume``. Exit code 1 where a network failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tvm_shufflenet.graph.pipeline import stock
from tvm_shufflenet.library.scheduling import schedule_untuned

os.environ.setdefault("TVM_NUM_THREADS", "1")


from tvm_shufflenet import models
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.base import Device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.errors import DeployError
from tvm_shufflenet.hardware.targets import Target, find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.workflow.imported import import_model


@dataclass(frozen=True)
class Outcome:
    """What became of one network. ``largest`` is PyTorch's largest output; errors are absolute differences from it.

    ``kind`` says whether the device's clock is measured or modelled, as everywhere; nothing here is timed on it.
    """

    name: str
    target: str
    device: str
    kind: str
    input_shape: tuple[int, ...]
    max_abs_err: float | None = None
    tolerance: float | None = None
    largest: float | None = None
    import_s: float = 0.0
    compile_s: float = 0.0
    run_s: float = 0.0
    failure: str | None = None

    def line(self) -> str:
        if self.failure is not None:
            return f"{self.name:34} FAILED  {self.failure}"
        return (
            f"{self.name:34} {self.max_abs_err:.1e} of {self.largest:.1e}, {self.tolerance:.0e} allowed; "
            f"import {self.import_s:.1f} s, compile {self.compile_s:.1f} s, run {self.run_s:.1f} s"
        )


def prove(name: str, target: Target, device: Device, size: int, folder: Path) -> Outcome:
    """Import, compile, run and compare one network for (1, 3, size, size) on a started device."""
    shape = (1, 3, size, size)
    about = {"name": name, "target": target.name, "device": device.name, "kind": device.kind, "input_shape": shape}
    try:
        started = time.perf_counter()
        imported = import_model(models.find_model(name, input_shape=shape))
        compiling = time.perf_counter()
        library = build(schedule_untuned(stock(imported.module, target)), folder / f"{name}.so")
        running = time.perf_counter()
        with Network(device, library, imported.signature) as network:
            outputs = network.run(imported.inputs)
        done = time.perf_counter()
        library.unlink()
    except Exception as exc:  # whatever it is, the other networks are still to be proved
        kind = "" if isinstance(exc, DeployError) else f"{type(exc).__name__}: "
        return Outcome(**about, failure=" ".join(f"{kind}{exc}".split())[-300:])
    found = imported.answers.reference.difference(outputs)
    failure = imported.answers.blind
    if not found.right:
        failure = f"off by {found.error:.3g}, {found.tolerance:.3g} is allowed"
    return Outcome(
        **about,
        max_abs_err=found.error,
        tolerance=found.tolerance,
        largest=imported.answers.scales[found.output],
        import_s=compiling - started,
        compile_s=running - compiling,
        run_s=done - running,
        failure=failure,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="local", help="see tvm-shufflenet targets (local)")
    parser.add_argument("--device", help="as for tvm-shufflenet run")
    parser.add_argument("--models", nargs="*", default=[""], metavar="WORD", help="names with one of these words (all)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the input (224)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the outcomes")
    parser.add_argument(
        "--resume", action="store_true", help="keep the good outcomes of the JSON file, and do the rest"
    )
    return parser.parse_args()


def write(path: Path, outcomes: list[dict]) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps({"schema": 1, "networks": outcomes}, indent=2) + "\n")
    temporary.replace(path)


def main() -> int:
    options = arguments()
    target = find_target(options.target)
    outcomes: list[dict] = []
    if options.resume and options.json and options.json.exists():
        outcomes = [o for o in json.loads(options.json.read_text())["networks"] if not o["failure"]]
    known = {outcome["name"] for outcome in outcomes}
    names = [name for name in models.names() if any(word in name for word in options.models) and name not in known]
    with tempfile.TemporaryDirectory() as folder, find_device(options.device, target) as device:
        print(f"{len(names)} networks at {options.size}x{options.size} for {target.name} on {device.describe()}")
        for name in names:
            outcome = prove(name, target, device, options.size, Path(folder))
            print(outcome.line(), flush=True)
            outcomes.append(asdict(outcome))
            if options.json:
                write(options.json, outcomes)
    failed = [outcome["name"] for outcome in outcomes if outcome["failure"]]
    print(f"{len(outcomes) - len(failed)} agree with PyTorch, {len(failed)} failed", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
