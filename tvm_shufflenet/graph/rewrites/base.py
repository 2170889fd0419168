"""What finds an operator in a network, and writes it anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tvm import relax

from ..bindings import Bindings

if TYPE_CHECKING:
    from ..passes.fuse_operators import Fuser
    from ..values import Value


class Found(Protocol):
    """Operations that become one: all variables that they are ``bound`` to, the ``last`` of which holds the result."""

    last: relax.Var
    bound: list[relax.Var]


@dataclass(frozen=True)
class Rewrite:
    """One way to rewrite a call of one of the Relax operators that it ``begins`` with.

    ``find(bindings, var, claimed)`` looks for several operations that begin at ``var`` and become one, none of whose
    variables are ``claimed`` by others; it changes nothing, and returns None where it finds nothing.

    ``write(fuser, var, found)`` is called when everything that is read has been written: it emits what computes the
    result, tells the fuser what has been read, and returns what ``var`` has become. Without ``find`` it is given the
    call itself, and returns None where that is to be left to TVM: it must have emitted and read nothing then.
    """

    begins: tuple[str, ...]
    write: Callable[[Fuser, relax.Var, Any], Value | None]
    find: Callable[[Bindings, relax.Var, set[relax.Var]], Found | None] | None = None
