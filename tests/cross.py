"""Programs and libraries of C that tests build for another machine."""

from __future__ import annotations

from tvm_shufflenet.support import toolchain

# zig builds the C libraries of a target for each way of calling it: so these calls are like those that build the
# device server and standalone libraries.
FINISHED = ("-O2", "-s")


def zig_cc(target: str, *options: str) -> list[str]:
    """zig's C compiler, called as the project calls it: with the same C libraries, in the same cache."""
    return [toolchain.zig_program(), "cc", *FINISHED, "-target", target, *options]
