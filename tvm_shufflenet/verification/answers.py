"""PyTorch's outputs for the probes, and the tolerances that follow from the network's own rounding.

What is allowed follows from the network itself, for each output. Its answer is computed twice: in float32, and in
float64 with every operator's result off by the precision's rounding (models/float64.py). Their difference is one that
rounding explains, and a library that sums in another order has another such difference. It may be ``FACTOR`` times as
large, since the largest of many differences is compared with the largest of others. A network that rounding hardly
touches may still be off by the precision's ``units`` roundings of its largest output: batch norms are folded into
weights, and sums of thousands of products go in another order. There is no absolute floor: outputs of 1e-5 are
compared as those of 10 are.

Zeros and denormal numbers are taken for known to ``KNOWN`` of the reference input only: a norm over equal numbers
divides what is left of them by nothing, and PyTorch's exact zero there is luck.

Where PyTorch's float32 and float64 differ in what is NaN or infinite, the probe is left out: rounding decides there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..devices.difference import largest_error
from ..precision import FLOAT32, Precision
from ..signature import Signature, Tensors
from ..support.activity import doing
from .probes import INFINITE, NAN, OTHER, PROBES, QUIET, REFERENCE, probe

if TYPE_CHECKING:
    from ..models import Model

FACTOR = 8
AMPLIFIES = 1e-4  # a share of the largest output that rounding moves: beyond it, fewer than four digits are left
KNOWN = 2.0**-16


@dataclass(frozen=True)
class Difference:
    """The largest difference of an ``output`` from PyTorch's, and the largest one that passes."""

    output: str
    error: float
    tolerance: float

    @property
    def right(self) -> bool:
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """Of what is allowed; infinite for NaN."""
        if not self.tolerance:
            return 0.0 if self.error == 0 else math.inf
        return math.inf if math.isnan(self.error) else self.error / self.tolerance


@dataclass(frozen=True)
class Answer:
    """PyTorch's outputs for the inputs ``probe``, and the largest difference that passes for each."""

    probe: str
    expected: Tensors
    tolerances: Mapping[str, float]

    def difference(self, outputs: Tensors, spoilt: Tensors | None = None) -> Difference:
        """The worst of all outputs. Where ``spoilt``, by output, a NaN on either side passes."""
        found = [
            Difference(name, largest_error(outputs[name], expected, (spoilt or {}).get(name)), self.tolerances[name])
            for name, expected in self.expected.items()
        ]
        return worst(found)


def worst(differences: Sequence[Difference]) -> Difference:
    """That which comes closest to its tolerance, or is furthest beyond."""
    return max(differences, key=lambda each: each.share)


@dataclass(frozen=True)
class Answers:
    """PyTorch's answers, that to the reference ``inputs`` first.

    The library computes in ``precision``. By output: ``roundings`` are the largest differences that its rounding makes
    for those inputs, None where the network does not run in float64; ``sensitivities`` the largest differences between
    its answers to two ordinary inputs, None where it has no second one.
    """

    inputs: Tensors
    each: tuple[Answer, ...]
    roundings: Mapping[str, float | None]
    sensitivities: Mapping[str, float | None]
    precision: Precision = FLOAT32

    @property
    def reference(self) -> Answer:
        return self.each[0]

    @property
    def scales(self) -> dict[str, float]:
        return {name: scale_of(expected) for name, expected in self.reference.expected.items()}

    @property
    def note(self) -> str | None:
        """What a reader of the tolerances should know, None for an ordinary network."""
        notes = (rounding_note(self.roundings[name], scale, self.precision) for name, scale in self.scales.items())
        return next((note for note in notes if note is not None), None)

    @property
    def blind(self) -> str | None:
        """Why agreement proves nothing; None where some output can tell."""
        found = [
            blindness(self.sensitivities[name], max(self._ordinary_tolerances(name)), self.precision)
            for name in self.sensitivities
        ]
        return None if None in found else found[0]

    def spoilt(self, name: str) -> Tensors | None:
        """Where a NaN on one side says nothing in the answer to that probe: what infinity reaches, since infinity less
        infinity may come of one order of operations and not of another."""
        found = [answer.expected for answer in self.each if answer.probe == NAN] if name == INFINITE else []
        return {output: np.isnan(expected) for output, expected in found[0].items()} if found else None

    def _ordinary_tolerances(self, output: str) -> list[float]:
        return [answer.tolerances[output] for answer in self.each if answer.probe in (REFERENCE, OTHER)]


def rounding_note(rounding: float | None, scale: float, precision: Precision = FLOAT32) -> str | None:
    """What a network does to rounding, in words, if that is much: ``rounding`` moves outputs up to ``scale``."""
    if rounding is None:
        return f"the network does not run in float64, so {precision.unproven:g} of its largest output is allowed"
    if rounding <= AMPLIFIES * precision.epsilon / FLOAT32.epsilon * scale:
        return None
    return f"the network amplifies rounding: PyTorch's own {precision.name} is {rounding:.2g} from its float64"


def blindness(sensitivity: float | None, tolerance: float, precision: Precision = FLOAT32) -> str | None:
    """Why a network's answers cannot tell a right library from one that ignores its input; None where they can."""
    if sensitivity is None:
        return "PyTorch has an answer to one input only, which a library that ignores its input could return"
    if sensitivity >= precision.telling * tolerance and sensitivity > 0:
        return None
    return (
        f"PyTorch's answers to two inputs differ by {sensitivity:.2g}, less than {precision.telling:g} times the "
        f"{tolerance:.2g} allowed, so a library that ignores its input could pass"
    )


Pair = tuple["np.ndarray | None", "np.ndarray | None"]  # an output in float32 and in float64


@doing("asking PyTorch, in float32 and float64")
def answers_of(
    model: Model, signature: Signature, inputs: Tensors, reference: Tensors, precision: Precision = FLOAT32
) -> Answers:
    """What PyTorch answers to the probes that ``inputs`` make; ``reference`` is its answer to ``inputs`` themselves."""
    found = {name: _both(model, signature, inputs, name, precision) for name in PROBES}
    found = {name: pairs for name, pairs in found.items() if name == REFERENCE or all(map(_defined, pairs.values()))}
    limits = {
        output: _limits({name: pairs[output] for name, pairs in found.items()}, precision)
        for output in signature.output_names
    }
    each = []
    for name, pairs in found.items():
        expected = reference if name == REFERENCE else {output: single for output, (single, _) in pairs.items()}
        each.append(Answer(name, expected, {output: limit.tolerances[name] for output, limit in limits.items()}))
    roundings = {output: limit.rounding for output, limit in limits.items()}
    sensitivities = {output: limit.sensitivity for output, limit in limits.items()}
    return Answers(inputs, tuple(each), roundings, sensitivities, precision)


@dataclass(frozen=True)
class _Limits:
    """Of one output: its tolerance for each probe, and what these follow from."""

    tolerances: dict[str, float]
    rounding: float | None
    sensitivity: float | None


def _limits(pairs: Mapping[str, Pair], precision: Precision) -> _Limits:
    """``pairs`` are one output's, by probe."""
    roundings = {name: _difference(*pair) for name, pair in pairs.items()}
    relative = [_share(roundings[name], pairs[name][0]) for name in (REFERENCE, OTHER) if name in pairs]
    tolerances = {
        name: tolerance_of(single, roundings[name], relative, precision) for name, (single, _) in pairs.items()
    }
    sensitivity = _difference(pairs[REFERENCE][0], pairs[OTHER][0]) if OTHER in pairs else None
    return _Limits(tolerances, roundings[REFERENCE], sensitivity)


def _both(model: Model, signature: Signature, inputs: Tensors, name: str, precision: Precision) -> dict[str, Pair]:
    """By output, the answer to the probe ``name`` in float32 and, of quiet inputs a little off, in float64; None for
    one that there is not."""
    given, off = probe(name, inputs), np.float32(KNOWN * (name in QUIET))
    names = signature.output_names
    try:
        singles = model(*(given[each] for each in signature.input_names))
        off_inputs = (given[each] + inputs[each] * off for each in signature.input_names)
        doubles = model.in_float64(*off_inputs, precision=precision)
    except Exception:  # whatever a network's own code raises on a NaN
        return dict.fromkeys(names, (None, None))
    pairs = {}
    for output, single, double in zip(names, singles, doubles or [None] * len(singles), strict=True):
        pairs[output] = single, double if double is not None and double.shape == single.shape else None
    return pairs


def _defined(pair: Pair) -> bool:
    """Whether rounding does not decide what is NaN or infinite in an output."""
    single, double = pair
    if single is None or double is None:
        return single is not None and bool(np.isfinite(single).all())
    with np.errstate(over="ignore"):
        double = double.astype(np.float32)
    finite = np.isfinite(single)
    return np.array_equal(finite, np.isfinite(double)) and np.array_equal(single[~finite], double[~finite], True)


def _difference(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    """The largest where both are finite, None where one is missing."""
    if one is None or other is None:
        return None
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.abs(one[both].astype(float) - other[both]).max(initial=0.0))


def _share(rounding: float | None, single: np.ndarray | None) -> float | None:
    scale = scale_of(single) if single is not None else 0.0
    return rounding / scale if rounding is not None and scale else None


def scale_of(output: np.ndarray) -> float:
    """The largest finite magnitude."""
    finite = output[np.isfinite(output)]
    return float(np.abs(finite).max(initial=0.0))


def tolerance_of(
    output: np.ndarray,
    rounding: float | None,
    relative: Sequence[float | None] = (),
    precision: Precision = FLOAT32,
) -> float:
    """How far off ``output`` a right library may be, where rounding moves it by ``rounding``, and the outputs for
    ordinary inputs by these ``relative`` shares of their largest one."""
    scale = scale_of(output)
    if rounding is None:
        return precision.unproven * scale
    shares = [share for share in relative if share is not None]
    least = precision.units * max(precision.epsilon * scale, precision.smallest)
    return max(least, FACTOR * rounding, FACTOR * max(shares, default=0.0) * scale)
