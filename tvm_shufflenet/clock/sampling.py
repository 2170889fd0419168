"""Selects which parts of the executed code to simulate, from the sequences that the counting plugin recorded.

What a block costs depends on what ran before it. So the unit is a step, from one block to the next, and its cost is the
mean over those of its runs that are simulated. Of every step the plugin keeps one stretch that led to it: a sample of
the run, in which other steps are seen as well. Simulating all of these would be slow and tell most things twice.

They are chosen as in a survey. A step that was simulated for ``n`` instructions is known with a variance of GRAIN/n,
one that was not, and is taken for average, with one of UNSEEN; a step counts with its share of the executed
instructions. The part of a stretch comes next that lowers the mean variance most for each instruction to be simulated,
until the mean is 1: then every step is known as well as by GRAIN of its instructions.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .counts import Code, Counts

COVERAGE = 0.98  # the hottest steps up to this share of executed instructions are surveyed
LONGEST = 640  # instructions of a stretch, at most
UNSEEN = 16.0
GRAIN = 80
AS_RARE = 1.15  # steps whose frequencies differ by less run once for each other

Step = tuple[Code, Code]  # a block (empty: unknown) and the one that ran after it
Window = tuple[Code, ...]


@dataclass(frozen=True)
class Sample:
    """A sequence to simulate, and where in it are steps to learn from."""

    window: Window
    indices: tuple[int, ...]


def steps_of(counts: Counts) -> tuple[dict[Step, float], dict[Step, Window]]:
    """How often each block followed each other, and what ran before on one such occasion.

    The plugin keeps the first few predecessors of a block; what arrived from others is spread over these.
    """
    executed, arrived = Counter(), Counter()
    for block in counts.blocks:
        executed[block.code] += block.count  # translated twice or loaded elsewhere, it is the same code
    for arrival in counts.arrivals:
        arrived[arrival.code] += arrival.count
    steps: dict[Step, float] = defaultdict(float)
    best: dict[Step, tuple[int, Window]] = {}
    for arrival in counts.arrivals:
        step = (arrival.history[-1] if arrival.history else (), arrival.code)
        steps[step] += arrival.count * executed[arrival.code] / arrived[arrival.code]
        if step not in best or arrival.count > best[step][0]:
            best[step] = arrival.count, arrival.history
    for code, count in executed.items():
        if code not in arrived:
            steps[(), code] += count
            best[(), code] = count, ()
    return dict(steps), {step: history for step, (_, history) in best.items()}


def step_at(window: Window, index: int) -> Step:
    return (window[index - 1] if index else ()), window[index]


def samples_of(steps: Mapping[Step, float], histories: Mapping[Step, Window], settled: int) -> list[Sample]:
    """What to simulate of a run with such ``steps``: sequences that begin ``settled`` instructions before the first
    step to learn from.
    """
    shares = _hottest(steps)
    survey = _Survey({step: number for number, step in enumerate(shares)}, [steps[step] for step in shares], settled)
    stretches = [_Stretch(window, survey) for window in _windows(shares, steps, histories)]
    weights, known = list(shares.values()), [1 / UNSEEN] * len(shares)
    queue = [(-stretch.best_part(weights, known).rate, order) for order, stretch in enumerate(stretches)]
    heapq.heapify(queue)
    variance = UNSEEN
    while queue and variance > 1:
        _, order = heapq.heappop(queue)
        part = stretches[order].best_part(weights, known)  # others may have shown since what it shows
        if queue and -part.rate > queue[0][0]:
            heapq.heappush(queue, (-part.rate, order))
            continue
        if part.gain == 0:
            break
        for run in stretches[order].take(part.first):
            known[run.number] += run.length / GRAIN
        variance -= part.gain
        heapq.heappush(queue, (-stretches[order].best_part(weights, known).rate, order))
    return [stretch.sample() for stretch in stretches if stretch.taken]


def _windows(shares: Iterable[Step], steps: Mapping[Step, float], histories: Mapping[Step, Window]) -> list[Window]:
    """What led to each step, and the step. A loop that goes on for longer than that is simulated as nothing but itself:
    the plugin may have seen its first passes alone.
    """
    entered: Counter[Code] = Counter()
    for (before, after), count in steps.items():
        entered[after] += 0 if before == after else count
    windows = []
    for before, code in shares:
        history = _last_blocks(histories[before, code], LONGEST)
        if before == code and steps[before, code] * len(code) > LONGEST * entered[code]:
            history = (code,) * (LONGEST // len(code) + 1)
        windows.append((*history, code))
    return windows


class _Survey(NamedTuple):
    """The steps to learn about by their numbers, for code is slow to hash, and how often each ran."""

    numbers: Mapping[Step, int]
    counts: Sequence[float]
    settled: int


class _Part(NamedTuple):
    """A stretch from its ``first`` run on, as far as that is not taken yet: what it takes off the mean variance, in all
    and by instruction to be simulated.
    """

    rate: float
    gain: float
    first: int


class _Run(NamedTuple):
    """A step in a stretch. What is taken may or may not begin there; if so, that is so many ``instructions``."""

    index: int
    number: int
    length: int
    instructions: int
    begins: bool


class _Stretch:
    """A step and what ran before it, of which the end is taken to be simulated, as much as tells enough for its price.

    Steps inside should be seen in their true proportions, wherever the plugin took its snapshot. So what is taken
    begins with a step as rare as the rarest in it, never in the middle of a loop; and it ends with the rarest step that
    recurs, if the stretch is long enough to hold whole periods.
    """

    def __init__(self, window: Window, survey: _Survey):
        self._settled = survey.settled
        before = list(itertools.accumulate(map(len, window), initial=0))
        filled = next((index for index, count in enumerate(before) if count >= self._settled), len(window))
        ran = [
            (index, number)
            for index in range(min(filled, len(window) - 1), len(window))
            if (number := survey.numbers.get(step_at(window, index))) is not None
        ]
        own = ran[-1][1]
        ran = ran[: _whole_periods([number for _, number in ran], survey.counts)]
        self._window = window[: ran[-1][0] + 1]
        length = before[len(self._window)] + self._settled
        rarest = [*itertools.accumulate((survey.counts[number] for _, number in reversed(ran)), min)][::-1]
        begins = [survey.counts[number] <= AS_RARE * least for (_, number), least in zip(ran, rarest, strict=True)]
        if own not in (number for _, number in ran[begins.index(True) :]):
            begins = [True] * len(ran)  # better a part of a period than nothing
        self._runs = [
            _Run(index, number, len(window[index]), length - before[index], may)
            for (index, number), may in zip(ran, begins, strict=True)
        ]
        self._first, self._paid = len(self._runs), 0

    def best_part(self, weights: Sequence[float], known: Sequence[float]) -> _Part:
        """What to take next, by what is ``known`` of each step: the reciprocal of its variance. What fills the pipeline
        before it is paid for once."""
        gain, here, best = 0.0, {}, _Part(0.0, 0.0, self._first)
        for place in range(self._first - 1, -1, -1):
            _, number, length, instructions, begins = self._runs[place]
            before = here.get(number) or known[number]
            here[number] = after = before + length / GRAIN
            gain += weights[number] * (1 / before - 1 / after)
            if begins and gain > best.rate * (instructions - self._paid):
                best = _Part(gain / (instructions - self._paid), gain, place)
        return best

    @property
    def taken(self) -> bool:
        return self._first < len(self._runs)

    def take(self, first: int) -> list[_Run]:
        """The runs that this adds."""
        fresh = self._runs[first : self._first]
        self._first, self._paid = first, self._runs[first].instructions
        return fresh

    def sample(self) -> Sample:
        first = self._runs[self._first].index
        lead = len(_last_blocks(self._window[:first], self._settled))
        indices = tuple(run.index - first + lead for run in self._runs[self._first :])
        return Sample(self._window[first - lead :], indices)


def _whole_periods(ran: Sequence[int], counts: Sequence[float]) -> int:
    """How many of these steps there are up to the rarest that recurs; all, where the last step is not among them."""
    times = Counter(ran)
    recurring = [number for number in times if times[number] > 1]
    if not recurring:
        return len(ran)
    rarest = min(recurring, key=lambda number: (counts[number], number))
    end = len(ran) - ran[::-1].index(rarest)
    return end if ran[-1] in ran[:end] else len(ran)


def _hottest(steps: Mapping[Step, float]) -> dict[Step, float]:
    """The hottest steps, and the share of each in what they execute together."""
    executed = {step: count * len(step[1]) for step, count in steps.items()}
    total, hot, covered = sum(executed.values()), [], 0.0
    for step in sorted(steps, key=lambda step: (-executed[step], step)):
        if covered >= COVERAGE * total:
            break
        hot.append(step)
        covered += executed[step]
    return {step: executed[step] / covered for step in hot}


def _last_blocks(history: Window, instructions: int) -> Window:
    """The last blocks of a history, until they hold so many instructions."""
    for first in range(len(history) - 1, -1, -1):
        instructions -= len(history[first])
        if instructions <= 0:
            return history[first:]
    return history
