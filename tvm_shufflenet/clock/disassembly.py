"""The text of AArch64 instruction words, as llvm-mca reads it."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
import subprocess
from collections.abc import Collection, Iterable

from ..errors import DeviceFailed
from ..support import toolchain
from ..text import ending

LONGEST_TEXT = 256

# LLVM's parser tries each operand as everything that it is in any instruction of that name, SVE's and SME's included:
# some aliases and forms take ten times as long as another of the same instruction.
QUICK_FORMS = [
    (re.compile(rf"\A{pattern}\Z"), form)
    for pattern, form in (
        # fmla v0.4s, v1.4s, v2.s[3] -> fmla.4s v0, v1, v2[3]
        (
            r"(fml[as]|fmul|fadd|fsub|fmax(?:nm)?|fmin(?:nm)?)\t"
            r"(v\d+)\.(\w+), (v\d+)\.\3, (v\d+)\.(?:\3|[hsd](\[\d+\]))",
            r"\1.\3\t\2, \4, \5\6",
        ),
        (r"mov\t(v\d+)\.(\w+), (v\d+)\.\w+", r"orr.\2\t\1, \3, \3"),
        (r"mov\t([wx]\d+), #([01])", r"movz\t\1, #\2"),
        (r"mov\t(v\d+\.[bhsd]\[\d+\], .*)", r"ins\t\1"),
        (r"mov\t([wx])(\d+), \1(\d+)", r"orr\t\1\2, \1zr, \1\3"),
        (r"mov\t(sp|x\d+), (sp|x\d+)", r"add\t\1, \2, #0"),
    )
]


def texts_of(words: Collection[int], llvm_mc: str, version: str) -> dict[int, str | None]:
    """The text of instruction words; None for what is no instruction. Raises DeviceFailed where llvm-mc fails.

    By LLVM's library where it can be loaded, since starting llvm-mc takes longer than what a trial has to ask.
    ``version`` is what LLVM's tools say of theirs.
    """
    library = _library(version)
    texts = {} if library is None else _disassembled_by(library, words)
    # The library has no text for encodings whose unused bits are not as they should be; llvm-mc has.
    texts |= disassembled(llvm_mc, (word for word in words if texts.get(word) is None))
    return {word: text and quick(text) for word, text in texts.items()}


def quick(text: str) -> str:
    """The same instruction as LLVM's parser reads it in less time."""
    for pattern, form in QUICK_FORMS:
        quicker, found = pattern.subn(form, text)  # expand() would read the form anew each time
        if found:
            return quicker
    return text


@functools.cache
def _library(version: str) -> ctypes.CDLL | None:
    """LLVM's C interface (llvm-c/Disassembler.h), None where the tools have LLVM in them and nothing can be loaded."""
    found = re.search(r"LLVM version (\d+)", version)
    try:
        library = ctypes.CDLL(f"libLLVM.so.{found.group(1) if found else ''}.1")
        for part in ("TargetInfo", "TargetMC", "Disassembler"):
            getattr(library, f"LLVMInitializeAArch64{part}")()
        library.LLVMCreateDisasmCPUFeatures.restype = ctypes.c_void_p
        library.LLVMDisasmDispose.argtypes = [ctypes.c_void_p]
        library.LLVMDisasmInstruction.restype = ctypes.c_size_t
    except (OSError, AttributeError):
        return None
    library.LLVMDisasmInstruction.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    return library


def _disassembled_by(library: ctypes.CDLL, words: Iterable[int]) -> dict[int, str | None]:
    context = library.LLVMCreateDisasmCPUFeatures(b"aarch64", b"", b"+all", None, 0, None, None)
    text, texts = ctypes.create_string_buffer(LONGEST_TEXT), {}
    for word in words:
        size = library.LLVMDisasmInstruction(context, struct.pack("<I", word), 4, 0, text, LONGEST_TEXT)
        texts[word] = text.value.decode().strip() if size else None
    library.LLVMDisasmDispose(context)
    return texts


def disassembled(llvm_mc: str, words: Iterable[int]) -> dict[int, str | None]:
    """``texts_of`` by llvm-mc, which adds comments: what an immediate is in hexadecimal. Raises DeviceFailed."""
    fresh = sorted(set(words))
    if not fresh:
        return {}
    lines = [" ".join(f"0x{byte:02x}" for byte in struct.pack("<I", word)) for word in fresh]
    command = [llvm_mc, "--disassemble", "-triple=aarch64", "-mattr=+all"]
    done = subprocess.run(command, input="\n".join([*lines, ""]), capture_output=True, text=True)
    invalid = {
        int(line.split(":")[1]) - 1 for line in done.stderr.splitlines() if "invalid instruction encoding" in line
    }
    texts = [line.strip() for line in done.stdout.splitlines() if line.strip() and not line.strip().startswith(".")]
    if len(texts) + len(invalid) != len(fresh):
        raise tool_failed(command, done.stderr)
    valid = (word for index, word in enumerate(fresh) if index not in invalid)
    return dict.fromkeys(fresh) | dict(zip(valid, texts, strict=True))


def tool_failed(command: list[str], stderr: str) -> DeviceFailed:
    what = f"{os.path.basename(command[0])} failed: {ending(stderr)}"
    return DeviceFailed(what, "an LLVM version that was not tried", toolchain.find_llvm_mca().install)
