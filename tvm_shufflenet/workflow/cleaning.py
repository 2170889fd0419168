"""Finds what this program left on this machine and can be removed: caches and remains of killed runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..support.files import remove_whole
from ..support.run_folder import PREFIX, abandoned
from ..support.surroundings import OWNER, cache_path, temporary_folder
from ..support.toolchain import IN_USE

# How the names in the cache begin, and what they are; what begins otherwise was made by another version.
KINDS = {
    "device-server": "device servers",
    "tvm-runtime": "TVM's runtime for devices",
    "zig": "C libraries that zig built",
    "peers": "environments of other engines",
    "tmp-": "builds that were cut short",
    "verified": "what is known of schedules",
    "references": "what is known of operators",
    "timelines": "what is known of machine code",
    "complexity": "multiply-adds of the zoo",
}
OTHER = "helpers of the emulated device"
QUIET_S = 3600.0  # a folder without an owner's lock, of a program that imports this one, is left alone for so long


@dataclass(frozen=True)
class Remnant:
    """Files or folders of one kind; ``bytes`` is what they take on the disk."""

    what: str
    paths: tuple[Path, ...]
    bytes: int
    kept: str = ""  # why it cannot be removed now


def remnants() -> list[Remnant]:
    """Everything that ``remove`` would remove, and what it has to leave since another run uses it."""
    kept = "another run uses the cache" if _in_use() else ""
    by_kind: dict[str, list[Path]] = {}
    for path in _listed(cache_path()):
        if path.name != IN_USE:
            kind = next((kind for name, kind in KINDS.items() if path.name.startswith(name)), OTHER)
            by_kind.setdefault(kind, []).append(path)
    found = [Remnant(kind, tuple(paths), sum(map(_size, paths)), kept) for kind, paths in sorted(by_kind.items())]
    left = [*abandoned(), *_ownerless()]
    if left:
        found.append(Remnant("left by runs that were killed", tuple(left), sum(map(_size, left))))
    return found


def remove(remnant: Remnant) -> Remnant:
    """Remove it; returns what is left of it: nothing, as a rule."""
    if remnant.kept:
        return remnant
    for path in remnant.paths:
        remove_whole(path)
    left = tuple(path for path in remnant.paths if path.is_symlink() or path.exists())
    return Remnant(remnant.what, left, sum(map(_size, left)), "it may not be removed" if left else "")


def _in_use() -> bool:
    """Whether a process holds the cache's lock, as each does that has looked into it."""
    try:
        with open(cache_path() / IN_USE) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _ownerless() -> list[Path]:
    """Folders in which nothing has changed for a while and no process has a file open."""
    busy = _open_paths()
    found = []
    for path in _listed(Path(temporary_folder())):
        if not path.name.startswith(PREFIX) or path.is_symlink() or (path / OWNER).exists():
            continue
        with contextlib.suppress(OSError):
            stat = path.stat()
            quiet = stat.st_uid == os.geteuid() and time.time() - stat.st_mtime > QUIET_S
            if quiet and not any(f"{each}/".startswith(f"{path}/") for each in busy):
                found.append(path)
    return found


def _open_paths() -> set[str]:
    """What processes have as an open file, current folder or mapped library."""
    paths: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        for link in (process / "cwd", *_listed(process / "fd")):
            with contextlib.suppress(OSError):
                paths.add(os.readlink(link))
        with contextlib.suppress(OSError):
            paths.update(
                line.split(maxsplit=5)[5] for line in (process / "maps").read_text().splitlines() if "/" in line
            )
    return paths


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    total = 0
    pending = [path]
    while pending:
        path = pending.pop()
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
            if path.is_dir() and not path.is_symlink():
                pending += path.iterdir()
    return total
