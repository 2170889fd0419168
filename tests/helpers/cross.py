"""Programs and libraries of C that tests build for another machine."""

from __future__ import annotations

from tvm_shufflenet.support import toolchain

# zig builds the C libraries of a target for each way of calling it: so these calls are like those that build the
# device server and standalone libraries.
FINISHED = ("-O2", "-s")
# musl is compiled for a program that is linked with it, a minute's work, once for each set of these: a package's
# benchmark has them (standalone/build.py).
AS_A_BENCHMARK = ("-static", "-fPIC", "-fno-stack-protector", "-fno-sanitize=all")


def zig_cc(target: str, *options: str) -> list[str]:
    """zig's C compiler, called as the project calls it: with the same C libraries, in the same cache."""
    return [toolchain.zig_program(), "cc", *FINISHED, "-target", target, *options]


def static_zig_cc(machine: str, *options: str) -> list[str]:
    """For a program with the musl that benchmarks of packages are linked with."""
    return zig_cc(f"{machine}-linux-musl", *AS_A_BENCHMARK, *options)
