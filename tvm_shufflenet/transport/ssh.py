"""Reaches a device through the system's ssh, with the user's keys, known hosts and configuration."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from ..errors import BadInput, DeviceFailed
from ..support import toolchain
from .remote import ANSWER_BYTES, Completed, ConnectionLost, Remote, run_program

FORM = "ssh://USER@HOST[:PORT]/DIR, or ssh://USER@HOST/~/DIR for a folder in the home folder"
ADDRESS = re.compile(r"ssh://([\w.][\w.-]*@)?(\[[\w:.%]+\]|[\w.][\w.-]*)(?::(\d{1,5}))?(/.*)")
LOST = 255  # ssh's own exit code; everything else is the command's
CONNECT_LIMIT_S = 30
UPLOAD_LIMIT_S = 3600
# Nobody is asked anything: a password or a new host key is the user's business, before. A dead connection is found out
# after a quarter of a minute. What comes first holds, whatever the user's configuration or options say.
OPTIONS = ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15", "ServerAliveInterval=5")


class Ssh(Remote):
    """Raises BadInput for a ``spec`` that is no such address, ToolMissing without ssh."""

    def __init__(self, spec: str, options: Sequence[str] = ()):
        address = ADDRESS.fullmatch(spec)
        user, host, port, path = address.groups() if address else ("", "", "", "")
        self.folder = unquote(f".{path[2:]}" if path.startswith("/~/") else path)
        if self.folder in ("", "/", "./"):
            raise BadInput(f"'{spec}' is no address of a folder", "", f"write {FORM}")
        self._host, self._port = host, port
        self._target = f"{user or ''}{host.strip('[]')}"
        self.name = f"ssh://{user or ''}{host}" + (f":{port}" if port else "")
        chosen = [word for option in (*OPTIONS, *options) for word in ("-o", option)]
        ssh = toolchain.require(toolchain.find_ssh())
        self._master = Master([ssh, "-T", *chosen, *(("-p", port) if port else ()), "--", self._target])
        weakref.finalize(self, self._master.close)

    def shell(self, script: str, limit_s: float = 60, limit_bytes: int = ANSWER_BYTES) -> Completed:
        return self._run(script, limit_s, limit_bytes=limit_bytes)

    def append(self, source: Path, offset: int, path: str) -> None:
        with open(source, "rb", buffering=0) as file:
            file.seek(offset)
            self.check(self._run(f"cat >> {shlex.quote(path)}", UPLOAD_LIMIT_S, file), f"write {path}")

    def _run(
        self, script: str, limit_s: float, stdin: IO[bytes] | None = None, limit_bytes: int = ANSWER_BYTES
    ) -> Completed:
        """By a shell of POSIX's, whichever the user logs in to: ssh hands over one line."""
        refused = self._master.open()
        command = [*self._master.command, f"sh -c {shlex.quote(script)}"]
        return self._answered(refused or run_program(command, limit_s, stdin, limit_bytes))

    def _answered(self, done: Completed) -> Completed:
        """What the command did. Raises what ssh itself had to say."""
        if done.exit_code != LOST:
            return done
        if "IDENTIFICATION HAS CHANGED" in done.error:
            raise DeviceFailed(
                f"the host key of {self.name} is another than the one known for it; nothing was sent",
                "the device was installed anew, or something else answers in its place",
                f"if you know why it changed: ssh-keygen -R {self._known_as}",
            )
        if "Host key verification failed" in done.error:
            raise DeviceFailed(
                f"the host key of {self.name} is not known here; nothing was sent",
                "nobody has connected to it from here yet",
                f"connect once by hand and compare the fingerprint: {self._by_hand}",
            )
        if "Permission denied" in done.error:
            raise DeviceFailed(
                f"{self.name} does not let you in: {done.words}",
                "none of your keys is authorised there",
                f"ssh-copy-id {self._by_hand.removeprefix('ssh ')}",
            )
        raise ConnectionLost(
            f"no connection to {self.name}: {done.words}", "it is off, or the network is", self._by_hand
        )

    @property
    def _by_hand(self) -> str:
        return f"ssh {f'-p {self._port} ' if self._port else ''}{self._target}"

    @property
    def _known_as(self) -> str:
        host = self._host.strip("[]")
        return f"'[{host}]:{self._port}'" if self._port else host


class Master:
    """One connection that all commands share: a board takes half a second and more to let somebody in.

    It ends with this process, however that ends: then the ``cat`` at its other end has nothing more to read.
    """

    def __init__(self, command: Sequence[str]):
        self._ssh, self._target = list(command[:-2]), list(command[-2:])
        self._folder = Path(tempfile.mkdtemp(prefix="tvm-shufflenet-"))
        self._socket, self._stderr = self._folder / "ssh", self._folder / "stderr"
        self._process: subprocess.Popen | None = None

    @property
    def command(self) -> list[str]:
        """ssh over this connection."""
        return [*self._ssh, "-o", "ControlMaster=no", "-S", str(self._socket), *self._target]

    def open(self) -> Completed | None:
        """Connect if there is no connection; what ssh said where there can be none."""
        if self._process is not None and self._process.poll() is None:
            return None
        self._end()
        command = [*self._ssh, "-M", "-S", str(self._socket), *self._target, "cat"]
        with open(self._stderr, "wb") as stderr:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
        deadline = time.monotonic() + CONNECT_LIMIT_S
        while not self._socket.exists():  # it appears once the device has let us in
            late = time.monotonic() > deadline or self._stderr.stat().st_size > ANSWER_BYTES  # a banner without end
            if self._process.poll() is not None or late:
                with open(self._stderr, "rb") as file:
                    said = file.read(ANSWER_BYTES).decode(errors="replace")
                self._end()
                return Completed(LOST, "", said or "it does not answer")
            time.sleep(0.01)
        return None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.stdin.close()
            process.wait()
        self._socket.unlink(missing_ok=True)

    def close(self) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)
