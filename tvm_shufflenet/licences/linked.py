"""What zig links into a program or library by itself, with versions and licences.

Without a map of the C library's ABI there is nothing else: a library of TVM's takes compiler-rt, a static program musl
too. zig brings both as sources, with their versions and licences.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..support.files import read_file

MUSL_VERSION = re.compile(r'VERSION "([^"]+)"')
LLVM_VERSION = re.compile(r"_LIBCPP_VERSION (\d\d)(\d\d)(\d\d)")
TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Linked:
    """Versions, None where zig does not say; ``llvm`` is that of the LLVM whose compiler-rt zig's is ported from.

    ``texts`` are the licences of zig, musl and LLVM, by those names, as far as they are there.
    """

    zig: str | None
    musl: str | None
    llvm: str | None
    texts: dict[str, bytes]


def is_zig(linker: Sequence[str]) -> bool:
    return any(Path(word).name == "zig" for word in linker[:1])


def without_folders(words: Sequence[str]) -> tuple[str, ...]:
    """A command as it is anywhere: programs and files by their names alone."""
    return tuple(re.sub(r"(^-[A-Za-z](?=/)|^|[=,:])(?:[^=,:]*/)([^/=,:]*)", r"\1\2", word) for word in words)


@functools.cache
def linked_by(zig: str) -> Linked:
    """What the zig at this path has in its folder ``lib``."""
    program = Path(zig).resolve()
    beside = program.parent / "lib", program.parent.parent / "lib" / "zig"
    lib = next((each for each in beside if each.is_dir()), None)
    musl = _found(lib, "libc/musl/src/internal/version.h", MUSL_VERSION)
    llvm = _found(lib, "libcxx/include/__config", LLVM_VERSION)
    texts = {
        "zig": (program.parent / "LICENSE", lib and lib.parent / "LICENSE"),
        "musl": (lib and lib / "libc/musl/COPYRIGHT",),
        "llvm": (lib and lib / "libunwind/LICENSE.TXT",),
    }
    texts = {name: text for name, paths in texts.items() if (text := _first(paths)) is not None}
    return Linked(_version(zig), musl and musl[0], llvm and ".".join(str(int(each)) for each in llvm), texts)


def _version(zig: str) -> str | None:
    try:
        done = subprocess.run([zig, "version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _found(lib: Path | None, name: str, pattern: re.Pattern) -> tuple[str, ...] | None:
    text = _first((lib and lib / name,))
    match = pattern.search(text.decode(errors="replace")) if text else None
    return match.groups() if match else None


def _first(paths: Sequence[Path | None]) -> bytes | None:
    for path in paths:
        try:
            if path is not None:
                return read_file(path, TEXT_BYTES)
        except OSError:
            continue
    return None
