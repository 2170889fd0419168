"""Builds native helpers at first use and keeps them by a hash of their inputs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from . import toolchain
from .activity import doing, doing_once


def cached_build(name: str, key_parts: Sequence[bytes | str], build: Callable[[Path], None]) -> Path:
    """The file or folder ``name`` made by ``build(path)``, built only if these ``key_parts`` were never built before.

    ``key_parts`` is everything the result depends on: source text, flags, compiler version. ``build`` writes to the
    temporary path it is given, and the result appears in the cache by one rename, so an interrupted build leaves
    nothing that a later run could mistake for a whole one. Concurrent builds of the same thing wait for each other.
    """
    key = hashlib.sha256()
    for part in key_parts:
        data = part.encode() if isinstance(part, str) else part
        key.update(len(data).to_bytes(8, "little") + data)  # with its length, so that parts cannot run into each other
    stem, suffix = os.path.splitext(name)
    result = toolchain.cache_dir() / f"{stem}-{key.hexdigest()[:16]}{suffix}"
    if result.exists():
        return result
    with open(result.with_name(result.name + ".lock"), "w") as lock:
        with doing(f"waiting for another run, which makes {result.stem}"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if result.exists():
            return result
        temporary = result.with_name(f"tmp-{os.getpid()}-{result.name}")
        try:
            with doing_once(f"making {os.path.basename(stem)} for the cache"):
                build(temporary)
            os.replace(temporary, result)
        finally:
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)
    return result
