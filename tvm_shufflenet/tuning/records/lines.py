"""Line files that several processes append to.

A line is written whole, by one process at a time, and is on disk before the next; a torn last line is closed first, not
joined. Files are read as streams, however large they are, and from where the last reading ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ...errors import BadInput
from ...support.files import check_regular, open_file, read_file, replacing, sync_folder
from ...text import clean

LOCK, OWNER = ".lock", ".writer"
OWNER_BYTES = 200
LONGEST_BYTES = 8 * 2**20  # a workload takes 70 KB
PATIENCE_S = 30.0
# What flock says on network file systems and FUSE mounts that have no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line without its end. ``number`` counts from 1; ``data`` is None where it is longer than any of ours."""

    number: int
    offset: int
    data: bytes | None


class Stream:
    """A file that grows: each line is read once, a last line without its end again the next time."""

    def __init__(self, path: Path):
        self.path = path
        self._file: BinaryIO | None = None
        self._offset = self._count = 0

    def replaced(self) -> bool:
        """Whether what was read so far is no longer the beginning of the file."""
        if self._file is None:
            return False
        try:
            now, then = self.path.stat(), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return True
        return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or now.st_size < self._offset

    def fresh(self) -> Iterator[Line]:
        """The lines that have not been read. Raises BadInput."""
        try:
            if self._file is None:
                self._file = open_file(self.path)  # it is read again, and closed with this object
            self._file.seek(self._offset)
            while line := self._next():
                yield line
        except FileNotFoundError:
            return
        except OSError as exc:
            raise BadInput(f"cannot read {self.path}", str(exc), "check the --records folder") from exc

    def _next(self) -> Line | None:
        data = rest = self._file.readline(LONGEST_BYTES)
        if not data:
            return None
        while len(rest) == LONGEST_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(LONGEST_BYTES)
        line = Line(self._count + 1, self._offset, _content(data, self._offset) if rest is data else None)
        if rest.endswith(b"\n"):
            self._offset, self._count = self._file.tell(), line.number
        return line

    def read_at(self, offset: int) -> bytes:
        """A line that was read before; it is still there where the file has been replaced since."""
        self._file.seek(offset)
        return _content(self._file.readline(LONGEST_BYTES), offset)


def _content(data: bytes, offset: int) -> bytes:
    """A line without what editors add: Windows line ends, and a mark at the beginning of the file."""
    data = data.removeprefix(BYTE_ORDER_MARK) if offset == 0 else data
    return data.removesuffix(b"\n").removesuffix(b"\r")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """The folder for us alone among those who write to it; true where its file system has no locks. Raises BadInput.

    Then a file that only one process can make stands in. It outlives a process that is killed, and nobody but the user
    can know of other machines that the process has ended: so it is named, and never removed by another process.
    """
    with writing(folder):
        descriptor = _open_ours(folder / LOCK, os.O_RDWR)
        try:
            has_locks = _flock(descriptor)
            with contextlib.nullcontext() if has_locks else _owned(folder):
                yield not has_locks
        finally:
            os.close(descriptor)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as exc:
        if exc.errno in NO_LOCKS:
            return False
        raise
    return True


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    path, deadline = folder / OWNER, time.monotonic() + PATIENCE_S
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            break
        except FileExistsError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            with contextlib.suppress(OSError):
                owner = clean(read_file(path, OWNER_BYTES).decode(errors="replace").strip())
            raise BadInput(
                f"another run is writing to {folder}: {owner or 'it does not say which'}",
                "the file system has no locks, and that run was killed or hangs",
                f"if it has ended, remove {path}",
            ) from None
    try:
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        os.close(descriptor)
        yield
    finally:
        path.unlink(missing_ok=True)


def _open_ours(path: Path, flags: int) -> int:
    """A file of the folder, made if it is not there. Raises OSError for a link or anything else in its place: what is
    appended must not go elsewhere."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        check_regular(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses in this block is a BadInput that names ``path``."""
    try:
        yield
    except OSError as exc:
        raise BadInput(f"cannot write {path}", str(exc), "free space or name another --records folder") from exc


def append_line(path: Path, data: bytes) -> None:
    """Under the folder's lock: one whole line, on disk when this returns. Raises BadInput, and then nothing is left."""
    with writing(path), os.fdopen(_open_ours(path, os.O_RDWR | os.O_APPEND), "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        closing = b"" if file.read() in (b"", b"\n") else b"\n"
        try:
            file.write(closing + data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise
    if end == 0:
        sync_folder(path.parent)


def replace_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Under the folder's lock: write the file anew; what was there is kept under its name and a tilde."""
    backup = path.with_name(path.name + "~")
    with writing(path), replacing(path, sync=True) as file:
        file.writelines(line + b"\n" for line in lines)
        backup.unlink(missing_ok=True)
        os.link(path, backup)
