"""Boards: a core, its clock and the memory behind it, as the emulated device models them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import UnknownName
from .cores import CORTEX_A53, CORTEX_A55, CORTEX_A72, CORTEX_A76, Core


@dataclass(frozen=True)
class Board:
    """So many ``cores`` of one kind at ``clock_ghz``, and what lies behind their L2.

    ``dram_latency_ns`` is what a load waits beyond an L1 hit, ``dram_line_ns`` how long a line takes to or from memory
    in a stream of them. ``model_error_percent`` is the mean error of modelled latencies of networks that the fit left
    out, None where there was nothing to compare with: "not calibrated".
    """

    name: str
    core: Core
    clock_ghz: float
    dram_latency_ns: float
    dram_line_ns: float
    model_error_percent: float | None
    source: str
    cores: int = 4


# dram_line_ns is fitted, as compute_scale is (hardware/cores.py). Latencies and copy bandwidths: tinymembench on these
# boards, in ThomasKaiser/sbc-bench, Results.md at 02c3f9f3 and results/1MFf, 1iI5, 2sZH: dram_latency_ns from a buffer
# of 4 MiB. On both fitted boards a line then takes 0.75 to 0.95 of the time that such a copy, which reads and writes,
# spends on one; boards without latencies to fit take theirs from their copy bandwidth: 0.85 * 64 B / (2 * bandwidth).
_PI_3B = Board(
    "raspberry-pi-3b", CORTEX_A53, clock_ghz=1.4, dram_latency_ns=142.0, dram_line_ns=19.4, model_error_percent=5.1,
    source="Raspberry Pi 3B+ (BCM2837B0): copies at 1.23 GB/s",
)  # fmt: skip
_RK3568 = Board(
    "rk3568", CORTEX_A55, clock_ghz=1.8, dram_latency_ns=142.0, dram_line_ns=9.1, model_error_percent=None,
    source="RK3568: copies at 2.98 GB/s (Quartz64); latency of memory as Raspberry Pi 3B+",
)  # fmt: skip
_PI_4B = Board(
    "raspberry-pi-4b", CORTEX_A72, clock_ghz=1.8, dram_latency_ns=115.0, dram_line_ns=12.1, model_error_percent=4.7,
    source="Raspberry Pi 4B (BCM2711): copies at 2.5 GB/s",
)  # fmt: skip
_RK3399 = replace(
    _PI_4B, name="rk3399", cores=2, dram_latency_ns=131.0, dram_line_ns=7.0, model_error_percent=None,
    source="RK3399's Cortex-A72 cores: copies at 3.9 GB/s (RockPro64, NanoPC T4)",
)  # fmt: skip
_PI_5 = Board(
    "raspberry-pi-5", CORTEX_A76, clock_ghz=2.4, dram_latency_ns=40.0, dram_line_ns=4.9, model_error_percent=None,
    source="Raspberry Pi 5 (BCM2712): beyond L2 lie a 2 MiB L3 and then memory, which a latency of 40 ns and copies at "
    "5.5 GB/s stand between: a guess",
)  # fmt: skip
_RK3588 = replace(
    _PI_5, name="rk3588", clock_ghz=2.35, dram_line_ns=2.5,
    source="RK3588's Cortex-A76 cores; as Raspberry Pi 5, but copies at 10.8 GB/s (Rock 5B)",
)  # fmt: skip

USUAL = "cortex-a72"  # where nothing is said
# A core by itself means the board on which it was fitted, or is most used.
BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        *(replace(board, name=board.core.cpu) for board in (_PI_3B, _RK3568, _PI_4B, _PI_5)),
        *(_PI_3B, _PI_4B, _RK3399, _RK3568, _PI_5, _RK3588),
    )
}


def find_board(name: str) -> Board:
    """The modelled board, or core on its usual one, called ``name``. Raises UnknownName with the nearest ones."""
    if name not in BOARDS:
        raise UnknownName("core", name, BOARDS, f"name one of {', '.join(BOARDS)}")
    return BOARDS[name]
