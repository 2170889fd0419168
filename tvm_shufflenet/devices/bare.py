"""Runs arm64 code on this machine without a clock: the device server under QEMU, without the counting plugin.

For results only. It needs neither llvm-mca nor a C compiler, and what it runs takes a tenth of the time.
"""

from __future__ import annotations

from ..hardware.boards import Board
from ..support import toolchain
from .local import LocalDevice


class BareEmulator(LocalDevice):
    """QEMU's model of ``board``'s core, with ``threads`` threads of its own."""

    emulated = True

    def __init__(self, board: Board, threads: int = 1):
        super().__init__(threads)
        self.board, self.name, self.machine = board, f"emulated:{board.name}", "aarch64"

    def with_threads(self, threads: int) -> BareEmulator:
        return BareEmulator(self.board, threads)

    def launcher(self) -> list[str]:
        qemu, sysroot = (toolchain.require(tool) for tool in (toolchain.find_qemu(), toolchain.find_sysroot()))
        return [qemu, "-cpu", self.board.core.qemu_cpu, "-L", sysroot]
