"""What a package contains, and under which licence each part of it is passed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

WEIGHTS = "LicenseRef-Model"


class Licence(msgspec.Struct, frozen=True):
    """A part of a package: its SPDX ``licence``, its ``origin``, and the ``files`` that it is in."""

    part: str
    licence: str
    origin: str
    files: tuple[str, ...]


def licences_of(names: Iterable[str], linker: Sequence[str]) -> tuple[Licence, ...]:
    """The licences of a package's files, by what each kind of file is made of."""
    names = sorted(names)
    linked = [name for name in names if name.endswith((".so", "_bench"))]
    compiled = [name for name in names if name in linked or name.endswith(".a")]
    static = [name for name in names if name.endswith("_bench")]
    data = [name for name in names if name.endswith(".npy")]
    written = [name for name in names if name not in data and not name.endswith((".so", ".a"))]
    by_zig = any(word.endswith("zig") for word in linker[:1])
    parts = [
        ("kernels", "Apache-2.0", "this project's operators and schedules, compiled by Apache TVM", compiled),
        ("interface and driver", "Apache-2.0", "this project", written),
        ("network and weights", WEIGHTS, "the model's: whoever trained it says under which terms", compiled + data),
        ("compiler runtime", "MIT", "zig's compiler-rt", linked if by_zig else []),
        ("C library", "MIT", "musl, as zig links it", static),
    ]
    return tuple(Licence(part, licence, origin, tuple(files)) for part, licence, origin, files in parts if files)
