"""Explains errors of the environment: folders that cannot be written, full disks, undecodable names.

Any part of the program may meet these, as OSError or UnicodeError, anywhere. They are put into words in one place: what
happened, to which folder, and which variable names another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput, DeployError, LinkFailed

CACHE = "TVM_SHUFFLENET_CACHE"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
OWNER = "owner"  # the lock in a run's own folder
TEMPORARY = ("tvm-shufflenet", "trial-", "tmp")  # how the names of temporary files begin
LEAST_FREE_BYTES = 1 << 20  # with less, whatever failed is likely to have failed of that


class Unusable(BadInput):
    """A folder, disk or name of this machine that a run needs and cannot use."""


@dataclass(frozen=True)
class OwnFolder:
    """A folder that this program writes to, and the environment's ``variable`` that names another one."""

    what: str
    path: Path
    variable: str


def cache_path() -> Path:
    """The folder of what is built once, which need not exist."""
    from platformdirs import user_cache_path

    return Path(os.environ.get(CACHE) or user_cache_path("tvm-shufflenet"))


def own_folders() -> list[OwnFolder]:
    """None of them needs to exist. The most particular come first: one may lie in another."""
    from platformdirs import user_data_path

    kept = os.environ.get("TVM_SHUFFLENET_REPRODUCERS")
    found = [
        OwnFolder("the cache", cache_path(), CACHE),
        *([OwnFolder("the folder of reproducers", Path(kept), "TVM_SHUFFLENET_REPRODUCERS")] if kept else []),
        OwnFolder("the folder of tuning records", user_data_path("tvm-shufflenet"), "XDG_DATA_HOME"),
        OwnFolder("the folder of temporary files", Path(temporary_folder()), "TMPDIR"),
    ]
    return sorted(found, key=lambda own: -len(own.path.parts))


def temporary_folder() -> str:
    """Where temporary files go, or would go if they could: ``tempfile`` raises where it finds no place.

    A run's own folder (run_folder.py) lies in it.
    """
    try:
        folder = tempfile.gettempdir()
    except OSError:
        return os.environ.get("TMPDIR") or "/tmp"
    return os.path.dirname(folder) if os.path.exists(os.path.join(folder, OWNER)) else folder


def make_folder(path: Path, what: str, variable: str) -> Path:
    """The folder ``path``, made if it is not there, in which files can be made. Raises Unusable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise _unusable(what, path, exc, variable) from exc
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(what, path, OSError(errno.EACCES, os.strerror(errno.EACCES)), variable)
    return path


def require_space(folder: str | Path, needed: int) -> None:
    """Raises Unusable where there is less: for what cannot be told that the disk is full. LLVM ends the process."""
    own = next((each for each in own_folders() if _lies_in(Path(folder), each)), None)
    if shutil.disk_usage(folder).free < needed:
        own = own or OwnFolder("the folder", Path(folder), "TMPDIR")
        raise _full(own.what, own.path, own.variable)


def explain(error: BaseException) -> DeployError | None:
    """``error`` as one of ours, where the machine is to blame for it; None where it is not known to be."""
    if isinstance(error, Unusable):
        return error
    ours = isinstance(error, DeployError)
    for cause in _chain(error):
        if isinstance(cause, OSError) and (not ours or cause.errno in FULL or _in_own_folder(cause)):
            return _explain_os(cause)
        if isinstance(cause, UnicodeError) and not ours:
            return _explain_unicode(cause)
        if isinstance(cause, MemoryError) and not ours:
            return Unusable("there is not enough memory", "", "end other programs, or give this one more")
    # Compilers and servers say it in words of their own, or not at all.
    if not ours or isinstance(error, LinkFailed) or getattr(error, "exit_code", 0) not in (2, 5, 7):
        own = next(filter(_is_full, own_folders()), None)
        if own is not None:
            return _full(own.what, own.path, own.variable)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _explain_os(exc: OSError) -> DeployError:
    name = exc.filename2 if exc.errno in FULL and exc.filename2 else exc.filename
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if isinstance(exc, FileNotFoundError) and name is None and "temporary directory" in str(exc):
        return Unusable(
            "no temporary file can be written", "TMPDIR and /tmp are missing, read-only or full",
            "set TMPDIR to a folder that you can write",
        )  # fmt: skip
    own = _own_folder_of(name) if isinstance(name, str) else None
    if exc.errno in FULL:
        if own is None and not isinstance(name, str):
            own = next(filter(_is_full, own_folders()), None)
        if own is not None:
            return _full(own.what, own.path, own.variable)
        what = f"cannot write {name or 'what it prints'}: {exc.strerror}"
        return Unusable(what, "", "free space there, or name another place")
    if own is not None and (exc.errno in FORBIDDEN or isinstance(exc, (FileExistsError, NotADirectoryError))):
        return _unusable(own.what, own.path, exc, own.variable)
    if isinstance(name, str):
        return Unusable(f"cannot use {name}: {exc.strerror or exc}", "", _permission(exc))
    if isinstance(exc, FileNotFoundError):
        return Unusable("the current folder is gone", "it was removed or moved", "change to another folder")
    if exc.errno == errno.EMFILE:
        return Unusable("too many files are open", "a low limit", "ulimit -n 4096")
    return Unusable(str(exc), "", "run it again with --debug")


def _permission(exc: OSError) -> str:
    return "correct its permissions, or name another" if exc.errno in FORBIDDEN else "correct it, or name another"


def _explain_unicode(exc: UnicodeError) -> DeployError:
    text = getattr(exc, "object", "")
    shown = text if isinstance(text, str) and len(text) < 200 else ""
    named = f": {shown.encode(errors='backslashreplace').decode()}" if shown else ""
    return Unusable(f"a name or text has a character that {exc.encoding if shown else 'UTF-8'} has not{named}",
        "a file's name in another encoding, or a locale that is not UTF-8",
        "rename it in ASCII, or set LC_ALL=C.UTF-8",
    )  # fmt: skip


def _in_own_folder(exc: OSError) -> bool:
    """Whether a folder that nobody named is to blame: its variable is news to the user."""
    return exc.errno in FORBIDDEN and isinstance(exc.filename, str) and _own_folder_of(exc.filename) is not None


def _own_folder_of(name: str) -> OwnFolder | None:
    path = Path(os.path.abspath(name))
    return next((own for own in own_folders() if _lies_in(path, own)), None)


def _lies_in(path: Path, own: OwnFolder) -> bool:
    """Whether this program put ``path`` there: what a user names may lie there too, perhaps on another disk."""
    if path == own.path:
        return True
    if own.path not in path.parents or _device(path) != _device(own.path):
        return False
    return own.variable != "TMPDIR" or path.relative_to(own.path).parts[0].startswith(TEMPORARY)


def _device(path: Path) -> int | None:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return os.stat(folder).st_dev
    return None


def _is_full(own: OwnFolder) -> bool:
    path = own.path
    while not path.is_dir() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free < LEAST_FREE_BYTES
    except OSError:
        return False


def _full(what: str, path: Path, variable: str) -> Unusable:
    return Unusable(
        f"the disk of {what}, {path}, is full", "", f"free space there, or set {variable} to another folder"
    )


def _unusable(what: str, path: Path, exc: OSError, variable: str) -> Unusable:
    if exc.errno in FULL:
        return _full(what, path, variable)
    cause = "HOME names no folder that you can write" if variable != "TMPDIR" else ""
    return Unusable(
        f"{what}, {path}, cannot be used: {exc.strerror or exc}",
        cause if not os.environ.get(variable) else "",
        f"set {variable} to a folder that you can write",
    )
