"""The fuser's values: what a variable of the old function has become, and where an operator writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import relax

from ..operators.destination import Window, own
from .bindings import constant
from .views import Memory, Storage, View


@dataclass(frozen=True)
class Place:
    """Where an operator writes: a window of ``storage``, or of a fresh tensor where that is None.

    ``planes[c]`` is the plane of channel ``c``. With ``relu`` the value is wanted after a ReLU.
    """

    window: Window
    planes: tuple[int, ...]
    storage: Storage | None = None
    relu: bool = False


def fresh(channels: int) -> Place:
    """A tensor of its own."""
    return Place(own(channels), tuple(range(channels)))


def part(storage: Storage | None, total: int, planes: tuple[int, ...], relu: bool) -> Place:
    """Some planes of a tensor with ``total`` planes: a range of them, or a table's."""
    scattered = planes != tuple(range(planes[0], planes[0] + len(planes)))
    window = Window(len(planes), total, 0 if scattered else planes[0], scattered, first=storage is None)
    return Place(window, planes, storage, relu)


@dataclass(frozen=True)
class Pending:
    """A result that waits for its place in a concatenation: ``write(place)`` emits the operator that computes it."""

    channels: int
    write: Callable[[Place], View]


@dataclass(frozen=True)
class Other:
    """A value that is no image: ``expr``, which lies in one of ``memories``, or each of whose fields does."""

    expr: relax.Expr
    memories: frozenset[Memory]


Value = View | Pending | Other | tuple[View, ...]


def owned() -> frozenset[Memory]:
    """The memory of a fresh tensor."""
    return frozenset([Memory()])


def foreign() -> frozenset[Memory]:
    """The memory of an input or a constant, which is never written."""
    return frozenset([Memory(writable=False)])


def memories_of(value: Value) -> frozenset[Memory]:
    """The memories that a value may lie in; none for what is not computed yet."""
    if isinstance(value, tuple):
        return frozenset().union(*map(memories_of, value))
    if isinstance(value, View):
        return value.storage.memories
    return value.memories if isinstance(value, Other) else frozenset()


def lies_in(value: Value, storage: Storage) -> bool:
    return isinstance(value, View) and value.storage is storage


def is_tensor_constant(expr: relax.Expr) -> bool:
    """Whether it is a constant of more than one element: a scalar is an operand of arithmetic."""
    value = constant(expr)
    return value is not None and value.size > 1
