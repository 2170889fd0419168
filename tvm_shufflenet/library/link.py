"""Links objects to a shared library, with zig or the user's compiler, and checks the result."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ..errors import LinkFailed, PackageInvalid
from ..hardware.targets import Target
from ..support.elf import HEADER_BYTES, machine_of
from ..support.processes import run_compiler
from ..support.toolchain import zig_program
from ..text import ending

CC_VARIABLE = "TVM_SHUFFLENET_CC"
# The oldest C library that the aarch64 runtime of TVM itself accepts.
GLIBC = "2.28"


def linker_command(target: Target) -> list[str]:
    """The compiler driver that links for ``target``, without files: ``TVM_SHUFFLENET_CC`` where set, else zig."""
    override = os.environ.get(CC_VARIABLE)
    if override:
        return [*shlex.split(override), "-shared", "-fPIC"]
    abi = "" if target.triple.endswith("android") else f".{GLIBC}"
    # Android's loader accepts a library that asks for nothing but libc symbols, whichever linker made it.
    system = "linux-gnu" if target.triple.endswith("gnu") else "linux-musl"
    # Unoptimised, zig first builds what checks for undefined behaviour. A profile needs the symbols.
    return [zig_program(), "cc", "-O2", "-target", f"{target.machine}-{system}{abi}", "-shared", "-fPIC"]


def trial_command(target: Target) -> list[str]:
    """As ``linker_command``, but for one kernel that lives for one trial: zig's linker alone, 10 ms instead of 150.

    Without symbols and debug information, which are more than half of it: TVM's server takes long for each byte.
    """
    if os.environ.get(CC_VARIABLE):
        return linker_command(target)
    return [zig_program(), "ld.lld", "-shared", "--strip-all"]


def link(objects: list[str], output: Path, command: list[str], machine: str) -> None:
    """Link ``objects`` into ``output`` by ``command``. Raises LinkFailed, also for a library of the wrong machine."""
    output = Path(output)
    temporary = output.with_name(output.name + ".linking")
    full, next_step = [*command, "-o", str(temporary), *objects], f"unset or correct {CC_VARIABLE}"
    try:
        run_compiler(full, "linking failed: ", f"{full[0]} cannot link for {machine}", next_step, shown=ending)
        try:
            found = elf_machine(temporary)
        except (PackageInvalid, OSError) as exc:
            raise LinkFailed("the linker made no library", f"{full[0]} is no linker", next_step) from exc
        if found != machine:
            raise LinkFailed(f"the linker made a {found} library", f"the target is {machine}", next_step)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def elf_machine(path: Path) -> str:
    """Machine name in the ELF header of ``path``. Raises PackageInvalid where it is no 64-bit ELF file."""
    with open(path, "rb") as library:
        return elf_machine_of(library.read(HEADER_BYTES), path)


def elf_machine_of(header: bytes, path: Path) -> str:
    """As ``elf_machine``, of a file that begins with ``header``."""
    machine = machine_of(header)
    if machine is None:
        raise PackageInvalid(
            f"{path} is not a 64-bit ELF library", "it is damaged or something else", "compile it again"
        )
    return machine
