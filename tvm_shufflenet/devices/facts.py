"""What a figure says about the device it was taken on."""

from __future__ import annotations

import msgspec

from ..hardware.boards import BOARDS, Board
from ..latency import MODELLED, Kind


class DeviceFacts(msgspec.Struct, frozen=True):
    """A device's ``name``, the ``kind`` of its clock, and the error of a modelled one; None where it is unknown."""

    name: str
    kind: Kind
    model_error_percent: float | None = None

    @property
    def is_modelled(self) -> bool:
        return self.kind == MODELLED

    @property
    def board(self) -> Board | None:
        """The board that is modelled; None for a device with a clock of its own."""
        return BOARDS.get(self.name.partition(":")[2]) if self.is_modelled else None
