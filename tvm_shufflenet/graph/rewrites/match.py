"""The protocol of a rewrite: a module with two names, found and checked by ``operators/registry.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tvm import relax

from ..bindings import Bindings

if TYPE_CHECKING:
    from ..fuser import Fuser
    from ..values import Value


@dataclass(frozen=True)
class Match:
    """Variables ``bound`` that become one call, or none; ``last`` holds the result, and the others only feed it.

    ``emit`` emits the call where the last one stood and returns what that has become; or None, where the values that
    it reads turn out not to be what the operator takes: then TVM's own operator stays, so ``bound`` must be one.
    """

    last: relax.Var
    bound: tuple[relax.Var, ...]
    emit: Callable[[Fuser], Value | None]


class Rewrite(Protocol):
    """Finds one operator. ``STARTS`` are the Relax operators that its first variable may be bound to."""

    STARTS: tuple[str, ...]

    @staticmethod
    def find(bindings: Bindings, var: relax.Var, claimed: set[relax.Var]) -> Match | None:
        """What begins at ``var``, or None. Variables in ``claimed`` belong to other matches.

        It sees the graph as it was, before anything is emitted. ``emit`` sees the fuser (``graph/fuser.py``): reads the
        views of its operands, tells it that it has read them, and calls the operator.
        """
