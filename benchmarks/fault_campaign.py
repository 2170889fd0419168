"""Tuning on two emulated devices of one key at a tracker, while faults are injected, and what is left afterwards.

Everything is a process of its own, as in a laboratory: the tracker, two ``tvm-shufflenet serve --core``, a proxy before
them (fault_proxy.py) and ``tvm-shufflenet tune``. What ends is started again, as systemd would do it; what hangs longer
than ``WATCHDOG_S`` is killed first. All else is the tuner's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.measuring.workers import PROGRAM
from tvm_shufflenet.tuning.records.folder import JOURNAL, RECORDS, WORKLOADS

HERE = Path(__file__).parent
MODEL = """
import torch
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit

def units():
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        ShuffleUnit(48, 48, 3, 1, 3), ShuffleUnit(48, 96, 3, 2, 3), ShuffleUnit(96, 96, 3, 1, 3),
        ShuffleUnit(96, 192, 3, 2, 3), ShuffleUnit(192, 192, 3, 1, 3),
    )
    randomise_batch_norms(made)
    return made
"""
SHAPE = "1,48,8,8"
TRACKER = """
import socket, sys
from tvm.rpc.tracker import _tracker_server
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
_tracker_server(listener, "stop")
"""
KEY, PROXY_HOST, CORE = "board", "127.0.0.2", "cortex-a72"
MARK = "TVM_SHUFFLENET_CAMPAIGN"
TRIAL_SECONDS = 5
WATCHDOG_S = 10.0
REARM_S = 3.0
DISK_MB = 192
CALM_END = 4  # trials
LIMIT_S = 180.0  # without any progress

# How often each kind comes. Those that cost the tuner seconds are rarer.
KINDS = {
    "kill the tuner": 3, "kill the tracker": 4, "kill a server": 4, "kill an emulator": 4, "kill a qemu": 6,
    "kill a session": 16, "kill a worker": 6, "stop a session": 8, "stop a session for good": 3, "stop a server": 8,
    "stop a server for good": 2, "reset": 12, "flip up": 10, "flip down": 10, "fill the disk": 4, "jump the clock": 6,
}  # fmt: skip


class Failed(RuntimeError):
    """What the campaign found wrong."""


class Kept:
    """A command that is started again whenever it ends. ``endings`` are the exit codes so far."""

    def __init__(self, words: list[str], log: Path, environment: dict[str, str], **options):
        self.words, self.log, self.environment, self.options = words, log, environment, options
        self.endings: list[int] = []
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log} | self.options
            self.process = subprocess.Popen(
                self.words, env=self.environment, stderr=log, start_new_session=True, **options
            )

    def ended(self) -> int | None:
        return self.process.poll()

    def keep(self) -> None:
        if self.ended() is not None:
            self.endings.append(self.ended())
            self.start()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """The process and all below it."""
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        return []


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[bool]:
    """A file system of its own at ``path``; false where that may not be mounted: then the disk is never filled."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0755", "tmpfs", str(path)], capture_output=True
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Laboratory:
    """The tracker, the devices and the proxy, who keeps them running, and a ``small`` disk for what they write."""

    def __init__(self, folder: Path, devices: int = 2, small: bool = True):
        self.devices, self.small = devices, small
        self.folder, self.disk, self.mark = folder, folder / "disk", uuid.uuid4().hex
        self.clock = folder / "clock"
        self.model = folder / "units.py"
        self.started = time.monotonic()

    def __enter__(self) -> Laboratory:
        self._stack = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc) -> None:
        self._stack.close()

    def _open(self) -> None:
        self.disk.mkdir()
        self.has_disk = self.small and self._stack.enter_context(small_disk(self.disk))
        self.temporary = self.disk / "tmp"
        self.temporary.mkdir()
        self.model.write_text(MODEL)
        torch_cache = str(self.folder / "torch")  # which torch leaves behind, as it should
        variables = {MARK: self.mark, "TMPDIR": str(self.temporary), "TORCHINDUCTOR_CACHE_DIR": torch_cache}
        self.environment = os.environ | variables
        self._fake_clock()
        tracker_port, *self.ports = free_ports(1 + self.devices)
        self.address = f"127.0.0.1:{tracker_port}"
        self.tracker = self._kept([sys.executable, "-c", TRACKER, str(tracker_port)], "tracker")
        self.servers = [self._kept(self._serve(port), f"server-{port}") for port in self.ports]
        proxy = [sys.executable, str(HERE / "fault_proxy.py"), PROXY_HOST, *map(str, self.ports)]
        self.proxy = self._kept(proxy, "proxy", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(self.proxy.process.stdout.fileno(), False)

    def _fake_clock(self) -> None:
        """Everybody's clock, the devices' too, whose emulator has no environment of its own: see ``jump``."""
        self.clock.write_bytes(bytes(8))
        shim, programs = self.folder / "clock_jump.so", self.folder / "bin"
        compiler = toolchain.require(toolchain.find_host_cc())
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", shim, HERE / "clock_jump.c"], check=True)
        programs.mkdir()
        qemu = programs / "qemu-aarch64"
        variables = {"LD_PRELOAD": str(shim), "CLOCK_OFFSET_FILE": str(self.clock)}
        words = " ".join(f"{name}={value}" for name, value in variables.items())
        original = toolchain.require(toolchain.find_qemu())
        qemu.write_text(f'#!/bin/sh\nexec env {words} {original} -U CLOCK_OFFSET_FILE "$@"\n')
        qemu.chmod(0o755)
        self.environment |= variables | {"PATH": f"{programs}:{os.environ['PATH']}"}

    def jump(self, seconds: int) -> None:
        """Set the clock of date and time, not the monotonic one: as somebody does by hand, or NTP."""
        with open(self.clock, "r+b", buffering=0) as file:
            file.write(struct.pack("<q", seconds))

    def _serve(self, port: int) -> list[str]:
        where = ["--port", str(port), "--tracker", self.address, "--key", KEY, "--custom-addr", PROXY_HOST]
        return [sys.executable, "-m", "tvm_shufflenet.cli", "serve", "--core", CORE, *where]

    def _kept(self, words: list[str], name: str, **options) -> Kept:
        kept = Kept(words, self.folder / f"{name}.log", self.environment, **options)
        self._stack.callback(kept.stop)
        return kept

    def keep(self) -> None:
        for kept in (self.tracker, *self.servers):
            kept.keep()

    def tuner(self, records: Path, trials: int, seed: int, model: Sequence[str] = ()) -> Kept:
        """A tuning run over all devices that writes to ``records``: of one unit, or what ``model`` says."""
        words = [*model] or ["--model", f"{self.model}:units", "--input-shape", SHAPE]
        words += ["--target", "arm64", "--trials", str(trials)]
        words += ["--device", f"tracker://{self.address}/{KEY}", "--records", str(records), "--seed", str(seed)]
        words += ["--trial-seconds", str(TRIAL_SECONDS)]
        return self._kept([sys.executable, "-m", "tvm_shufflenet.cli", "tune", *words], f"tuner-{records.name}")

    def wait_for_devices(self) -> None:
        from tvm_shufflenet.devices.lending import registered

        host, _, port = self.address.rpartition(":")
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, RuntimeError):
                if registered(host, int(port), KEY) == len(self.ports):
                    return
            self.keep()
            time.sleep(0.1)
        raise Failed("the devices do not register: " + self.logs())

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))

    def left(self, patience_s: float = TRIAL_SECONDS + 20) -> list[str]:
        """Processes and folders of ours that are still there after a while, when everything has been stopped."""
        deadline = time.monotonic() + patience_s
        while (found := [*self._processes(), *map(str, self.temporary.iterdir())]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _processes(self) -> list[str]:
        """Those with our mark, and emulators, whose environment is empty but whose folder is ours."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                ours = process.environ().get(MARK) == self.mark or process.cwd().startswith(str(self.temporary))
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
        return found


@dataclass
class Report:
    """What a campaign did. ``faults`` by kind, ``tuner_endings`` but for the last, resident sizes in MB."""

    faults: Counter = field(default_factory=Counter)
    tuner_endings: list[int] = field(default_factory=list)
    seconds: float = 0.0
    tuner_mb: float = 0.0


class Injector:
    """A seeded schedule of faults for a running tuner. ``step`` is to be called all the time."""

    def __init__(self, laboratory: Laboratory, tuner: Kept, seed: int, count: int):
        self.laboratory, self.tuner = laboratory, tuner
        self.random = random.Random(seed)
        kinds = {kind: weight for kind, weight in KINDS.items() if self._possible(kind)}
        first = self.random.sample(list(kinds), len(kinds))  # each kind once, as far as they go
        more = self.random.choices(list(kinds), list(kinds.values()), k=count)
        self.schedule = [*first, *more][:count]
        self.done: Counter[str] = Counter()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._armed: set[int] = set()  # ports
        self.latest = ""

    def _possible(self, kind: str) -> bool:
        return kind != "fill the disk" or self.laboratory.has_disk

    @property
    def left(self) -> int:
        return len(self.schedule)

    def inject(self) -> bool:
        """The next fault of the schedule; false where there is nothing now that it could hit."""
        kind = self.schedule[0]
        if not self._inject(kind):
            return False
        self.latest = self.schedule.pop(0)
        self.done[kind] += 1
        return True

    def step(self) -> None:
        """What is to follow an earlier fault."""
        for line in iter(self.laboratory.proxy.process.stdout.readline, b""):
            self._armed -= {json.loads(line)["port"]} if b"port" in line else set()
        due = [action for moment, action in self._later if moment <= time.monotonic()]
        self._later = [each for each in self._later if each[0] > time.monotonic()]
        for action in due:
            action()

    def _inject(self, kind: str) -> bool:
        port = self.random.choice(self.laboratory.ports)
        match kind.split():
            case ["kill", *_, "tuner"]:
                return self._signal([self.tuner.process], signal.SIGKILL)
            case ["kill", *_, "tracker"]:
                return self._signal([self.laboratory.tracker.process], signal.SIGKILL)
            case ["kill", _, part]:
                return self._signal(self._parts(part), signal.SIGKILL)
            case ["stop", _, part, *good]:
                return self._stop(part, bool(good))
            case ["reset"]:
                return self._arm(port, "reset", True)
            case ["flip", direction]:
                return self._arm(port, "flip", direction == "up")
            case ["fill", *_]:
                return self._fill()
            case _:
                self.laboratory.jump(self.random.randint(-400 * 86400, 400 * 86400))
                return True

    def _parts(self, part: str) -> list[psutil.Process]:
        """The processes of a kind that live now."""
        if part == "worker":
            return [each for each in self.tuner.tree()[1:] if PROGRAM in _words(each)]
        tops = [psutil.Process(kept.process.pid) for kept in self.laboratory.servers if kept.ended() is None]
        if part == "server":
            return tops
        emulators = [child for top in tops for child in _children(top) if "emulator" in _words(child)]
        if part == "emulator":
            return emulators
        qemus = [child for emulator in emulators for child in _children(emulator) if "qemu-aarch64" in _words(child)]
        return qemus if part == "qemu" else [session for qemu in qemus for session in _children(qemu)]

    def _signal(self, processes: list, number: int) -> bool:
        if not processes:
            return False
        with contextlib.suppress(psutil.Error):
            self.random.choice(processes).send_signal(number)
        return True

    def _stop(self, part: str, for_good: bool) -> bool:
        found = self._parts("qemu" if part == "server" else part)
        if not found:
            return False
        chosen = self.random.choice(found)
        with contextlib.suppress(psutil.Error):
            chosen.suspend()
        if not for_good:
            self._after(self.random.uniform(0.1, 2.0), chosen.resume)
        elif part == "server":  # a session is the server's own to end
            self._after(WATCHDOG_S, chosen.kill)
        return True

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        def do() -> None:
            with contextlib.suppress(psutil.Error):
                action()

        self._later.append((time.monotonic() + seconds, do))

    def _arm(self, port: int, kind: str, up: bool) -> bool:
        """Mostly in the middle of an upload, sometimes in what comes before or after it."""
        most = self.random.choice((200, 4000, 20000)) if up else self.random.choice((60, 600))
        fault = {"port": port, "kind": kind, "up": up, "after": self.random.randrange(most)}
        if port in self._armed:
            return False
        self._armed.add(port)
        self._order(fault | {"mask": 1 << self.random.randrange(8)})
        return True

    def _order(self, fault: dict) -> None:
        """Arm the fault, and earlier in the connection while none carries so much."""
        self.laboratory.proxy.process.stdin.write(json.dumps(fault).encode() + b"\n")
        self.laboratory.proxy.process.stdin.flush()
        sooner = fault | {"after": fault["after"] // 3}
        self._after(REARM_S, lambda: self._order(sooner) if fault["port"] in self._armed else None)

    def _fill(self) -> bool:
        path = self.laboratory.disk / "full"
        with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self._after(self.random.uniform(0.2, 2.0), lambda: path.unlink(missing_ok=True))
        return True


def _words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children()
    return []


def run(laboratory: Laboratory, records: Path, trials: int, seed: int, faults: int = 0, say=print) -> Report:
    """Tune until it is done, with so many faults. Raises Failed where it does not come to its end.

    A fault waits for another trial to be recorded after the one before it: so that in the end each has hit a tuner at
    work, and none a trial that was hit three times already, which would be the trial's own fault for all one can know.
    The last trials are left alone: whole networks are timed after them, in sessions that may last ten minutes.
    """
    tuner = laboratory.tuner(records, trials, seed)
    injector, report = Injector(laboratory, tuner, seed, faults), Report()
    started = moved = time.monotonic()
    seen = grown = 0
    while True:
        laboratory.keep()
        injector.step()
        report.tuner_mb = max(report.tuner_mb, _resident_mb(tuner.process.pid))
        if tuner.ended() == 0:
            break
        tuner.keep()
        recorded = line_count(records / JOURNAL)
        if recorded > grown:
            grown, moved = recorded, time.monotonic()
        if seen < recorded < trials - CALM_END and injector.left and injector.inject():
            seen = recorded
            count = sum(injector.done.values())
            say(f"{time.monotonic() - started:6.1f} s, {recorded} trials, fault {count}: {injector.latest}")
        if time.monotonic() - moved > LIMIT_S:
            raise Failed(f"no progress for {LIMIT_S:.0f} s: " + laboratory.logs())
        time.sleep(0.05)
    report.faults, report.tuner_endings = injector.done, tuner.endings
    report.seconds = time.monotonic() - started
    return report


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_info().rss / 2**20
    return 0.0


def line_count(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.read_bytes().count(b"\n")
    return 0


def content(records: Path) -> dict[str, set]:
    """What a folder of records says, wherever each line stands: trials, records, operators."""
    trials = [json.loads(line) for line in (records / JOURNAL).read_bytes().splitlines()]
    workloads = (records / WORKLOADS).read_bytes().splitlines()
    hashes = [json.loads(line)[0] for line in workloads]
    lines = [json.loads(line) for line in (records / RECORDS).read_bytes().splitlines()]
    return {
        "trials": {json.dumps({k: v for k, v in each.items() if k != "crc32"}, sort_keys=True) for each in trials},
        "records": {json.dumps([hashes[number], body], sort_keys=True) for number, body in lines},
        "operators": set(hashes),
    }


def compare(expected: Path, found: Path) -> None:
    """Raises Failed where two folders do not say the same."""
    left, right = content(expected), content(found)
    for part in left:
        lost, new = left[part] - right[part], right[part] - left[part]
        if lost or new:
            lines = [line[:400] for each in (lost, new) for line in sorted(each)[:1]]
            raise Failed(f"{len(lost)} {part} were lost, {len(new)} are new, such as {'; '.join(lines)}")


def campaign(
    folder: Path, trials: int, seed: int, faults: int, say=print, keep: Path | None = None
) -> tuple[Report, Report]:
    """An undisturbed run and a disturbed one. Raises Failed where these differ, or something is left behind; records
    and logs are then copied to ``keep``."""
    with Laboratory(folder) as laboratory, kept_if_failed(folder, keep):
        if not laboratory.has_disk:
            say("no file system may be mounted here: the disk is never full")
        laboratory.wait_for_devices()
        records = [laboratory.disk / name for name in ("undisturbed", "disturbed")]
        calm = run(laboratory, records[0], trials, seed)
        say(f"undisturbed: {calm.seconds:.0f} s, {calm.tuner_mb:.0f} MB")
        rough = run(laboratory, records[1], trials, seed, faults, say)
        compare(*records)
        for kept in (*laboratory.servers, laboratory.tracker, laboratory.proxy):
            kept.stop()
        if left := laboratory.left():
            raise Failed("left behind: " + "; ".join(left))
    return calm, rough


@contextlib.contextmanager
def kept_if_failed(folder: Path, keep: Path | None) -> Iterator[None]:
    try:
        yield
    except Failed:
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tmp", "full"))
        raise


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder whose path is always as long: it shows in modelled times where a guest's arguments lie on its stack."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
