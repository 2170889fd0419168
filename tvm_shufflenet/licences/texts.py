"""The licence of each part of a package, and the licence texts that must accompany it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ..support.files import read_file
from .linked import Linked, is_zig, linked_by

WEIGHTS = "LicenseRef-Model"
FOREIGN = "LicenseRef-Compiler"
FOLDER = "licences"
TEXT_BYTES = 1 << 20


class Licence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a package: its SPDX ``licence``, its ``origin``, the ``files`` that it is in, and those among them that
    are its ``texts``: licence and notices. ``version`` is that of what was linked in."""

    part: str
    licence: str
    origin: str
    files: tuple[str, ...]
    texts: tuple[str, ...] = ()
    version: str | None = None


def licences_of(names: Iterable[str], linker: Sequence[str], texts: Iterable[str] = ()) -> tuple[Licence, ...]:
    """The licences of a package's files, by what each kind of file is made of; ``texts`` are those of licences."""
    names, texts = sorted(names), sorted(texts)
    linked = [name for name in names if name.endswith((".so", "_bench"))]
    compiled = [name for name in names if name in linked or name.endswith(".a")]
    static = [name for name in names if name.endswith("_bench")]
    data = [name for name in names if name.endswith(".npy")]
    written = [name for name in names if name not in data and not name.endswith((".so", ".a"))]
    by_zig = is_zig(linker)
    found = linked_by(linker[0]) if by_zig else Linked(None, None, None, {})
    runtime = f"zig's compiler-rt, ported from that of LLVM{' ' + found.llvm if found.llvm else ''} and from musl"
    foreign = "the compiler's own, whose makers say under which terms"
    parts = [
        ("kernels", "Apache-2.0", "this project's operators and schedules, compiled by Apache TVM", compiled,
         ("apache-tvm", "tvm-shufflenet"), None),
        ("interface and driver", "Apache-2.0", "this project", written, ("tvm-shufflenet",), None),
        ("network and weights", WEIGHTS, "the model's: whoever trained it says under which terms", compiled + data,
         (), None),
        ("compiler runtime", "MIT", runtime, linked if by_zig else [], ("zig", "llvm", "musl"), found.zig),
        ("C library", "MIT", "musl, as zig links it", static if by_zig else [], ("musl", "zig"), found.musl),
        ("libraries of another compiler", FOREIGN, foreign, [] if by_zig else linked, (), None),
    ]  # fmt: skip
    return tuple(
        Licence(part, licence, origin, tuple(dict.fromkeys([*files, *own])), tuple(own), version)
        for part, licence, origin, files, owners, version in parts
        if files
        for own in [[text for text in texts if text.split("/")[-1].startswith(tuple(f"{each}-" for each in owners))]]
    )


def texts_for(names: Iterable[str], linker: Sequence[str]) -> dict[str, bytes]:
    """Licence and notice texts of all that is in a package's files, by their names in the package."""
    found = _project() | _tvm()
    if is_zig(linker):
        of = linked_by(linker[0]).texts
        if any(name.endswith((".so", "_bench")) for name in names):
            found |= {f"{name}-{'COPYRIGHT' if name == 'musl' else 'LICENSE'}.txt": text for name, text in of.items()}
    return {f"{FOLDER}/{name}": text for name, text in sorted(found.items())}


def texts_for_server(zig: str | None) -> dict[str, bytes]:
    """As ``texts_for``, for a folder with the device server and TVM's runtime; ``zig`` is what linked it, None where
    another compiler did."""
    found = _project() | _tvm() | _ffi()
    if zig is not None:
        of = linked_by(zig).texts
        found |= {f"{name}-LICENSE.txt": of[name] for name in ("zig", "llvm") if name in of}
    return {f"{FOLDER}/{name}": text for name, text in sorted(found.items())}


def write_texts(folder: Path, texts: Mapping[str, bytes]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)


def _project() -> dict[str, bytes]:
    text = _of_distribution("tvm-shufflenet", "LICENSE")
    if text is None and (beside := Path(__file__).parents[2] / "LICENSE").is_file():
        text = beside.read_bytes()
    return {} if text is None else {"tvm-shufflenet-LICENSE.txt": text}


def _tvm() -> dict[str, bytes]:
    """TVM's own, and those of what its compiler writes into kernels: conversions of half floats."""
    spec = importlib.util.find_spec("tvm")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    found = {}
    for name, path in (
        ("apache-tvm-LICENSE.txt", "LICENSE"),
        ("apache-tvm-NOTICE.txt", "NOTICE"),
        ("apache-tvm-builtin_fp16-LICENSE.txt", "licenses/LICENSE.builtin_fp16.txt"),
    ):
        if (folder / path).is_file():
            found[name] = read_file(folder / path, TEXT_BYTES)
        elif (text := _of_distribution("apache-tvm", Path(path).name)) is not None:
            found[name] = text
    return found


def _ffi() -> dict[str, bytes]:
    """TVM's FFI, and libbacktrace, which is in its library."""
    spec = importlib.util.find_spec("tvm_ffi")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    backtrace = folder / "3rdparty/libbacktrace/LICENSE"
    found = {f"apache-tvm-ffi-{file}.txt": _of_distribution("apache-tvm-ffi", file) for file in ("LICENSE", "NOTICE")}
    found["libbacktrace-LICENSE.txt"] = read_file(backtrace, TEXT_BYTES) if backtrace.is_file() else None
    return {name: text for name, text in found.items() if text is not None}


def _of_distribution(name: str, file: str) -> bytes | None:
    try:
        text = importlib.metadata.distribution(name).read_text(f"licenses/{file}")
    except importlib.metadata.PackageNotFoundError:
        return None
    return None if text is None else text.encode()
