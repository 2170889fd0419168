"""PyTorch's answers to the probes, and how far a right library may be off them.

What is allowed follows from the network itself, for each output. Its answer is computed twice: in float32, and in
float64 with every operator's result off by float32's rounding (models/float64.py). Their difference is one that
rounding explains, and a library that sums in another order has another such difference. It may be ``FACTOR`` times as
large, since the largest of many differences is compared with the largest of others. A network that rounding hardly
touches may still be off by ``UNITS`` roundings of its largest output: batch norms are folded into weights, and sums of
thousands of products go in another order. There is no absolute floor: outputs of 1e-5 are compared as those of 10 are.

Zeros and denormal numbers are taken for known to ``KNOWN`` of the reference input only: a norm over equal numbers
divides what is left of them by nothing, and PyTorch's exact zero there is luck.

Where PyTorch's float32 and float64 differ in what is NaN or infinite, the probe is left out: rounding decides there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..precision import FLOAT32
from ..support.activity import doing
from .probes import INFINITE, NAN, OTHER, PROBES, QUIET, REFERENCE, probe

if TYPE_CHECKING:
    from ..models import Model

EPSILON, SMALLEST = FLOAT32.epsilon, FLOAT32.smallest
UNITS = 64
FACTOR = 8
# Where the network does not run in float64: 1e-4 of the largest output, ten times what fifty layers were seen to round.
WITHOUT_FLOAT64 = 1e-4
AMPLIFIES = 1e-4  # a share of the largest output that rounding moves: beyond it, fewer than four digits are left
KNOWN = 2.0**-16
TELLING = 100  # so many times the tolerance must two inputs' answers differ


@dataclass(frozen=True)
class Answer:
    """What PyTorch computes for the input ``probe``, and the largest difference that passes."""

    probe: str
    expected: np.ndarray
    tolerance: float


@dataclass(frozen=True)
class Answers:
    """PyTorch's answers, that to the reference input first. ``rounding`` is the largest difference of its float32 from
    its float64 for that input, None where the network does not run in float64; ``sensitivity`` the largest difference
    between its answers to two ordinary inputs, None where it has no second one."""

    each: tuple[Answer, ...]
    rounding: float | None = None
    sensitivity: float | None = None

    @property
    def reference(self) -> Answer:
        return self.each[0]

    @property
    def tolerance(self) -> float:
        return self.reference.tolerance

    @property
    def scale(self) -> float:
        return scale_of(self.reference.expected)

    @property
    def note(self) -> str | None:
        """What a reader of the tolerance should know, None for an ordinary network."""
        return rounding_note(self.rounding, self.scale)

    @property
    def blind(self) -> str | None:
        """Why agreement proves nothing; None where it does."""
        return blindness(self.sensitivity, max(self._ordinary_tolerances()))

    def spoilt(self, name: str) -> np.ndarray | None:
        """Where a NaN on one side says nothing in the answer to that probe: what infinity reaches, since infinity less
        infinity may come of one order of operations and not of another."""
        found = [answer.expected for answer in self.each if answer.probe == NAN] if name == INFINITE else []
        return np.isnan(found[0]) if found else None

    def _ordinary_tolerances(self) -> list[float]:
        return [answer.tolerance for answer in self.each if answer.probe in (REFERENCE, OTHER)]


def rounding_note(rounding: float | None, scale: float) -> str | None:
    """What a network does to rounding, in words, if that is much: ``rounding`` moves outputs up to ``scale``."""
    if rounding is None:
        return f"the network does not run in float64, so {WITHOUT_FLOAT64:g} of its largest output is allowed"
    if rounding <= AMPLIFIES * scale:
        return None
    return f"the network amplifies rounding: PyTorch's own float32 is {rounding:.2g} from its float64"


def blindness(sensitivity: float | None, tolerance: float) -> str | None:
    """Why a network's answers cannot tell a right library from one that ignores its input; None where they can."""
    if sensitivity is None:
        return "PyTorch has an answer to one input only, which a library that ignores its input could return"
    if sensitivity >= TELLING * tolerance and sensitivity > 0:
        return None
    return (
        f"PyTorch's answers to two inputs differ by {sensitivity:.2g}, less than {TELLING} times the {tolerance:.2g} "
        "allowed, so a library that ignores its input could pass"
    )


@doing("asking PyTorch, in float32 and float64")
def answers_of(model: Model, data: np.ndarray, reference: np.ndarray) -> Answers:
    """What PyTorch answers to the probes that ``data`` makes; ``reference`` is its answer to ``data`` itself."""
    found = {name: _both(model, probe(name, data), data * np.float32(KNOWN * (name in QUIET))) for name in PROBES}
    found = {name: pair for name, pair in found.items() if name == REFERENCE or _defined(*pair)}
    roundings = {name: _difference(*pair) for name, pair in found.items()}
    relative = [_share(roundings[name], found[name][0]) for name in (REFERENCE, OTHER) if name in found]
    each = []
    for name, (single, _) in found.items():
        expected = reference if name == REFERENCE else single
        each.append(Answer(name, expected, tolerance_of(single, roundings[name], relative)))
    other = found.get(OTHER)
    sensitivity = None if other is None else _difference(found[REFERENCE][0], other[0])
    return Answers(tuple(each), roundings[REFERENCE], sensitivity)


def _both(model: Model, data: np.ndarray, off: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The answer in float32 and, to an input that is so much ``off``, in float64; None for one that there is not."""
    try:
        single, double = model(data), model.in_float64(data + off)
        return single, double if double is not None and double.shape == single.shape else None
    except Exception:  # whatever a network's own code raises on a NaN
        return None, None


def _defined(single: np.ndarray | None, double: np.ndarray | None) -> bool:
    """Whether rounding does not decide what is NaN or infinite in the answer."""
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


def tolerance_of(output: np.ndarray, rounding: float | None, relative: Sequence[float | None] = ()) -> float:
    """How far off ``output`` a right library may be, where rounding moves it by ``rounding``, and the outputs for
    ordinary inputs by these ``relative`` shares of their largest one."""
    scale = scale_of(output)
    if rounding is None:
        return WITHOUT_FLOAT64 * scale
    shares = [share for share in relative if share is not None]
    return max(UNITS * max(EPSILON * scale, SMALLEST), FACTOR * rounding, FACTOR * max(shares, default=0.0) * scale)
