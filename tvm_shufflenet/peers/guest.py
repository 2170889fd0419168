"""Runs a peer's aarch64 wheel on the emulated core: an arm64 Python under QEMU with our counting plugin.

The guest gets what makes the same run come to the same counts: the device's own heap, an environment of its own, and
only paths in one private folder. It also gets a /proc/cpuinfo and the files about CPUs in /sys that such a core would
have: onnxruntime's and XNNPACK's detection of cores reads them, and crashes without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..clock.counts import read_counts
from ..clock.cycles import CycleModel
from ..emulator.build import guest_heap_library, plugin_library
from ..emulator.process import FOLDER_PREFIX, plugin_argument
from ..errors import PeerFailed
from ..hardware.boards import USUAL, Board, find_board
from ..support import toolchain
from .catalogue import RUNNERS, Peer
from .environments import QUIET, Announce
from .handover import Handover
from .process import Runner, last_words
from .sysroot import PYTHON, arm64_packages, arm64_python

WARMUP = 2
ENVIRONMENT = {
    "PYTHONPATH": "./site",
    "PYTHONHASHSEED": "0",
    "PYTHONMALLOC": "malloc",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_PRELOAD": "./heap.so",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "HOME": ".",
    **QUIET,
}


def count_in_guest(
    peer: Peer, artifact: Path, handover: Handover, core_name: str, outputs: Sequence[Path], announce: Announce
) -> tuple[dict, dict]:
    """What the runner says of itself, and the cost of one inference; its outputs go to the files ``outputs``.

    Raises PeerFailed, ToolMissing and, for counts that cannot be priced, DeviceFailed.
    """
    board = find_board(core_name)
    sysroot = arm64_python(announce)
    site = arm64_packages(peer.name, peer.guest_pins, lambda site: _precompile(peer, sysroot, site), announce)
    with guest_folder(board, peer.script, sysroot, site) as folder:
        for path in artifact.parent.glob(f"{artifact.stem}.*"):  # with its weights, where they are a file of their own
            os.symlink(path, folder / path.name)
        for path in handover.inputs:
            os.symlink(path, folder / path.name)
        made = [folder / path.name for path in outputs]
        files = ["--artifact", artifact.name, "--inputs", *(path.name for path in handover.inputs)]
        files += ["--outputs", *(path.name for path in made)]
        with Runner(
            peer.name,
            [*guest_command(board, peer.script, ["-plugin", plugin_argument(board.core)]), *files],
            {},
            folder,
        ) as runner:
            runner.ask(f"count {WARMUP}")
            facts = runner.facts
        dumps = sorted((folder / "counts").glob("*.1"))
        if len(dumps) != 1 or not all(path.exists() for path in made):
            raise PeerFailed(f"{peer.name} was not counted on the emulated core", "", "leave it out with --peers")
        for path, output in zip(made, outputs, strict=True):
            output.write_bytes(path.read_bytes())
        return facts, msgspec.to_builtins(CycleModel(board).price(read_counts(dumps[0])))


def _precompile(peer: Peer, sysroot: Path, site: Path) -> None:
    """Import everything once, so that Python keeps its bytecode: the guest is slow at compiling it."""
    board = find_board(USUAL)
    with guest_folder(board, peer.script, sysroot, site) as folder:
        command = [*guest_command(board, peer.script, ["-U", "PYTHONDONTWRITEBYTECODE"]), "--help"]
        done = subprocess.run(command, env={}, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        what = f"{peer.name} does not start in the arm64 Python: {last_words(done.stderr)}"
        raise PeerFailed(what, "a library that its wheel needs is missing there", "leave it out with --peers")


def guest_command(board: Board, script: Path, qemu_options: list[str]) -> list[str]:
    variables = (word for name, value in ENVIRONMENT.items() for word in ("-E", f"{name}={value}"))
    qemu = [toolchain.require(toolchain.find_qemu()), "-cpu", board.core.qemu_cpu, "-L", "./root"]
    return [
        *qemu, *variables, *qemu_options,
        f"./root/usr/bin/python{PYTHON}", f"./runners/{script.name}",
    ]  # fmt: skip


@contextmanager
def guest_folder(board: Board, script: Path, sysroot: Path, site: Path) -> Iterator[Path]:
    """A private folder with all that the guest sees: its file system, the runner, the plugin and the heap."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        for name in ("counts", "root", "runners"):
            (folder / name).mkdir()
        for name, target in {"usr": "usr", "lib": "usr/lib", "etc": "etc"}.items():
            os.symlink(sysroot / target, folder / "root" / name)
        for program in (RUNNERS / "common.py", script):
            shutil.copy(program, folder / "runners")
        os.symlink(site, folder / "site")
        os.symlink(plugin_library(), folder / "plugin.so")
        os.symlink(guest_heap_library(), folder / "heap.so")
        for path, text in _machine(board).items():
            file = folder / "root" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _machine(board: Board) -> dict[str, str]:
    """The files by which Linux describes a machine with one such core."""
    cpuinfo = {
        "processor": "0",
        "BogoMIPS": "108.00",
        "Features": board.core.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": f"0x{board.core.part:03x}",
        "CPU revision": "3",
    }
    cpus = "sys/devices/system/cpu"
    frequency = f"{board.clock_ghz * 1e6:.0f}\n"
    return {
        "proc/cpuinfo": "".join(f"{name}\t: {value}\n" for name, value in cpuinfo.items()) + "\n",
        **{f"{cpus}/{name}": "0\n" for name in ("possible", "present", "online", "kernel_max")},
        **{f"{cpus}/cpu0/cpufreq/cpuinfo_{end}_freq": frequency for end in ("min", "max")},
        f"{cpus}/cpu0/cpufreq/scaling_cur_freq": frequency,
        f"{cpus}/cpu0/topology/physical_package_id": "0\n",
        f"{cpus}/cpu0/topology/core_siblings_list": "0\n",
        f"{cpus}/cpu0/topology/thread_siblings_list": "0\n",
        f"{cpus}/cpu0/topology/core_id": "0\n",
    }
