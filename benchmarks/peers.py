"""Our tuned libraries against other engines: ``python benchmarks/peers.py --json peers.json``.

On this machine against onnxruntime, OpenVINO, ncnn, LiteRT, PyTorch and torch.compile; on an emulated core against the
aarch64 wheels of ncnn, onnxruntime and LiteRT. Each engine runs in a process of its own, in a Python environment that
is made in the user's cache folder at first use. Every output is checked against PyTorch before anything is timed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from tvm_shufflenet.report.documents import ContestDocument

NETWORKS = (
    "shufflenet_v1_g3_x0_5",
    "shufflenet_v1_g3_x1_0",
    "shufflenet_v1_g8_x1_0",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x2_0",
)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    from tvm_shufflenet.errors import DeployError

    try:
        return _run(options)
    except DeployError as exc:
        print(f"peers: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = parser.add_argument
    words("--networks", type=_words, default=NETWORKS, metavar="M,...", help="models, see tvm-shufflenet models")
    words("--peers", default="all", metavar="NAME,...", help="engines to compare with (all)")
    words("--device", type=_words, default=("local",), metavar="D,...", help="local, emulated:CORE (local)")
    words("--threads", type=_numbers, default=(1, 2), metavar="N,...", help="threads on this machine (1,2)")
    words("--rounds", type=int, default=5, metavar="N", help="turns of each engine, in alternation (5)")
    words("--samples", type=int, default=10, metavar="N", help="samples in a turn (10)")
    words("--target", metavar="T", help="target of our libraries (local, or the emulated core)")
    words(
        "--records",
        type=Path,
        metavar="DIR",
        help="tuning records to use alone, or a folder with one folder per target",
    )
    words("--input-shape", type=_numbers, metavar="N,C,H,W", help="input shape (1,3,224,224)")
    words("--json", type=Path, metavar="FILE", help="write all samples and settings as JSON")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _run(options) -> int:
    from rich.console import Console

    from tvm_shufflenet.models import find_model
    from tvm_shufflenet.peers import catalogue
    from tvm_shufflenet.peers.contest import first_cpus
    from tvm_shufflenet.report.peers import print_contest, print_means
    from tvm_shufflenet.workflow.contest import geometric_means

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for device in options.device:  # a wrong word is refused before hours are spent
        catalogue.find_peers(options.peers, device != "local")
        _records(device, options)
        if device == "local":
            first_cpus(max(options.threads))
    models = [find_model(name, input_shape=options.input_shape) for name in options.networks]
    contests = []
    for model in models:
        for contest in _contests(model, options, lambda text: console.print(text, markup=False, style="dim")):
            print_contest(console, contest)
            contests.append(contest)
            if options.json:
                _write(options.json, contests)
    if len(contests) > 1:
        print_means(console, contests, geometric_means(contests))
    return _exit_code(contests)


def _contests(model, options, announce):
    """Every device and number of threads for one network, which is converted once."""
    from tvm_shufflenet.peers.catalogue import find_peers
    from tvm_shufflenet.peers.contest import Effort, build_ours, emulated_contest, local_contest
    from tvm_shufflenet.peers.handover import write_handover
    from tvm_shufflenet.workflow.contest import OURS
    from tvm_shufflenet.workflow.imported import import_model

    folder = Path(tempfile.mkdtemp(prefix="tvm-shufflenet-peers-"))
    try:
        imported = import_model(model)
        handover = write_handover(imported, folder)
        for name in options.device:
            target, store, clock = _records(name, options)
            announce(f"building our library of {model.name} for {target.name}, records in {store.folder}")
            peers = find_peers(options.peers, name != "local")
            if name != "local":
                library = build_ours(imported, target, store, clock, folder)
                yield emulated_contest(model.name, handover, {OURS: library}, peers, target.board, target, announce)
                continue
            for threads in options.threads:
                library = build_ours(imported, target, store, clock, folder, threads)
                effort = Effort(options.rounds, options.samples)
                yield local_contest(model.name, handover, {OURS: library}, peers, threads, effort, announce)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _records(device: str, options):
    """Target, records and clock of our library on a device."""
    from dataclasses import replace

    from tvm_shufflenet.devices import find_device
    from tvm_shufflenet.errors import BadInput, UnknownName
    from tvm_shufflenet.hardware.targets import find_target
    from tvm_shufflenet.tuning.records.store import RecordStore
    from tvm_shufflenet.workflow.schedules import open_records

    scheme, _, core = device.partition(":")
    if scheme not in ("local", "emulated"):
        raise UnknownName("device", device, ("local", "emulated:CORE"))
    target = find_target(options.target or ("local" if scheme == "local" else core or "cortex-a72"))
    if core:
        target = replace(target, board=core)
    clock = find_device(device, target).clock
    chosen = options.records
    if chosen is not None and (chosen / target.name).is_dir():
        chosen = chosen / target.name
    if chosen is None:
        return target, open_records(target, None), clock
    if not chosen.is_dir():
        raise BadInput(f"there is no folder {chosen}", "", "an empty one means the templates' first choices")
    return target, RecordStore(chosen, target.tvm()), clock


def _exit_code(contests) -> int:
    """That of the first failure of ours: a peer's failure is a fact to report, ours is not."""
    failures = [contest.ours.failure for contest in contests if contest.ours.failure]
    return failures[0].exit_code if failures else 0


def _write(path: Path, contests) -> None:
    from tvm_shufflenet.peers.environments import OWN, PINS, pinned
    from tvm_shufflenet.support.host import host_facts
    from tvm_shufflenet.workflow.contest import geometric_means

    facts = {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": host_facts(),
        "versions": {
            "python": platform.python_version(),
            "torch": pinned(OWN, "torch"),
            "apache-tvm": pinned(OWN, "apache-tvm"),
            "pins": {name: list(pins) for name, pins in PINS.items()},
        },
        "contests": [msgspec.to_builtins(ContestDocument.of(contest)) for contest in contests],
        "geometric_means": msgspec.to_builtins(geometric_means(contests)),
    }
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(facts, indent=2) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
