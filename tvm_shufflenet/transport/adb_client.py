"""Runs Android's adb: shell commands, file transfer, forwarded ports."""

from __future__ import annotations

from ..errors import BadInput, DeviceFailed
from ..support import toolchain
from ..text import clean, shortened
from .remote import ANSWER_BYTES, Completed, run_program

SERIAL_CHARACTERS = 100

# What adb says of a phone that it has no way to: cause and next step.
UNREACHABLE = {
    "unauthorized": ("it has not been asked, or said no", "unlock it and allow USB debugging for this computer"),
    "no permissions": ("you may not use the USB device", "sudo apt-get install android-sdk-platform-tools-common"),
    "more than one device": ("several are attached", "name one: adb:SERIAL, see adb devices"),
    "no devices": ("it is not attached, or USB debugging is off", "attach it, and see adb devices"),
    "not found": ("it is not attached, or has another serial number", "adb devices"),
    "offline": ("it was just attached, or is asleep", "unlock it, attach it again, and see adb devices"),
    "cannot connect to daemon": ("adb's server does not start", "adb kill-server"),
}


class AdbClient:
    """``serial`` is one of ``adb devices``, None where only one is attached. Raises BadInput, ToolMissing."""

    def __init__(self, serial: str | None):
        if serial is not None and (serial.startswith("-") or not serial.isprintable() or " " in serial):
            raise BadInput(f"'{serial}' is no serial number", "", "see adb devices")
        adb = toolchain.require(toolchain.find_adb())
        self._command = [adb, *(("-s", serial) if serial else ())]
        self._serial = serial

    @property
    def name(self) -> str:
        if self._serial is None:
            done = self.run("get-serialno")
            self._serial = shortened(clean(done.output.strip()), SERIAL_CHARACTERS) if done.exit_code == 0 else None
        return f"adb:{self._serial}" if self._serial else "adb"

    def run(self, *words: str, limit_s: float = 60, limit_bytes: int = ANSWER_BYTES) -> Completed:
        """Raises ConnectionLost where adb takes longer than ``limit_s``, DeviceFailed for more than ``limit_bytes``."""
        return run_program([*self._command, *words], limit_s, limit_bytes=limit_bytes)

    def unreachable(self, done: Completed) -> DeviceFailed | None:
        """What keeps this computer from the phone, if that is what adb failed by."""
        said = done.error + done.output
        for words, (cause, step) in UNREACHABLE.items():
            if words in said:
                line = next(line.strip() for line in said.splitlines() if words in line)
                return DeviceFailed(f"no way to {self._serial or 'a phone'}: {shortened(line, 300)}", cause, step)
        return None
