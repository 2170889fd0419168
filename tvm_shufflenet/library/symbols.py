"""The machine code of a library by operator, from its ELF symbols.

TVM gives an operator ``f`` two functions: ``__tvm_ffi_f``, which checks arguments, and ``f_compute_``, which computes.
What a parallel loop runs is a third one. It has no symbol, but the compiler writes it right behind the function that
starts the loop; so a function reaches as far as the next symbol.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import PackageInvalid
from ..support import elf

CHECKS, COMPUTES = "__tvm_ffi_", "_compute_"


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
    with _reading(library):
        content = Path(library).read_bytes()
        sections, functions = elf.sections(content), elf.functions(content)
    names = set(operators)
    owned = {function.name: _owner(function.name, names) for function in functions}
    missing = sorted(names - {owner for owner in owned.values() if owner})
    if missing:
        raise PackageInvalid(
            f"{library} has no {'functions for ' + missing[0] if functions else 'symbols'}",
            "it was stripped, or linked by a linker that leaves them out",
            "compile it again, and copy it as it is",
        )
    held = next(function.section for function in functions if owned[function.name])
    with _reading(library):
        section = sections[held]
    # Of several symbols at one address (every exported function is in two tables) one that names an operator decides.
    owners = {}
    for function in functions:
        if function.section == held:
            owners[function.address] = owners.get(function.address) or owned[function.name]
    starts = sorted(owners)
    code = content[section.offset : section.offset + section.size]
    return LibraryCode(section.address, code, tuple(starts), tuple(owners[start] for start in starts))


def undefined_symbols(library: Path) -> list[str]:
    """What ``library`` expects of others, sorted. Raises PackageInvalid for what is no library."""
    with _reading(library):
        return sorted(elf.undefined(Path(library).read_bytes()))


@contextmanager
def _reading(library: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, *elf.DAMAGED) as exc:
        raise PackageInvalid(f"{library} cannot be read: {exc}", "it is damaged", "compile it again") from exc


def _owner(symbol: str, operators: set[str]) -> str | None:
    name = symbol.removeprefix(CHECKS) if symbol.startswith(CHECKS) else symbol.removesuffix(COMPUTES)
    return name if name != symbol and name in operators else None
