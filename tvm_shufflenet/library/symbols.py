"""The machine code of a library, and which operator each address of it belongs to, read from its ELF tables.

TVM gives an operator ``f`` two functions: ``__tvm_ffi_f``, which checks arguments, and ``f_compute_``, which computes.
What a parallel loop runs is a third one. It has no symbol, but the compiler writes it right behind the function that
starts the loop; so a function reaches as far as the next symbol.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackageInvalid

CHECKS, COMPUTES = "__tvm_ffi_", "_compute_"
SYMBOL_TABLE, FUNCTION = 2, 2  # in Elf64_Shdr.sh_type and in the low half of Elf64_Sym.st_info
DYNAMIC_SYMBOLS = 11
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class LibraryCode:
    """The code that operators are in: its bytes, where it begins in the library, and the functions in it.

    ``starts`` are sorted; ``owners`` are the operators of the functions that start there, None for what is no
    operator's.
    """

    address: int
    content: bytes
    starts: tuple[int, ...]
    owners: tuple[str | None, ...]

    def owner(self, address: int) -> str | None:
        """The operator that the code at ``address``, as counted in the library, belongs to."""
        if not self.address <= address < self.address + len(self.content):
            return None
        index = bisect_right(self.starts, address) - 1
        return self.owners[index] if index >= 0 else None


def read_code(library: Path, operators: Iterable[str]) -> LibraryCode:
    """Raises PackageInvalid for a library without symbols, or without one of ``operators``."""
    try:
        content = Path(library).read_bytes()
        sections = _sections(content)
        functions = _functions(content, sections)
    except (OSError, struct.error, IndexError, ValueError) as exc:
        raise PackageInvalid(f"{library} cannot be read: {exc}", "it is damaged", "compile it again") from exc
    names = set(operators)
    owned = {name: _owner(name, names) for name, _, _ in functions}
    missing = sorted(names - {owner for owner in owned.values() if owner})
    if missing:
        raise PackageInvalid(
            f"{library} has no {'functions for ' + missing[0] if functions else 'symbols'}",
            "it was stripped, or linked by a linker that leaves them out",
            "compile it again, and copy it as it is",
        )
    _, section, _ = next(function for function in functions if owned[function[0]])
    _, _, _, address, offset, size, *_ = sections[section]
    # Of several symbols at one address (every exported function is in two tables) one that names an operator decides.
    owners = {}
    for name, where, start in functions:
        if where == section:
            owners[start] = owners.get(start) or owned[name]
    starts = sorted(owners)
    code = content[offset : offset + size]
    return LibraryCode(address, code, tuple(starts), tuple(owners[start] for start in starts))


def undefined_symbols(library: Path) -> list[str]:
    """What ``library`` expects of others, sorted. Raises PackageInvalid for what is no library."""
    try:
        content = Path(library).read_bytes()
        return sorted(_undefined(content, _sections(content)))
    except (OSError, struct.error, IndexError, ValueError) as exc:
        raise PackageInvalid(f"{library} cannot be read: {exc}", "it is damaged", "compile it again") from exc


def _undefined(content: bytes, sections: list[tuple[int, ...]]) -> set[str]:
    found = set()
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind == DYNAMIC_SYMBOLS:
            for place in range(offset + SYMBOL.size, offset + size, SYMBOL.size):  # the first is none
                name, _, _, section, _, _ = SYMBOL.unpack_from(content, place)
                if section == 0:
                    found.add(_string(content, sections[link][4] + name))
    return found


def _string(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()


def _owner(symbol: str, operators: set[str]) -> str | None:
    name = symbol.removeprefix(CHECKS) if symbol.startswith(CHECKS) else symbol.removesuffix(COMPUTES)
    return name if name != symbol and name in operators else None


def _sections(content: bytes) -> list[tuple[int, ...]]:
    """The fields of every Elf64_Shdr."""
    (first,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    return [SECTION.unpack_from(content, first + index * size) for index in range(count)]


def _functions(content: bytes, sections: list[tuple[int, ...]]) -> list[tuple[str, int, int]]:
    """Name, section and address of every function in the symbol table, which ``strip`` removes."""
    found = []
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind != SYMBOL_TABLE:
            continue
        names = sections[link][4]
        for place in range(offset, offset + size, SYMBOL.size):
            name, info, _, section, address, _ = SYMBOL.unpack_from(content, place)
            if info & 15 == FUNCTION and section:
                found.append((_string(content, names + name), section, address))
    return found
