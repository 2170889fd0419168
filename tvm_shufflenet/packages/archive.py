"""A package as one file: a tar of its files, compressed by zstd. Reading trusts nothing: it looks at the whole archive
first, and whoever unpacks it has seen every name and every hash before a byte is written. All that is decompressed
counts towards the limit, headers too, and nothing is read whole because a header says how long it is."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import PackageInvalid
from ..support.files import open_file, replacing
from ..text import shortened

SUFFIX = ".tar.zst"
LEVEL = 10  # weights barely compress; higher levels cost seconds and save a percent
COMPRESSED_CHUNK = 4096  # however dense, it expands to 128 MB at most
COPY_CHUNK = 1 << 20
LARGEST_BYTES = 8 << 30
WINDOW_BYTES = 128 << 20  # what a decoder may keep; compress asks for 4 MB, zstd's own limit is the same
HEAD_BYTES, MANIFEST_BYTES = 64, 16 << 20
# Headers of every kind, folders' too, and what one of them may hold beside its 512 bytes: a long name.
MOST_HEADERS, EXTENDED_BYTES = 20_000, 64 << 10
EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
NAME_CHARACTERS = 100  # of a name in a message


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


def unpack(archive: Path, folder: Path, members: Mapping[str, Member]) -> None:
    """Write the files of an archive, which ``survey`` has found to be these ``members``, to an empty ``folder``.

    Raises PackageInvalid where they are others by now.
    """
    with _reading(archive) as tar:
        for name, member in _files(archive, tar):
            path, digest = folder / name, hashlib.sha256()
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                for chunk in _chunks(tar.extractfile(member)):
                    digest.update(chunk)
                    file.write(chunk)
            if name not in members or members[name].sha256 != digest.hexdigest():
                raise _refused(archive, "changed while it was read", "another program is writing it")
            path.chmod(0o755 if member.mode & 0o100 else 0o644)


def pack(folder: Path, names: Iterable[str], archive: Path) -> None:
    """Write the files ``names`` of ``folder``, in this order, to ``archive``: the same files, the same bytes."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    with (
        replacing(archive, mode=0o644) as file,
        compressor.stream_writer(file, closefd=False) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            _add(tar, folder / name, name)


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
            raise _refused(archive, f"holds {_shown(member)}, which is a link or a device, no file")
        if not safe_name(name):
            raise _refused(archive, f"holds {_shown(member)}, which leads out of the folder")
        yield name, member


def _shown(member: tarfile.TarInfo) -> str:
    return repr(shortened(member.name, NAME_CHARACTERS))


class _Header(tarfile.TarInfo):
    """Looked at before tarfile acts on it: it reads extended headers whole, and each of them by recursion."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        tar.headers = getattr(tar, "headers", 0) + 1
        if tar.headers > MOST_HEADERS:
            raise tarfile.ReadError(f"it has more than {MOST_HEADERS} headers")
        if self.size < 0 or (self.type in EXTENDED and self.size > EXTENDED_BYTES):
            raise tarfile.ReadError("it has a header longer than any name")
        if self.type == tarfile.GNUTYPE_SPARSE:  # its headers go on as long as they like
            raise tarfile.ReadError("it holds a sparse file, no regular one")
        return super()._proc_member(tar)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(COPY_CHUNK):
        yield chunk


@contextmanager
def _reading(archive: Path) -> Iterator[tarfile.TarFile]:
    import zstandard

    try:
        with open_file(archive) as file:
            content = _Decompressed(file)
            with tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as tar:
                yield tar
            content.check_end()
    except (tarfile.TarError, zstandard.ZstdError, EOFError, OSError, ValueError, OverflowError, RecursionError) as exc:
        raise _refused(
            archive, f"cannot be read as a package: {exc}", "it is damaged, cut short or no package"
        ) from exc


class _Decompressed:
    """The content of a file that is one zstd frame. Raises ValueError where that is cut short."""

    def __init__(self, file: IO[bytes]):
        import zstandard

        self._file, self._pending, self._given_bytes = file, bytearray(), 0
        self._decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    def read(self, size: int) -> bytes:
        while len(self._pending) < size and not self._decoder.eof:
            chunk = self._file.read(COMPRESSED_CHUNK)
            if not chunk:
                raise ValueError("it ends in the middle")
            self._pending += self._decoder.decompress(chunk)
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        self._given_bytes += len(taken)
        if self._given_bytes > LARGEST_BYTES:
            raise ValueError(f"it unpacks to more than {LARGEST_BYTES >> 20} MB")
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
