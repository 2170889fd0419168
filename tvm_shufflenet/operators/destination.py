"""Where an operator writes: a tensor of its own, or some channel planes of a shared tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Channel planes of a tensor with ``total`` planes, which an operator's ``channels`` results are stored to.

    Channel ``c`` goes to plane ``offset + c``, or with ``scattered`` to the plane that a table gives it, an operand of
    the function. This is how branches write straight into their part of a concatenation: the ``first`` of them to run
    allocates the tensor, the others take it as an operand, which they do not read, and keep what they do not write.
    """

    channels: int
    total: int
    offset: int = 0
    scattered: bool = False
    first: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a tensor of the operator's own, in order."""
        return self.channels == self.total and not self.scattered

    @property
    def shared(self) -> bool:
        """Whether the tensor is an operand: it exists before the operator runs."""
        return not self.whole and not self.first


def own(channels: int) -> Window:
    """A fresh tensor that holds nothing but the results."""
    return Window(channels, channels)
