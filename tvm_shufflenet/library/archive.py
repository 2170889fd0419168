"""A package as one file: a tar of its files, compressed by zstd. Reading trusts nothing: it looks at the whole archive
first, and whoever unpacks it has seen every name and every hash before a byte is written."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import PackageInvalid

SUFFIX = ".tar.zst"
LEVEL = 10  # weights barely compress; higher levels cost seconds and save a percent
COMPRESSED_CHUNK = 4096  # however dense, it expands to 128 MB at most
COPY_CHUNK = 1 << 20
LARGEST_BYTES = 8 << 30
HEAD_BYTES, MANIFEST_BYTES = 64, 16 << 20


@dataclass(frozen=True)
class Member:
    """A file of an archive: its SHA-256, and how it begins."""

    sha256: str
    head: bytes


def is_archive(path: Path) -> bool:
    """By its name: ``compile`` writes an archive where it is told such a name."""
    return path.name.endswith(SUFFIX)


def safe_name(name: str) -> bool:
    """Whether a file of this name is in the folder that it is put into, and written in the usual way."""
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and str(path) == name
    return plain and not path.is_absolute() and path.parts not in ((), (".",)) and ".." not in path.parts


def survey(archive: Path, wanted: str) -> tuple[bytes | None, dict[str, Member]]:
    """The content of the file ``wanted``, and all files by name. Nothing is written.

    Raises PackageInvalid for an archive that is cut short or damaged, or holds anything but files of safe names.
    """
    content, members, total = None, {}, 0
    with _reading(archive) as tar:
        for name, member in _files(archive, tar):
            if name in members:
                raise _refused(archive, f"holds {name} twice")
            total += member.size
            if total > LARGEST_BYTES or (name == wanted and member.size > MANIFEST_BYTES):
                raise _refused(archive, f"unpacks to more than {total >> 20} MB")
            digest, head = hashlib.sha256(), b""
            kept = [] if name == wanted else None
            for chunk in _chunks(tar.extractfile(member)):
                digest.update(chunk)
                head = head or chunk[:HEAD_BYTES]
                if kept is not None:
                    kept.append(chunk)
            content = content if kept is None else b"".join(kept)
            members[name] = Member(digest.hexdigest(), head)
    return content, members


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive that ``survey`` has found in order to an empty ``folder``."""
    with _reading(archive) as tar:
        for name, member in _files(archive, tar):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                shutil.copyfileobj(tar.extractfile(member), file, COPY_CHUNK)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def pack(folder: Path, names: Iterable[str], archive: Path) -> None:
    """Write the files ``names`` of ``folder``, in this order, to ``archive``: the same files, the same bytes."""
    import zstandard

    handle, temporary = tempfile.mkstemp(prefix=f".{archive.name}-", dir=archive.parent)
    try:
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with (
            open(handle, "wb") as file,
            compressor.stream_writer(file, closefd=False) as compressed,
            tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in names:
                _add(tar, folder / name, name)
        os.chmod(temporary, 0o644)
        os.replace(temporary, archive)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Without owner and times, which say nothing of a package."""
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
    with open(path, "rb") as file:
        tar.addfile(member, file)


def _files(archive: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files by their names; tar may write ``./`` before a name, and folders beside files."""
    for member in tar:
        name = member.name.removeprefix("./")
        if member.isdir() and (name in ("", ".") or safe_name(name)):
            continue
        if not member.isreg() or member.issparse():
            raise _refused(archive, f"holds {member.name!r}, which is a link or a device, no file")
        if not safe_name(name):
            raise _refused(archive, f"holds {member.name!r}, which leads out of the folder")
        yield name, member


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(COPY_CHUNK):
        yield chunk


@contextmanager
def _reading(archive: Path) -> Iterator[tarfile.TarFile]:
    import zstandard

    try:
        with open(archive, "rb") as file:
            content = _Decompressed(file)
            with tarfile.open(fileobj=content, mode="r|") as tar:
                yield tar
            content.check_end()
    except (tarfile.TarError, zstandard.ZstdError, EOFError, OSError, ValueError) as exc:
        raise _refused(
            archive, f"cannot be read as a package: {exc}", "it is damaged, cut short or no package"
        ) from exc


class _Decompressed:
    """The content of a file that is one zstd frame. Raises ValueError where that is cut short."""

    def __init__(self, file: IO[bytes]):
        import zstandard

        self._file, self._pending = file, bytearray()
        self._decoder = zstandard.ZstdDecompressor().decompressobj()

    def read(self, size: int) -> bytes:
        while len(self._pending) < size and not self._decoder.eof:
            chunk = self._file.read(COMPRESSED_CHUNK)
            if not chunk:
                raise ValueError("it ends in the middle")
            self._pending += self._decoder.decompress(chunk)
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    def check_end(self) -> None:
        """Behind a tar's last file are zeros. tarfile takes a damaged header for the end."""
        while rest := self.read(COPY_CHUNK):
            if rest.strip(b"\0"):
                raise ValueError("something follows the end of the tar")
        if self._decoder.unused_data or self._file.read(1):
            raise ValueError("something follows its end")


def _refused(archive: Path, what: str, cause: str = "it is damaged, or was made to do harm") -> PackageInvalid:
    return PackageInvalid(f"{archive} {what}", cause, "copy or compile it again")
