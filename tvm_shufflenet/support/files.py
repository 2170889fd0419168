"""Safe access to files that others may control: bounded reads of regular files, writes that follow no links.

Everything that comes from outside is opened by ``open_file``: a FIFO or a device in place of a file is refused and
never waited for. JSON is bounded in size and depth before it becomes objects. What is written appears whole, under a
temporary name that nobody could have known, and no link is followed. What a killed run has left under such a name is
known by its lock, which nobody holds any more; whoever writes the same thing next removes it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
JSON_BYTES = 64 << 20  # a comparison takes 100 KB, a package's manifest less
YOUNG_S = 60.0  # what is younger may not have its lock yet
JSON_DEPTH = 64  # what this project writes nests 8 deep
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_TOKEN = re.compile("[0-9a-f]{16}")
_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.?)*"?', re.DOTALL)  # one without an end too: so it never tries again
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class Unsuitable(OSError):
    """What stands under a name cannot serve as the file that is wanted; the text says why."""


class Malformed(ValueError):
    """Bytes that are not the JSON that is wanted; the text says why."""


# Reading


def open_file(path: Path | str, follow: bool = True) -> BinaryIO:
    """A regular file as a binary stream. ``follow``: a link may stand for it.

    Returns at once whatever stands there. Raises OSError; Unsuitable for what is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        raise _in_words(path, exc) from exc
    try:
        check_regular(descriptor, path)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(descriptor: int, path: Path | str) -> None:
    """Raises Unsuitable where what was opened is no regular file."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "something else")
        raise Unsuitable(f"{path} is {kind}, not a regular file")


def _in_words(path: Path | str, exc: OSError) -> OSError:
    if exc.errno == errno.ELOOP and os.path.islink(path):
        return Unsuitable(f"{path} is a symbolic link, which is not followed here")
    if exc.errno in (errno.ENXIO, errno.ENODEV):
        return Unsuitable(f"{path} is a socket or a device, not a regular file")
    return exc


def read_file(path: Path | str, limit_bytes: int = JSON_BYTES) -> bytes:
    """The content of a regular file. Raises OSError; Unsuitable for one that is larger than ``limit_bytes``."""
    with open_file(path) as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise Unsuitable(f"{path} is larger than {limit_bytes / 2**20:.0f} MB")
    return content


def read_json(path: Path | str, type: type[T] = Any, limit_bytes: int = JSON_BYTES) -> T:
    """Raises OSError, and Malformed for anything but JSON of this ``type``."""
    return parse_json(read_file(path, limit_bytes), type)


def parse_json(data: bytes, type: type[T] = Any, depth: int = JSON_DEPTH) -> T:
    """Raises Malformed for anything but JSON of this ``type``, and where it nests deeper than ``depth``."""
    if nests_deeper(data, depth):
        raise Malformed(f"nests more than {depth} deep")
    try:
        return msgspec.json.decode(data, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(str(exc)) from exc


def nests_deeper(data: bytes, depth: int) -> bool:
    """Whether JSON nests deeper than ``depth``, found out without recursion. Of what is no JSON it may say either."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    brackets = _STRINGS.sub(b"", data).translate(None, _NO_BRACKETS)
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0) > depth


def sha256_of(path: Path | str) -> str:
    """In pieces, however large the file is. Raises OSError."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


# Writing


@contextmanager
def replacing(path: Path | str, sync: bool = False, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` at the end of the block, whole or not at all.

    A link at ``path`` is replaced, not followed. ``sync``: it is on disk then. ``mode`` is subject to the umask.
    Raises OSError; where the block raises, ``path`` is as it was.
    """
    path = Path(path)
    temporary = _beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
        _lock(file.fileno())
        try:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    if sync:
        sync_folder(path.parent)


@contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder``, to be filled and put in its place; what is still there at the end is removed."""
    draft = _beside(folder)
    draft.mkdir(mode=0o700)
    descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """For as long as it is open. A file system may know no locks: nothing on it counts as abandoned."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _beside(path: Path) -> Path:
    """A new name for what will take the place of ``path``, once what killed runs have left of it is gone."""
    begin, end = f".{path.name[:100]}.", ".new"
    for other in path.parent.glob(f"{glob.escape(begin)}*{end}"):
        if _TOKEN.fullmatch(other.name.removeprefix(begin).removesuffix(end)) and _is_abandoned(other):
            remove_whole(other)
    return path.with_name(f"{begin}{secrets.token_hex(8)}{end}")


def _is_abandoned(path: Path) -> bool:
    """Whether this user's run began it, a while ago, and lives no more."""
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime >= YOUNG_S and is_free(path)
    return False


def is_free(path: Path) -> bool:
    """Whether it is this user's and nobody holds its lock. Another user's cannot be told, nor removed."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        finally:
            os.close(descriptor)
    return False


def remove_whole(path: Path) -> None:
    """A folder with all that is in it, or a file; a link by itself. What may not be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def write_output(path: Path | str, content: bytes) -> None:
    """What the user asked to have written at ``path``: whole or not at all where that is a file or nothing yet.

    A pipe or a device that the user names (``/dev/stdout``) is written to as it is. Raises OSError.
    """
    path = Path(path)
    try:
        special = not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode))
    except OSError:
        special = False
    if not special:
        with replacing(path) as file:
            file.write(content)
        return
    # O_NONBLOCK: a FIFO that nobody reads is an error and no reason to wait for ever.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "wb") as file:
        os.set_blocking(file.fileno(), True)
        file.write(content)


def sync_folder(folder: Path) -> None:
    """A new name is on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
