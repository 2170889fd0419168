"""Which stretches of what a core ran are worth simulating, of all that the counting plugin remembers.

What a block costs depends on what ran before it. So the unit is a step, from one block to the next, and its cost is the
mean over those of its runs that are simulated. Of every step the plugin keeps one stretch that led to it: a sample of
the run, in which other steps are seen as well. Simulating all of these would be slow and tell most things twice.

They are chosen as in a survey. A step that was simulated for ``n`` instructions is known with a variance of GRAIN/n,
one that was not, and is taken for average, with one of UNSEEN; a step counts with its share of the executed
instructions. The stretch comes next that lowers the mean variance most for each instruction to be simulated, until the
mean is 1: then every step is known as well as by GRAIN of its instructions.
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
GRAIN = 64
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
    samples: list[Sample] = []
    variance = UNSEEN
    while queue and variance > 1:
        _, order = heapq.heappop(queue)
        part = stretches[order].best_part(weights, known)  # others may have shown since what it shows
        if queue and -part.rate > queue[0][0]:
            heapq.heappush(queue, (-part.rate, order))
            continue
        samples.append(stretches[order].sample(part.first))
        for run in stretches[order].runs_from(part.first):
            known[run.number] += run.length / GRAIN
        variance -= part.gain
    return samples


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
    """The end of a stretch, from the block at ``first``: what it takes off the variance, in all and by instruction."""

    rate: float
    gain: float
    first: int


class _Run(NamedTuple):
    """A step in a stretch. If a part ``begins`` there, as it may or may not, so many ``instructions`` are simulated."""

    index: int
    number: int
    length: int
    instructions: int
    begins: bool


class _Stretch:
    """A step and what ran before it, of which a part is simulated.

    Steps inside should be seen in their true proportions, wherever the plugin took its snapshot. So a part begins with
    a step as rare as the rarest in it, never in the middle of a loop; and it ends with the rarest step that recurs, if
    the stretch is long enough to hold whole periods.
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
        ran = ran[: _whole_periods([number for _, number in ran], survey.counts)]
        self._window = window[: ran[-1][0] + 1]
        length = before[len(self._window)] + self._settled
        rarest = [*itertools.accumulate((survey.counts[number] for _, number in reversed(ran)), min)][::-1]
        self._runs = [
            _Run(index, number, len(window[index]), length - before[index], survey.counts[number] <= AS_RARE * least)
            for (index, number), least in zip(ran, rarest, strict=True)
        ]

    def best_part(self, weights: Sequence[float], known: Sequence[float]) -> _Part:
        """By what is ``known`` of each step, the reciprocal of its variance."""
        gain, here, best = 0.0, {}, _Part(0.0, 0.0, len(self._window) - 1)
        for index, number, length, instructions, begins in reversed(self._runs):
            before = here.get(number) or known[number]
            here[number] = after = before + length / GRAIN
            gain += weights[number] * (1 / before - 1 / after)
            if begins and gain > best.rate * instructions:
                best = _Part(gain / instructions, gain, index)
        return best

    def runs_from(self, first: int) -> list[_Run]:
        return [run for run in self._runs if run.index >= first]

    def sample(self, first: int) -> Sample:
        lead = len(_last_blocks(self._window[:first], self._settled))
        return Sample(self._window[first - lead :], tuple(run.index - first + lead for run in self.runs_from(first)))


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
