"""A value as a view: an ordered list of channel planes of a tensor.

Splits, concatenations and channel shuffles only say which planes come in which order. As long as a value is kept as
such a view, they cost nothing: the permutation moves into the next operator's weights or into its table of planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tvm import relax

from ..precision import Precision, precision_of


@dataclass(frozen=True, eq=False)
class Memory:
    """A block of memory that a value may lie in; not ``writable`` where the network does not own it: its inputs'."""

    writable: bool = True


@dataclass(eq=False)
class Storage:
    """A tensor (N, planes, H, W) in memory. ``var`` is its newest name: each write in place gives it another.

    It lies in one of ``memories``, which other values may share. ``versions[p]`` counts the writes to plane ``p``.
    """

    var: relax.Expr
    shape: tuple[int, int, int, int]
    memories: frozenset[Memory]
    versions: list[int] = field(init=False)

    def __post_init__(self):
        self.versions = [0] * self.planes

    @property
    def planes(self) -> int:
        return self.shape[1]

    @property
    def dtype(self) -> str:
        return str(self.var.ty.dtype)

    @property
    def precision(self) -> Precision:
        found = precision_of(self.dtype)
        assert found is not None, self.dtype  # others are not viewed
        return found

    @property
    def writable(self) -> bool:
        return all(memory.writable for memory in self.memories)

    def written(self, planes: Sequence[int]) -> None:
        """Note a write to ``planes``: older views of them have lost their values."""
        for plane in planes:
            self.versions[plane] += 1


@dataclass(frozen=True)
class View:
    """A value (N, C, H, W) whose channel ``c`` is plane ``planes[c]`` of ``storage``, as it was after ``versions[c]``
    writes.

    ``non_negative`` where no element can be below zero, so that a ReLU would change nothing.
    """

    storage: Storage
    planes: tuple[int, ...]
    versions: tuple[int, ...]
    non_negative: bool = False

    @property
    def current(self) -> bool:
        """Whether nothing has been written over it."""
        return self.versions == tuple(self.storage.versions[plane] for plane in self.planes)

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
        planes, versions = (tuple(values[c] for c in channels) for values in (self.planes, self.versions))
        return replace(self, planes=planes, versions=versions)


def view_of(storage: Storage, planes: tuple[int, ...], non_negative: bool = False) -> View:
    """The view of what ``planes`` hold now."""
    return View(storage, planes, tuple(storage.versions[plane] for plane in planes), non_negative)


def whole_view(storage: Storage) -> View:
    """The view of all planes in order."""
    return view_of(storage, tuple(range(storage.planes)))


def shuffled(channels: int, groups: int) -> list[int]:
    """Which channel a channel shuffle by ``groups`` puts at each place. ShuffleNet (arXiv:1707.01083), section 3.1."""
    return [(place % groups) * (channels // groups) + place // groups for place in range(channels)]
