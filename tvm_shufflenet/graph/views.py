"""Which channel planes of which tensor a value of the network is.

Splits, concatenations and channel shuffles only say which planes come in which order. As long as a value is kept as
such a view, they cost nothing: the permutation moves into the next operator's weights or into its table of planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import relax


@dataclass(eq=False)
class Storage:
    """A tensor (N, planes, H, W) in memory. ``var`` is its newest name: each write in place gives it another.

    ``writable`` is false for what the network does not own: its input.
    """

    var: relax.Expr
    shape: tuple[int, int, int, int]
    writable: bool = True

    @property
    def planes(self) -> int:
        return self.shape[1]


@dataclass(frozen=True)
class View:
    """A value (N, C, H, W) whose channel ``c`` is plane ``planes[c]`` of ``storage``.

    ``non_negative`` where no element can be below zero, so that a ReLU would change nothing.
    """

    storage: Storage
    planes: tuple[int, ...]
    non_negative: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, _, height, width = self.storage.shape
        return batch, len(self.planes), height, width

    @property
    def whole(self) -> bool:
        """Whether it is the tensor itself, planes in order."""
        return self.planes == tuple(range(self.storage.planes))

    @property
    def permuted(self) -> bool:
        """Whether it holds every plane of the tensor once, in whatever order."""
        return len(self.planes) == self.storage.planes and len(set(self.planes)) == len(self.planes)

    def take(self, channels: Sequence[int]) -> View:
        """The view of some of its channels."""
        return View(self.storage, tuple(self.planes[c] for c in channels), self.non_negative)


def whole_view(storage: Storage) -> View:
    """The view of all planes in order."""
    return View(storage, tuple(range(storage.planes)))


def shuffled(channels: int, groups: int) -> list[int]:
    """Which channel a channel shuffle by ``groups`` puts at each place. ShuffleNet (arXiv:1707.01083), section 3.1."""
    return [(place % groups) * (channels // groups) + place // groups for place in range(channels)]
