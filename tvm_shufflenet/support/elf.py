"""Reads ELF files: machine, sections, functions and undefined symbols.

Everything is read from the file's bytes where its tables say, and nothing outside of them: a damaged file is an error
at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x7fELF"
HEADER_BYTES = 20  # as much as names the machine
CLASS_64, LITTLE_ENDIAN = 2, 1  # e_ident[EI_CLASS], e_ident[EI_DATA]
MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
SYMBOL_TABLE, DYNAMIC_SYMBOLS, FUNCTION = 2, 11, 2  # Elf64_Shdr.sh_type; the low half of Elf64_Sym.st_info
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
# What reading the tables of a damaged file raises.
DAMAGED = (struct.error, IndexError, ValueError, OverflowError)


class Section(NamedTuple):
    """The fields of an Elf64_Shdr."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """``section`` is zero where another file has to define it."""

    name: str
    is_function: bool
    section: int
    address: int


def is_elf(header: bytes) -> bool:
    return header.startswith(MAGIC)


def machine_of(header: bytes) -> str | None:
    """The machine's name by the first ``HEADER_BYTES`` of a file, None where it is no 64-bit ELF file."""
    if len(header) < HEADER_BYTES or not is_elf(header) or header[4] != CLASS_64:
        return None
    code = int.from_bytes(header[18:20], "little" if header[5] == LITTLE_ENDIAN else "big")
    return MACHINES.get(code, f"machine {code}")


def sections(content: bytes) -> list[Section]:
    """Raises ``DAMAGED``, as do all that follow."""
    (first,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    return [Section._make(_SECTION.unpack_from(content, first + index * size)) for index in range(count)]


def functions(content: bytes) -> list[Symbol]:
    """The functions in the symbol table, which ``strip`` removes."""
    return [symbol for symbol in _symbols(content, SYMBOL_TABLE) if symbol.is_function and symbol.section]


def undefined(content: bytes) -> set[str]:
    """The names of what a loader has to find elsewhere."""
    return {symbol.name for symbol in _symbols(content, DYNAMIC_SYMBOLS) if symbol.name and not symbol.section}


def _symbols(content: bytes, kind: int) -> Iterator[Symbol]:
    tables = sections(content)
    for table in tables:
        if table.kind != kind:
            continue
        names = tables[table.link].offset
        for start in range(table.offset, table.offset + table.size, _SYMBOL.size):
            name, info, _, section, address, _ = _SYMBOL.unpack_from(content, start)
            yield Symbol(_string(content, names + name), info & 15 == FUNCTION, section, address)


def _string(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()
