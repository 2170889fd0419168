"""The rewrites of the fused operators, one module an operator, and of what only chooses planes."""

from __future__ import annotations

from ...operators.registry import OPERATORS, part_of
from . import concat, planes
from .base import Rewrite


def _by_operator() -> dict[str, tuple[Rewrite, ...]]:
    """All rewrites by the Relax operator that they begin with, in the order of the registry."""
    modules = [part_of(name, "graph.rewrites", ("REWRITES",)) for name in OPERATORS]
    found: dict[str, tuple[Rewrite, ...]] = {}
    for rewrite in (each for module in (*modules, planes, concat) for each in module.REWRITES):
        for name in rewrite.begins:
            found[name] = (*found.get(name, ()), rewrite)
    return found


REWRITES = _by_operator()
