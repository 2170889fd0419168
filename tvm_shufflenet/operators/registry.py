"""The operators, one row each: arithmetic, schedule template and graph rewrite.

A row's parts are modules called by its name, imported when they are asked for. They are checked against the contract in
``operators/base.py`` then, all at once: a template that looks for a block which the operator does not have would fail
at the first network that needs it.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..hardware.machine import Machine
    from .base import Block, Operator

PACKAGE = __package__.rpartition(".")[0]
TEMPLATE, REWRITE = ("BLOCKS", "layout", "schedules"), ("STARTS", "find")


class IncompleteOperator(TypeError):
    """An operator whose files do not fit together: what is missing, and where."""


@dataclass(frozen=True)
class Row:
    """An operator's ``name``, which is that of its three modules, its main block and its calls; and its class.

    ``weight_axes`` are those of its packed weight, of which the last is a strip of output channels, and how many of
    them, before that, are the inputs' and the window's; None where weights are not packed in strips.
    """

    name: str
    class_name: str
    weight_axes: tuple[int, int] | None = None


ROWS = (
    Row("pointwise", "Pointwise", weight_axes=(4, 1)),
    Row("depthwise", "Depthwise"),
    Row("convolution", "Convolution", weight_axes=(6, 3)),
    Row("pooling", "Pooling"),
    Row("dense", "Dense", weight_axes=(3, 1)),
    Row("copy", "Copy"),
)


@dataclass(frozen=True)
class Entry:
    """A row whose parts are there and fit together."""

    name: str
    operator: type[Operator]
    template: ModuleType
    rewrite: ModuleType


@functools.cache
def entries() -> tuple[Entry, ...]:
    """The operators in the order of their rows, which is that in which a graph is searched for them."""
    return read(ROWS)


def read(rows: Sequence[Row], package: str = PACKAGE) -> tuple[Entry, ...]:
    """Import and check what the rows name in ``package``. Raises IncompleteOperator, which names what is missing."""
    counts = Counter(row.name for row in rows)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise IncompleteOperator(f"the registry has several rows for {', '.join(twice)}: block names must be distinct")
    return tuple(_read(row, package) for row in rows)


def laid_out(operator: Operator, machine: Machine) -> Operator:
    """The operator with weights and scratch laid out as its template wants them on ``machine``."""
    return replace(
        operator, layout=entry_of(operator).template.layout(operator, machine.computing_in(operator.precision))
    )


def entry_of(operator: Operator) -> Entry:
    return next(entry for entry in entries() if type(operator) is entry.operator)


def _read(row: Row, package: str) -> Entry:
    operator = _part(row, f"{package}.operators.{row.name}", row.class_name)
    template = _part(row, f"{package}.schedules.{row.name}", *TEMPLATE)
    rewrite = _part(row, f"{package}.graph.rewrites.{row.name}", *REWRITE)
    entry = Entry(row.name, getattr(operator, row.class_name), template, rewrite)
    _check_operator(entry)
    _check_blocks(entry)
    return entry


def _part(row: Row, module: str, *names: str) -> ModuleType:
    """A module of a row, which must define ``names``."""
    try:
        found = import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise
        raise IncompleteOperator(f"the operator '{row.name}' has no module {module}") from exc
    missing = [name for name in names if not hasattr(found, name)]
    if missing:
        raise IncompleteOperator(f"{module}, of the operator '{row.name}', does not define {', '.join(missing)}")
    return found


def _check_operator(entry: Entry) -> None:
    from .base import Operator

    if not issubclass(entry.operator, Operator):
        raise IncompleteOperator(f"{entry.operator.__name__} is no subclass of operators.base.Operator")
    abstract = sorted(entry.operator.__abstractmethods__)
    if abstract:
        raise IncompleteOperator(f"{entry.operator.__name__} does not define {', '.join(abstract)}")


def _check_blocks(entry: Entry) -> None:
    """The example's function must have the blocks that the template schedules, and iterators as the template expects.

    A template for which any function would do would take those of others.
    """
    wanted: tuple[Block, ...] = entry.template.BLOCKS
    if entry.name not in [block.name for block in wanted]:
        raise IncompleteOperator(f"the template of '{entry.name}' does not name its main block '{entry.name}'")
    found = _blocks(entry.operator.example())
    for block in wanted:
        if block.name not in found:
            has = ", ".join(found)
            raise IncompleteOperator(
                f"the template of '{entry.name}' schedules a block '{block.name}', but the function of"
                f" {entry.operator.__name__} has only {has}"
            )
        if found[block.name] != (len(block.spatial), len(block.reduced)):
            raise IncompleteOperator(
                f"the template of '{entry.name}' expects the block {block}, but that of {entry.operator.__name__} has"
                " {} spatial and {} reduced iterators".format(*found[block.name])
            )


def _blocks(operator: Operator) -> dict[str, tuple[int, int]]:
    """The blocks of a function by name, and how many of their iterators are spatial and reduced, spatial ones first."""
    from tvm import IRModule
    from tvm.s_tir import Schedule
    from tvm.tirx import IterVar

    schedule = Schedule(IRModule({"main": operator.function()}))
    blocks = [schedule.get(block) for block in schedule.get_child_blocks(schedule.get_sblock("root"))]
    found = {}
    for block in blocks:
        spatial = [axis.iter_type == IterVar.DataPar for axis in block.iter_vars]
        if spatial != sorted(spatial, reverse=True):
            raise IncompleteOperator(f"the block '{block.name_hint}' has a reduced iterator before a spatial one")
        found[block.name_hint] = sum(spatial), len(spatial) - sum(spatial)
    return found
