"""Derives a schedule for a workload without a record from the record of the most similar workload.

What a record holds is a trace: the structure of its schedule, the constants of it (a strip of 196 pixels) and the
values of its knobs (8 rows). The template's own candidates for the shape at hand are compared with it, so whatever is
chosen is legal there. ``benchmarks/nearest.py`` says what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from tvm import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from ..hardware.machine import Machine
from ..support.containers import plain
from . import rules

# Shape and dtype of each tensor that an operator takes.
Arguments = Sequence[tuple[Sequence[int], str]]

# As a distance. On Cortex-A72 a record further away does not predict a better schedule than the template's default.
NEAR = 0.2
SAMPLE, POSTPROCESSING = "SampleCategorical", "EnterPostproc"


@dataclass(frozen=True)
class Neighbour:
    """A record: the shapes that it is for, its trace as JSON, and the CPU it was tuned for."""

    arguments: Arguments
    trace: Any
    cpu: str


def near_trace(
    mod: IRModule, arguments: Arguments, machine: Machine, neighbours: Iterable[Neighbour]
) -> tuple[Trace, Neighbour] | None:
    """The schedule of ``mod``, which has a template, after its nearest neighbour that was scheduled by that template.

    None where none is near.
    """
    lanes = machine.computing_in(rules.precision_of_operator(mod)).lanes
    distances = [(distance(arguments, each.arguments, lanes), each) for each in neighbours]
    near = sorted((pair for pair in distances if pair[0] <= NEAR), key=itemgetter(0))
    candidates = _candidates(mod, machine) if near else []
    alikes = ((_alike(candidates, each), each) for _, each in near)
    return next((found for found in alikes if found[0] is not None), None)


def _alike(candidates: Iterable[tuple[Trace, Outline]], neighbour: Neighbour) -> Trace | None:
    """``alike``, None for a trace that was not written by a template, or by hand: it only guides."""
    try:
        return alike(candidates, neighbour)
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None


def distance(here: Arguments, there: Arguments, lanes: int) -> float:
    """Mean logarithm of the ratios of all extents; infinite where other parts are fused.

    A plane that ends within a vector is far from one that does not: its tail is code of its own.
    """
    if [(len(shape), dtype) for shape, dtype in here] != [(len(shape), dtype) for shape, dtype in there]:
        return math.inf
    extents = [zip(left, right, strict=True) for (left, _), (right, _) in zip(here, there, strict=True)]
    apart = [_apart(left, right) for tensor in extents for left, right in tensor]
    tails = {_plane(each) % lanes == 0 for each in (here, there)}
    return sum(apart) / len(apart) + (len(tails) > 1)


def _plane(arguments: Arguments) -> int:
    """Pixels of the result, or its features."""
    shape, _ = arguments[-1]
    return math.prod(shape[2:]) if len(shape) == 4 else shape[-1]


def _apart(one: float, other: float) -> float:
    return abs(math.log(one / other))


class Outline(NamedTuple):
    """A trace taken apart: instructions without numbers, the numbers, and the candidates of each knob."""

    structure: list
    constants: list[int]
    knobs: list[list[int]]


def outline(instructions: list) -> Outline:
    """Of a trace as JSON, variables numbered anew."""
    numbers: dict[str, int] = {}
    found = Outline([], [], [])
    for kind, inputs, attrs, outputs in _effective(instructions):
        found.constants.extend(value for value in inputs if isinstance(value, int))
        if kind == SAMPLE:
            found.knobs.append(attrs[0])
        found.structure.append((kind, [numbers.get(name) for name in _names(inputs)], kind == SAMPLE or attrs))
        numbers.update((name, len(numbers) + place) for place, name in enumerate(outputs))
    return found


def _effective(instructions: list) -> list:
    """Up to postprocessing, without what was looked up and not used: a search leaves that out of its records."""
    kept, used = [], set()
    for instruction in reversed(instructions):
        kind, inputs, _, outputs = instruction
        if kind == POSTPROCESSING:
            kept, used = [], set()
        elif not kind.startswith("Get") or not used.isdisjoint(outputs):
            kept.append(instruction)
            used.update(_names(inputs))
    return kept[::-1]


def _names(inputs) -> Iterator[str]:
    for value in inputs:
        if isinstance(value, list):
            yield from _names(value)
        elif isinstance(value, str):
            yield value


def _candidates(mod: IRModule, machine: Machine) -> list[tuple[Trace, Outline]]:
    """What the template makes of ``mod``, its best guess first."""
    schedules = rules.TEMPLATES[rules.template_name(mod)](Schedule(mod, seed=1), machine)
    traces = [schedule.trace for schedule in schedules]
    return [(trace, outline(plain(trace.as_json())[0])) for trace in traces]


def alike(candidates: Iterable[tuple[Trace, Outline]], neighbour: Neighbour) -> Trace | None:
    """The candidate of the neighbour's structure, and its decisions, whose numbers are closest to the neighbour's.

    Of equals the template's better guess is taken. None where no candidate has the structure, as where a record was
    found by another strategy.
    """
    instructions, decisions = neighbour.trace
    wanted = outline(instructions)
    found = [(trace, own) for trace, own in candidates if own.structure == wanted.structure]
    if not found:
        return None
    values = [knob[index] for knob, (_, index) in zip(wanted.knobs, decisions, strict=True)]

    def apart(candidate: tuple[Trace, Outline]) -> float:
        own = candidate[1]
        closest = [_closest(knob, value) for knob, value in zip(own.knobs, values, strict=True)]
        return sum(map(_apart, [*own.constants, *closest], [*wanted.constants, *values]))

    trace, own = min(found, key=apart)
    for sample, knob, value in zip(list(trace.decisions), own.knobs, values, strict=True):
        trace = trace.with_decision(sample, knob.index(_closest(knob, value)), remove_postproc=True)
    return trace


def _closest(knob: Sequence[int], value: int) -> int:
    return min(knob, key=lambda each: _apart(each, value))
