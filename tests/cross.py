"""Programs and libraries of C that tests build for another machine."""

from __future__ import annotations

from tvm_shufflenet import toolchain
from tvm_shufflenet.library.link import FINISHED


def zig_cc(target: str, *options: str) -> list[str]:
    """zig's C compiler, called as the project calls it: with the same C libraries, in the same cache."""
    return [toolchain.zig_program(), "cc", *FINISHED, "-target", target, *options]
