"""The interface of a modelled clock, as the users of a device see it."""

from __future__ import annotations

from dataclasses import dataclass

from ..hardware.boards import Board


@dataclass(frozen=True)
class CostModel:
    """What is executed on the device is counted, and priced as on this ``board``; the same code takes the same time."""

    board: Board

    @property
    def error_percent(self) -> float | None:
        """How far modelled latencies were off on average; None where there was nothing to compare with."""
        return self.board.model_error_percent
