"""A persistent cache of results. Losing entries only costs time, so its failures are never errors."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

LIMIT_BYTES = 64 << 20
AT_ONCE = 500  # keys that are asked for in one query: older SQLite takes 999


class BlockCache:
    """Key -> value, both bytes, in a SQLite file that several processes may share; threads may share an object."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._database = None
        try:
            if path.exists() and path.stat().st_size > LIMIT_BYTES:
                path.unlink()
            self._database = sqlite3.connect(path, timeout=10, check_same_thread=False)
            self._database.execute("pragma synchronous = off")
            self._database.execute("create table if not exists result (key blob primary key, value blob) without rowid")
        except (sqlite3.Error, OSError):
            self._database = None

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those keys that have one."""
        if self._database is None:
            return {}
        found: dict[bytes, bytes] = {}
        with contextlib.suppress(sqlite3.Error), self._lock:
            for first in range(0, len(keys), AT_ONCE):
                some = keys[first : first + AT_ONCE]
                query = f"select key, value from result where key in ({','.join('?' * len(some))})"
                found.update(self._database.execute(query, some))
        return found

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        if self._database is None:
            return
        with contextlib.suppress(sqlite3.Error), self._lock, self._database:  # one transaction
            self._database.executemany("insert or ignore into result values (?, ?)", list(items))
