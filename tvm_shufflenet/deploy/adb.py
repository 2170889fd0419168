"""A phone that is reached by Android's adb. Nothing has to be installed on it."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from .. import toolchain
from ..errors import BadInput, DeviceFailed
from .remote import Completed, ConnectionLost, Remote, run_program

# The one place where a phone lets its shell user write and execute.
HOME = "/data/local/tmp/tvm-shufflenet"
# adb begins a file anew when it was cut off, and the phone throws away what had arrived; so files go in pieces.
CHUNK_BYTES = 4 << 20
UPLOAD_LIMIT_S = 600
# An old phone's shell tells neither its exit code nor its errors apart from its output.
EXIT_CODE = "exit-code-of-the-command"

# What adb says of a phone that it has no way to: cause and next step.
UNREACHABLE = {
    "unauthorized": ("it has not been asked, or said no", "unlock it and allow USB debugging for this computer"),
    "no permissions": ("you may not use the USB device", "sudo apt-get install android-sdk-platform-tools-common"),
    "more than one device": ("several are attached", "name one: --to adb:SERIAL, see adb devices"),
    "no devices": ("it is not attached, or USB debugging is off", "attach it, and see adb devices"),
    "not found": ("it is not attached, or has another serial number", "adb devices"),
    "offline": ("it was just attached, or is asleep", "unlock it, attach it again, and see adb devices"),
    "cannot connect to daemon": ("adb's server does not start", "adb kill-server"),
}


class Adb(Remote):
    """``serial`` is one of ``adb devices``, None where only one is attached. Raises BadInput, ToolMissing."""

    def __init__(self, serial: str | None, model: str):
        if serial is not None and (serial.startswith("-") or not serial.isprintable() or " " in serial):
            raise BadInput(f"'{serial}' is no serial number", "", "see adb devices")
        adb = toolchain.require(toolchain.find_adb())
        self._command = [adb, *(("-s", serial) if serial else ())]
        self.folder = f"{HOME}/{model}"
        self._serial = serial

    @property
    def name(self) -> str:
        if self._serial is None:
            done = run_program([*self._command, "get-serialno"], 60)
            self._serial = done.output.strip() if done.exit_code == 0 else None
        return f"adb:{self._serial}" if self._serial else "adb"

    def shell(self, script: str, limit_s: float = 60) -> Completed:
        done = run_program([*self._command, "shell", f"({script}); e=$?; echo; echo {EXIT_CODE} $e"], limit_s)
        output, marker, code = done.output.replace("\r\n", "\n").rpartition(f"\n{EXIT_CODE} ")
        if not marker or not code.strip().isdigit():
            raise self._failed(done)
        return Completed(int(code), output, done.error)

    def append(self, source: Path, offset: int, path: str) -> None:
        chunk, whole = f"{path}.chunk", shlex.quote(path)
        with open(source, "rb") as file, tempfile.NamedTemporaryFile(prefix="tvm-shufflenet-") as piece:
            file.seek(offset)
            while content := file.read(CHUNK_BYTES):
                Path(piece.name).write_bytes(content)
                done = run_program([*self._command, "push", piece.name, chunk], UPLOAD_LIMIT_S)
                if done.exit_code != 0:
                    raise self._failed(done, f"write {chunk}")
                script = f"cat {shlex.quote(chunk)} >> {whole} && rm {shlex.quote(chunk)}"
                self.check(self.shell(script), f"write {path}")

    def _failed(self, done: Completed, what: str = "run a command") -> DeviceFailed:
        said = done.error + done.output
        for words, (cause, step) in UNREACHABLE.items():
            if words in said:
                return DeviceFailed(f"no way to {self._serial or 'a phone'}: {_line_with(words, said)}", cause, step)
        if ": remote " in said:  # the phone itself refused, by adb's account of it
            try:
                self.check(Completed(1, done.output, done.error), what)
            except DeviceFailed as exc:
                return exc
        return ConnectionLost(
            f"no connection to {self.name}: {done.words or 'adb was cut off'}", "the cable came loose"
        )


def _line_with(words: str, text: str) -> str:
    return next(line.strip() for line in text.splitlines() if words in line)
