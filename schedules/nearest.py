"""A schedule for a workload that has no record, after the record of a workload that is nearly the same.

What a record holds is a trace: the structure of its schedule, the constants of it (a strip of 196 pixels) and the
values of its knobs (8 rows). The template's own candidates for the shape at hand are compared with it, so whatever is
chosen is legal there. ``benchmarks/nearest.py`` says what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from . import rules

# Shape and dtype of each tensor that an operator takes.
Arguments = Sequence[tuple[Sequence[int], str]]

# As a distance. Left out one by one, records for Cortex-A72 foretell a better schedule than the template's default up
# to here, and a worse one from 0.3 on.
NEAR = 0.2
SAMPLE, POSTPROCESSING = "SampleCategorical", "EnterPostproc"


@dataclass(frozen=True)
class Neighbour:
    """A record: the shapes that it is for, its trace as JSON, and the CPU it was tuned for."""

    arguments: Arguments
    trace: Any
    cpu: str

    @property
    def template(self) -> str | None:
        """The template whose block the trace schedules."""
        blocks = {attrs[0] for kind, _, attrs, _ in self.trace[0] if kind == "GetSBlock"}
        return next((name for name in rules.TEMPLATES if name in blocks), None)


def near_trace(
    mod: IRModule, arguments: Arguments, machine: rules.Machine, neighbours: Iterable[Neighbour]
) -> tuple[Trace, Neighbour] | None:
    """The schedule of ``mod`` after its nearest neighbour, None where none is near, or legal here."""
    template = rules.template_name(mod)
    found = (each for each in neighbours if each.template == template is not None)
    distances = [(distance(arguments, each.arguments, machine.lanes), each) for each in found]
    away, nearest = min(distances, key=lambda pair: pair[0], default=(math.inf, None))
    trace = alike(mod, arguments, machine, nearest) if away <= NEAR else None
    return None if trace is None else (trace, nearest)


def distance(here: Arguments, there: Arguments, lanes: int) -> float:
    """Mean logarithm of the ratios of all extents; infinite where other parts are fused.

    A plane that ends within a vector is far from one that does not: its tail is code of its own.
    """
    if [(len(shape), dtype) for shape, dtype in here] != [(len(shape), dtype) for shape, dtype in there]:
        return math.inf
    apart = [abs(math.log(a / b)) for a, b in _extents(here, there)]
    tails = {_plane(each) % lanes == 0 for each in (here, there)}
    return sum(apart) / len(apart) + (len(tails) > 1)


def _extents(here: Arguments, there: Arguments) -> Iterator[tuple[int, int]]:
    for (left, _), (right, _) in zip(here, there, strict=True):
        yield from zip(left, right, strict=True)


def _plane(arguments: Arguments) -> int:
    """Pixels of the result, or its features."""
    shape, _ = arguments[-1]
    return math.prod(shape[2:]) if len(shape) == 4 else shape[-1]


def alike(mod: IRModule, here: Arguments, machine: rules.Machine, neighbour: Neighbour) -> Trace | None:
    """The candidate of the template for ``mod`` that is most like the neighbour's, None where none has its structure.

    A constant may be the same or have grown with the shape. Of equals the template's better guess is taken.
    """
    from ..tuning.records import plain

    wanted = outline(neighbour.trace[0])
    values = [knob[index] for knob, (_, index) in zip(wanted.knobs, neighbour.trace[1], strict=True)]
    growths = {1.0, _plane(here) / _plane(neighbour.arguments)}
    growths |= {a / b for a, b in _extents(here, neighbour.arguments)}
    best, least = None, math.inf
    for schedule in rules.TEMPLATES[rules.template_name(mod)](Schedule(mod, seed=1), machine):
        found = outline(plain(schedule.trace.as_json())[0])
        if found.structure != wanted.structure:
            continue
        decisions = [_closest(knob, value) for knob, value in zip(found.knobs, values, strict=True)]
        apart = sum(_apart(knob[i], v) for knob, i, v in zip(found.knobs, decisions, values, strict=True))
        for own, other in zip(found.constants, wanted.constants, strict=True):
            apart += min(_apart(own, other * growth) for growth in growths)
        if apart < least - 1e-9:
            best, least = (schedule.trace, decisions), apart
    return None if best is None else _decided(*best)


def _apart(one: float, other: float) -> float:
    return abs(math.log(one / other))


def _closest(knob: Sequence[int], value: int) -> int:
    """The index of the candidate that is closest."""
    return min(range(len(knob)), key=lambda index: _apart(knob[index], value))


def _decided(trace: Trace, decisions: Sequence[int]) -> Trace:
    for knob, index in zip(list(trace.decisions), decisions, strict=True):
        trace = trace.with_decision(knob, index, remove_postproc=True)
    return trace


class Outline(NamedTuple):
    """A trace as JSON, taken apart: instructions without numbers, the numbers, and the candidates of each knob."""

    structure: list
    constants: tuple[int, ...]
    knobs: tuple[tuple[int, ...], ...]


def outline(instructions: list) -> Outline:
    """Blocks that nobody goes on to use are left out, as they are in some records, and variables are numbered anew."""
    used = {name for _, inputs, _, _ in instructions for name in _names(inputs)}
    numbers: dict[str, int] = {}
    structure, constants, knobs = [], [], []
    for kind, inputs, attrs, outputs in instructions:
        if kind == POSTPROCESSING:
            break
        if kind == "GetSBlock" and outputs[0] not in used:
            continue
        constants += [int(value) for value in inputs if isinstance(value, (int, float))]
        if kind == SAMPLE:
            knobs.append(tuple(int(value) for value in attrs[0]))
        structure.append((kind, [numbers[name] for name in _names(inputs) if name in numbers], kind == SAMPLE or attrs))
        numbers.update((name, len(numbers) + place) for place, name in enumerate(outputs))
    return Outline(structure, tuple(constants), tuple(knobs))


def _names(inputs) -> Iterator[str]:
    for value in inputs:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _names(value)
