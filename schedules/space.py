"""Primitives shared by the templates.

A search space is data: a name, its candidates, and a pure test of which ones are legal for a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def divisors(extent: int, limit: int) -> list[int]:
    """Divisors of ``extent`` up to ``limit``, ascending."""
    return [d for d in range(1, min(extent, limit) + 1) if extent % d == 0]


def points(sch, variants: Sequence, template: Callable, *context) -> Iterator:
    """A copy of ``sch`` by each variant, its knobs drawn at random."""
    for variant in variants:
        copy = sch.copy()
        template(copy, *context, variant)
        yield copy


def choose(sch, candidates: Sequence[int]):
    """Sample one of ``candidates``, best guess first, as a knob of the schedule's trace.

    The result is a random variable, so pass it on to schedule primitives: a trace is replayed with other decisions, and
    a value read in Python would be frozen into it. What Python must branch on belongs into a variant of the space.
    """
    return sch.sample_categorical(list(candidates), [1.0 / len(candidates)] * len(candidates))


def unroll_vectors(sch, *loops) -> None:
    """Straight-line code for ``loops``, from the outside in: the last becomes one vector, the others copies of it."""
    *copies, lane = loops
    for loop in copies:
        sch.unroll(loop)
    sch.vectorize(lane)


def partition(sch, *loops) -> None:
    """Have LoopPartition cut these loops where a test in them changes its outcome."""
    for loop in loops:
        sch.annotate(loop, "pragma_loop_partition_hint", 1)
