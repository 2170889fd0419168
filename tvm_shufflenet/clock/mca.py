"""Runs llvm-mca: from assembly to the cycle at which each instruction issues and retires on a named core.

It takes 15 ms to come up, as long as it then takes for a thousand instructions. So it is loaded once and forked for
each text (native/fork_server.c); where that cannot be, it is started for each.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct
import subprocess
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..errors import DeployError, ToolMissing
from ..hardware.boards import BOARDS
from ..hardware.cores import Core
from ..support import toolchain
from ..support.shared_library import host_library
from .disassembly import tool_failed
from .overlaps import overlaid

TIMELINE = (
    "-mattr=+all", "-timeline", "-timeline-max-cycles=0", "-resource-pressure=false", "-instruction-info=false",
    "-skip-unsupported-instructions=any", "-call-latency=1",  # without it llvm-mca takes 100 cycles for a call
)  # fmt: skip


class Moments(msgspec.Struct, rename="pascal"):
    """When an instruction is issued and when it retires, in cycles; as llvm-mca's JSON has it, like what follows."""

    cycle_issued: int
    cycle_retired: int


class _Timeline(msgspec.Struct, rename="pascal", frozen=True):
    timeline_info: tuple[Moments, ...] = ()


class _Region(msgspec.Struct, rename="pascal"):
    name: str
    timeline_view: _Timeline = _Timeline()


class _TargetInfo(msgspec.Struct, rename="pascal"):
    resources: list[str]


class _Report(msgspec.Struct, rename="pascal"):
    target_info: _TargetInfo
    code_regions: list[_Region]


class Mca:
    """llvm-mca with one core's model; threads may share it. ``runs`` counts how often it was asked for timelines."""

    def __init__(self, core: Core):
        self.core = core
        self.runs = 0
        self._path = toolchain.require(toolchain.find_llvm_mca())
        self._command = [self._path, "-mtriple=aarch64", f"-mcpu={core.mca_cpu}", "-iterations=1", "-json"]
        self._loaded: list[_Loaded] = []  # those that are not at work; each serves one thread at a time
        self._is_loadable = True

    @functools.cached_property
    def version(self) -> str:
        command = [self._path, "--version"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise tool_failed(command, done.stderr)
        return done.stdout

    def timelines(self, sequences: Sequence[Sequence[str]]) -> list[Sequence[Moments]]:
        """One simulation of every sequence, each of texts of one instruction or several: an entry for each instruction
        that the core's model has. What sequences share is written out once, for most of the time goes into reading it.

        Raises DeviceFailed where llvm-mca fails, ToolMissing where it has no model of the core.
        """
        self.runs += 1
        text = _marked(sequences)
        report = self._report(self._forked(text) or _started([*self._command, *TIMELINE], text))
        found = {region.name: region.timeline_view.timeline_info for region in report.code_regions}
        return [found.get(str(index), ()) for index in range(len(sequences))]

    def check_core(self) -> None:
        """Raises ToolMissing where it has no model of the core."""
        self._report(_started(self._command, "nop\n"))

    def _report(self, done: subprocess.CompletedProcess) -> _Report:
        complaint = done.stderr.decode(errors="replace")
        if "is not a recognized processor" in complaint:
            raise self._no_model("it does not know that name")
        if done.returncode != 0:
            raise tool_failed(done.args, complaint)
        report = msgspec.json.decode(done.stdout, type=_Report)
        units, right = report.target_info.resources, self.core.mca_units
        if not all(unit.startswith(right) for unit in units):
            used = f"{units[0]} and the like" if units else "none"
            raise self._no_model(f"it takes another core's units for it, {used}, where {right}* belong")
        return report

    def _no_model(self, cause: str) -> ToolMissing:
        what = f"{self._path} has no model of {self.core.mca_cpu}, by which {self.core.cpu} is priced"
        return ToolMissing(what, cause, f"{toolchain.find_llvm_mca().install}, or name another of {', '.join(BOARDS)}")

    def _forked(self, text: str) -> subprocess.CompletedProcess | None:
        """None where the program cannot be loaded to be forked: it is linked statically, nothing may be preloaded."""
        if not self._is_loadable:
            return None
        with contextlib.suppress(DeployError, OSError):
            try:
                loaded = self._loaded.pop()
            except IndexError:
                loaded = _Loaded([*self._command, *TIMELINE])
            done = loaded.run(text)
            self._loaded.append(loaded)
            return done
        self._is_loadable = False
        return None


def _marked(sequences: Sequence[Sequence[str]]) -> str:
    """All sequences laid over each other, and where each begins and ends: by its number, for they cross."""
    texts, starts = overlaid(sequences)
    marks: dict[int, list[str]] = defaultdict(list)
    for index, (start, sequence) in enumerate(zip(starts, sequences, strict=True)):
        marks[start].append(f"// LLVM-MCA-BEGIN {index}")
        marks[start + len(sequence)].append(f"// LLVM-MCA-END {index}")
    lines = ["// LLVM-MCA-BEGIN none", "nop", "// LLVM-MCA-END none"]  # llvm-mca fails if all regions turn out empty
    # The empty last line matters: llvm-mca fails on a comment that ends the file without a newline.
    for place, text in enumerate([*texts, ""]):
        lines += [*marks[place], text]
    return "\n".join(lines)


def _started(command: list[str], text: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, input=text.encode(), capture_output=True)


def fork_server() -> Path:
    """What is preloaded into a program of this machine to fork it. Raises ToolMissing, LinkFailed."""
    return host_library(Path(__file__).parent / "native" / "fork_server.c")


class _Loaded:
    """A program that waits before its main(), to be forked. It ends with this object, or with this process.

    Raises LinkFailed and ToolMissing where what is preloaded cannot be built, OSError where nothing can be started.
    """

    def __init__(self, command: list[str]):
        preload = " ".join(filter(None, [str(fork_server()), os.getenv("LD_PRELOAD")]))
        self._command = command
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"LD_PRELOAD": preload, "FORK_SERVER": str(theirs.fileno()), **_huge_pages()},
            )  # fmt: skip
        weakref.finalize(self, _end, self._socket, self._process)

    def run(self, text: str) -> subprocess.CompletedProcess:
        """Raises OSError where it has ended."""
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(os.fdopen(os.memfd_create(name), "wb+")) for name in ("stdin", "stdout", "stderr")
            ]
            files[0].write(text.encode())
            files[0].seek(0)
            socket.send_fds(self._socket, [b"?"], [file.fileno() for file in files])
            answer = self._socket.recv(4)
            if len(answer) != 4:
                raise ConnectionResetError(f"{self._command[0]} has ended")
            (status,) = struct.unpack("i", answer)
            outputs = []
            for file in files[1:]:
                file.seek(0)
                outputs.append(file.read())
            return subprocess.CompletedProcess(self._command, os.waitstatus_to_exitcode(status), *outputs)


def _huge_pages() -> dict[str, str]:
    """It takes megabytes and ends at once: a fifth of its time would go into getting them page by page."""
    tunables = filter(None, [os.getenv("GLIBC_TUNABLES"), "glibc.malloc.hugetlb=1"])
    return {"GLIBC_TUNABLES": ":".join(tunables)}


def _end(connection: socket.socket, process: subprocess.Popen) -> None:
    connection.close()
    process.wait()
