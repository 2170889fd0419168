"""Copies a package to a device, verifies and measures it there, and notes the latency in its manifest.

Only files whose hash differs are copied. Each goes to a temporary name that holds its hash, so that an upload that was
cut off goes on where it ended, whichever command it belonged to; it takes its real name once the device has found the
same hash. The manifest comes last, without latencies, which are the business of the one who measures.

What the device says of its measurement is judged in answer.py.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..devices.facts import DeviceFacts
from ..errors import BadInput, DeviceFailed, PackageInvalid
from ..latency import MEASURED, disagreement
from ..packages.manifest import MANIFEST, Timing
from ..packages.package import Package
from ..support.files import sha256_of
from ..text import clean, shortened
from ..transport.remote import FULL, ConnectionLost, Remote, disk_full, number
from .answer import Output, Report, check_output, check_values, read_report, read_values

ATTEMPTS = 3  # in a row that bring nothing further
PAUSE_S = 1.0  # a server that was cut off has closed its file by then
BENCH_LIMIT_S = 900
MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
VALUES = ".values"  # the output, in the package's folder on the device
WRONG_OUTPUT, NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 5, 126, 127, 128


@dataclass(frozen=True)
class Settings:
    """How to measure. ``affinity`` is a list of CPUs, ``0,2-3``."""

    threads: int = 1
    warmup: int = 5
    repeat: int = 30
    affinity: str | None = None

    def words(self) -> list[str]:
        counts = ["--threads", self.threads, "--warmup", self.warmup, "--repeat", self.repeat]
        return [str(word) for word in (*counts, *(("--affinity", self.affinity) if self.affinity else ()))]


@dataclass(frozen=True)
class Deployed:
    """What was done: the files that were ``copied`` and the bytes of them that had to go, and the ``timing``."""

    package: Package
    to: str
    folder: str
    copied: tuple[str, ...]
    sent_bytes: int
    unchanged: tuple[str, ...]
    timing: Timing
    output: Output

    @property
    def noise(self) -> str | None:
        """Words where the samples do not agree, see ``latency.disagreement``."""
        found = self.timing.latency_us
        return disagreement(found["median"], found.get("p90"), found.get("p99"))


def deploy(
    package: Package, remote: Remote, settings: Settings, say: Callable[[str], None] = lambda _: None
) -> Deployed:
    """Raises BadInput for a package without a benchmark or for settings that it refuses, PackageInvalid for one of
    another machine, DeviceFailed, and WrongResult: then no latency is noted."""
    bench = f"{package.manifest.model}_bench"
    if bench not in package.manifest.hashes:
        raise BadInput(
            f"{package.path} holds no benchmark {bench}",
            "it was compiled for TVM's runtime only",
            "compile it with --format standalone",
        )
    with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
        bare = Path(folder) / MANIFEST
        bare.write_bytes(_without_timings(package))
        files = {name: package.folder / name for name in sorted(package.manifest.hashes)} | {MANIFEST: bare}
        upload = Upload(remote, files, package.manifest.hashes | {MANIFEST: sha256_of(bare)}, say)
        upload.prepare(package)
        copied = upload.run()
    say(f"measuring on {remote.name}")
    report = _measure(remote, bench, settings, package)
    timing = _timing(remote, report, settings)
    package.add_timing(timing)
    unchanged = tuple(name for name in files if name not in copied)
    return Deployed(package, remote.name, remote.folder, copied, upload.sent_bytes, unchanged, timing, report.output)


def _without_timings(package: Package) -> bytes:
    facts = json.loads((package.folder / MANIFEST).read_bytes()) | {"timings": []}
    return json.dumps(facts, indent=2).encode()


class Upload:
    """``files`` by their names on the device, with their ``hashes``."""

    def __init__(self, remote: Remote, files: dict[str, Path], hashes: dict[str, str], say: Callable[[str], None]):
        self.remote, self.files, self.hashes, self.say = remote, files, hashes, say
        self.sent_bytes = 0
        self._arrived: dict[str, int] = {}

    def prepare(self, package: Package) -> None:
        """Make the folder. Raises where the device cannot take this package, before anything is copied."""
        folder = shlex.quote(self.remote.folder)
        said = self.remote.check(self.remote.shell("uname -m"), "run a command").output.split()
        if not said:
            raise DeviceFailed(f"{self.remote.name} does not say what machine it is", "no shell answers there")
        machine = shortened(clean(said[-1]), 40)
        package.check_machine(MACHINES.get(machine, machine), self.remote.name)
        folders = sorted({str(Path(self._path(name)).parent) for name in self.files})
        made = self.remote.shell(f"mkdir -p {shlex.join(folders)} && cd {folder} && : > .writable && rm .writable")
        self.remote.check(made, f"write to {self.remote.folder}")
        if self.remote.shell("echo | sha256sum").exit_code != 0:
            raise DeviceFailed(
                f"{self.remote.name} has no sha256sum", "its system is too old", "install coreutils there"
            )

    def run(self) -> tuple[str, ...]:
        """Upload what differs, the manifest last; the names of what was copied."""
        there = self._hashes_there()
        different = [name for name in self.files if there.get(name) != self.hashes[name]]
        self._arrived = self._parts_there()
        self._check_room(different)
        for name in different:
            self._copy(name)
        self.remote.shell(f"cd {shlex.quote(self.remote.folder)} && rm -f .*.part .*.part.chunk")
        return tuple(different)

    def _hashes_there(self) -> dict[str, str]:
        names = shlex.join(f"./{name}" for name in self.files)
        done = self.remote.shell(f"cd {shlex.quote(self.remote.folder)} && sha256sum {names} 2>/dev/null", 300)
        lines = (line.split(maxsplit=1) for line in done.output.splitlines() if len(line) > 64)
        return {words[1].lstrip("*").removeprefix("./"): words[0] for words in lines if len(words) == 2}

    def _parts_there(self) -> dict[str, int]:
        """How much of each file has arrived under its temporary name."""
        sizes = "; ".join(f"wc -c < {shlex.quote(self._part(name))} 2>/dev/null || echo 0" for name in self.files)
        done = self.remote.check(self.remote.shell(f"({sizes}) 2>/dev/null"), "look at its files")
        numbers = [each for each in map(number, done.output.split()) if each is not None]
        if len(numbers) != len(self.files):
            raise DeviceFailed(f"{self.remote.name} does not say how long its files are: {done.words}")
        return dict(zip(self.files, numbers, strict=True))

    def _check_room(self, names: list[str]) -> None:
        """Where ``df`` knows: nothing is begun that will not fit."""
        needed = sum(self.files[name].stat().st_size - self._arrived[name] for name in names)
        done = self.remote.shell(f"df -Pk {shlex.quote(self.remote.folder)}")
        words = done.output.strip().splitlines()[-1].split() if done.exit_code == 0 and done.output.strip() else []
        blocks = number(words[3]) if len(words) >= 4 else None
        if blocks is not None and needed > (there := 1024 * blocks):
            raise disk_full(self.remote, f"{needed / 1e6:.1f} MB are needed, {there / 1e6:.1f} MB are there")

    def _copy(self, name: str) -> None:
        """One file. After a cut it goes on, as long as every few attempts bring more of it."""
        total, part, fruitless = self.files[name].stat().st_size, self._part(name), 0
        self.say(f"copying {name}, {total / 1e6:.2f} MB" + self._resumed(name))
        while True:
            before = self._arrived[name]
            try:
                if before > total or not self._finish_or_append(name, part, total):
                    self.remote.shell(f"rm -f {shlex.quote(part)}")
                    raise ConnectionLost(
                        f"{name} arrived at {self.remote.name} damaged", "the connection changes bytes"
                    )
                return
            except ConnectionLost as exc:
                fruitless += 1
                if self._look_again(name):
                    return
                if self._arrived[name] > before:
                    fruitless = 0
                if fruitless == ATTEMPTS:
                    raise self._gave_up(name, total, exc) from exc
                goes_on = self._resumed(name)
                self.say(f"connection lost, {name} goes on{goes_on}" if goes_on else f"{exc.what}: {name} begins anew")

    def _finish_or_append(self, name: str, part: str, total: int) -> bool:
        """Append what is missing and give the file its name; False where it is not what it should be."""
        if self._arrived[name] < total or total == 0:
            try:
                self.remote.append(self.files[name], self._arrived[name], part)
            except ConnectionLost:
                raise
            except DeviceFailed:
                self.remote.shell(f"rm -f {shlex.quote(part)} {shlex.quote(part)}.chunk")
                raise
            self.sent_bytes += total - self._arrived[name]
            self._arrived[name] = total
        mode = "755" if os.access(self.files[name], os.X_OK) else "644"
        words = shlex.quote(part), shlex.quote(self._path(name))
        script = (
            f"case $(sha256sum < {words[0]}) in {self.hashes[name]}*) chmod {mode} {words[0]} && "
            f"mv -f {words[0]} {words[1]};; *) exit 9;; esac"
        )
        done = self.remote.shell(script, 300)
        if done.exit_code != 9:
            self.remote.check(done, f"write {name}")
        return done.exit_code == 0

    def _look_again(self, name: str) -> bool:
        """After a pause: whether the file is there, and how much of it. If nobody answers, as much as before."""
        time.sleep(PAUSE_S)
        before = self._arrived[name]
        try:
            self._arrived = self._parts_there()
            self.sent_bytes += max(0, self._arrived[name] - before)
            # The answer that it has its name may be what was lost.
            return not self._arrived[name] and self._hashes_there().get(name) == self.hashes[name]
        except ConnectionLost:
            return False

    def _gave_up(self, name: str, total: int, exc: ConnectionLost) -> DeviceFailed:
        there = f"{self._arrived[name] / 1e6:.2f} of {total / 1e6:.2f} MB of {name} are there"
        return DeviceFailed(f"{exc.what}; {there}", exc.cause, "run the same command again: it goes on from there")

    def _resumed(self, name: str) -> str:
        return f", from {self._arrived[name] / 1e6:.2f} MB on" if self._arrived[name] else ""

    def _path(self, name: str) -> str:
        return f"{self.remote.folder}/{name}"

    def _part(self, name: str) -> str:
        return self._path(f".{self.hashes[name][:16]}.part")


def _measure(remote: Remote, bench: str, settings: Settings, package: Package) -> Report:
    """Run the benchmark in the folder. Its outputs go by files, so that nothing else gets between them."""
    command = shlex.join([f"./{bench}", "--json", "--output", VALUES, *settings.words()])
    folder = shlex.quote(remote.folder)
    script = f"cd {folder} && {{ rm -f {VALUES}; {command} > .out 2> .err; e=$?; cat .out; cat .err >&2; "
    try:
        done = remote.shell(script + "rm -f .out .err; exit $e; }", BENCH_LIMIT_S)
        if done.exit_code not in (0, WRONG_OUTPUT):
            raise _bench_failed(remote, bench, done.exit_code, done.words)
        report = read_report(done.output, remote.name, bench)
        report.check_plausible(settings.threads, settings.repeat, remote.name, bench)
        if report.model != package.manifest.model:
            raise PackageInvalid(f"{bench} is of {report.model}", "it was replaced", "compile the package again")
        check_output(report.output, done.exit_code == WRONG_OUTPUT, package, remote.name, bench)
        check_values(read_values(remote, VALUES, package), report.output, package, remote.name, bench)
    except ConnectionLost as exc:
        what = f"the connection was lost while the benchmark ran: {exc.what}"
        raise DeviceFailed(what, exc.cause, "run the same command again: everything is there") from exc
    if report.emulated:
        raise DeviceFailed(
            f"{remote.name} runs {bench} in an emulator: its answer is right, and its times mean nothing",
            "the package is for another machine than this one",
            "name the board itself, or use tvm-shufflenet bench PACKAGE --device emulated for modelled times",
        )
    return report


def _bench_failed(remote: Remote, bench: str, code: int, words: str) -> DeviceFailed | BadInput:
    if any(text in words for text in FULL):
        return disk_full(remote)
    if code == 2:
        return BadInput(f"{bench} refuses these settings: {words}", "", "see --threads, --affinity and --repeat")
    if code in (NOT_EXECUTABLE, NOT_FOUND):
        return DeviceFailed(
            f"{remote.name} may not execute {remote.folder}/{bench}: {words}",
            "the folder is on a file system that is mounted noexec, or a policy forbids it",
            "name a folder from which programs may be started",
        )
    if code > SIGNALLED:
        causes = {4: "its CPU lacks instructions that the target has", 9: "its memory is used up"}
        what = f"{bench} was ended on {remote.name} by signal {code - SIGNALLED}: {words}"
        return DeviceFailed(what, causes.get(code - SIGNALLED, "it crashed"), "compile it for the device's own target")
    return DeviceFailed(f"{bench} failed on {remote.name} with exit code {code}: {words}")


def _timing(remote: Remote, report: Report, settings: Settings) -> Timing:
    device = msgspec.to_builtins(DeviceFacts(remote.name, MEASURED))
    return Timing(
        device | msgspec.to_builtins(report.device),
        report.threads,
        msgspec.to_builtins(report.latency_us) | {"kind": "measured"},
        settings.affinity,
        report.cold_us,
        report.peak_memory_bytes,
        report.operators,
    )
