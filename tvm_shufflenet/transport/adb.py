"""Reaches a phone through Android's adb. Nothing has to be installed on the phone."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from ..errors import DeviceFailed
from .adb_client import AdbClient
from .remote import ANSWER_BYTES, Completed, ConnectionLost, Remote, number

# The one place where a phone lets its shell user write and execute.
HOME = "/data/local/tmp/tvm-shufflenet"
# adb begins a file anew when it was cut off, and the phone throws away what had arrived; so files go in pieces.
CHUNK_BYTES = 4 << 20
UPLOAD_LIMIT_S = 600
# An old phone's shell tells neither its exit code nor its errors apart from its output.
EXIT_CODE = "exit-code-of-the-command"


class Adb(Remote):
    """``serial`` is one of ``adb devices``, None where only one is attached. Raises BadInput, ToolMissing."""

    def __init__(self, serial: str | None, model: str):
        self._adb = AdbClient(serial)
        self.folder = f"{HOME}/{model}"

    @property
    def name(self) -> str:
        return self._adb.name

    def shell(self, script: str, limit_s: float = 60, limit_bytes: int = ANSWER_BYTES) -> Completed:
        command = f"({script}); e=$?; echo; echo {EXIT_CODE} $e"
        done = self._adb.run("shell", command, limit_s=limit_s, limit_bytes=limit_bytes)
        output, marker, code = done.output.replace("\r\n", "\n").rpartition(f"\n{EXIT_CODE} ")
        exit_code = number(code)
        if not marker or exit_code is None:
            raise self._failed(done)
        return Completed(exit_code, output, done.error)

    def append(self, source: Path, offset: int, path: str) -> None:
        chunk, whole = f"{path}.chunk", shlex.quote(path)
        with open(source, "rb") as file, tempfile.NamedTemporaryFile(prefix="tvm-shufflenet-") as piece:
            file.seek(offset)
            while content := file.read(CHUNK_BYTES):
                Path(piece.name).write_bytes(content)
                done = self._adb.run("push", piece.name, chunk, limit_s=UPLOAD_LIMIT_S)
                if done.exit_code != 0:
                    raise self._failed(done, f"write {chunk}")
                script = f"cat {shlex.quote(chunk)} >> {whole} && rm {shlex.quote(chunk)}"
                self.check(self.shell(script), f"write {path}")

    def _failed(self, done: Completed, what: str = "run a command") -> DeviceFailed:
        if unreachable := self._adb.unreachable(done):
            return unreachable
        if ": remote " in done.error + done.output:  # the phone itself refused, by adb's account of it
            try:
                self.check(Completed(1, done.output, done.error), what)
            except DeviceFailed as exc:
                return exc
        return ConnectionLost(
            f"no connection to {self.name}: {done.words or 'adb was cut off'}", "the cable came loose"
        )
