"""What of a run is simulated: enough of every step, in its true proportions, and no more."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tvm_shufflenet.clock.counts import Arrival, Block, Counts
from tvm_shufflenet.clock.sampling import LONGEST, Sample, samples_of, step_at, steps_of

HISTORY, EDGES, SETTLED = 64, 6, 100


def code(name: int, length: int) -> tuple[int, ...]:
    return (name,) * length


def counted(trace: list[tuple[int, ...]]) -> Counts:
    """What the plugin writes down of a run."""
    edges: dict[tuple, dict[tuple, list]] = {}
    for index, after in enumerate(trace):
        kept = edges.setdefault(after, {})
        before = trace[index - 1] if index else ()
        if before in kept or len(kept) < EDGES:
            edge = kept.setdefault(before, [0, ()])
            edge[0] += 1
            if edge[0] & (edge[0] - 1) == 0:
                edge[1] = tuple(trace[max(0, index - HISTORY) : index])
    arrivals = tuple(Arrival(after, *edge) for after, kept in edges.items() for edge in kept.values())
    return Counts(1, tuple(Block(code, count) for code, count in Counter(trace).items()), arrivals)


def sampled(trace: list[tuple[int, ...]]) -> list[Sample]:
    return samples_of(*steps_of(counted(trace)), SETTLED)


def learned(samples: list[Sample]) -> Counter:
    """How often each step is seen."""
    return Counter(step_at(sample.window, index) for sample in samples for index in sample.indices)


A, B, C, D = code(1, 10), code(2, 30), code(3, 7), code(4, 50)


def test_every_step_is_seen_and_most_of_the_run_is_not_simulated():
    trace = [A, B, C, C, D] * 1000
    samples = sampled(trace)
    assert set(learned(samples)) == {(A, B), (B, C), (C, C), (C, D), (D, A)}
    assert sum(len(code) for sample in samples for code in sample.window) < sum(map(len, trace)) / 100


def test_the_pipeline_is_full_before_the_first_step_that_counts():
    for sample in sampled([A, B, C, C, D] * 1000 + [B] * 3000):
        assert sum(map(len, sample.window[: sample.indices[0]])) >= SETTLED


@pytest.mark.parametrize("cut", range(6))
def test_a_short_loop_is_seen_in_whole_rounds(cut):
    """Wherever in a round the last snapshot was taken."""
    round_ = [A, C, C, C, C, C]
    trace = round_ * 700 + round_[:cut]
    seen = learned(sampled(trace))
    assert seen[C, C] == pytest.approx(4 * seen[A, C], rel=0.15)


def test_a_loop_longer_than_a_stretch_is_simulated_as_nothing_but_itself():
    """Its first passes, of which the only snapshot may be, are not what most of it is like."""
    passes = 4 * LONGEST // len(B)
    trace = ([A, *[B] * passes]) * 2
    (looped,) = [sample for sample in sampled(trace) if (B, B) in learned([sample])]
    assert set(looped.window) == {B}


def test_a_part_never_begins_in_the_middle_of_a_loop():
    """The last passes of a loop are not what its passes cost."""
    trace = [D, *[C] * 19, A] * 500
    for sample in sampled(trace):
        first = step_at(sample.window, sample.indices[0])
        assert first != (C, C) or set(sample.window) == {C}


@settings(max_examples=200, deadline=None)
@example([(1, 3), (7, 8)], 3, 0)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=6),
    st.integers(2, 60),
    st.integers(0, 3),
)
def test_of_any_loop_nest_what_matters_is_seen_where_it_ran(loops, rounds, inner):
    trace: list[tuple[int, ...]] = []
    for turn in range(rounds):
        for name, (length, passes) in enumerate(loops):
            trace += [code(name, length)] * (passes if name != inner else 1 + turn % passes)
    samples = sampled(trace)
    steps, histories = steps_of(counted(trace))
    executed = sum(count * len(after) for (_, after), count in steps.items())
    real = {tuple(trace[index : index + 2]) for index in range(len(trace) - 1)}
    for sample in samples:
        assert sample.indices == tuple(sorted(set(sample.indices))) and sample.indices[-1] == len(sample.window) - 1
        assert all(pair in real for pair in zip(sample.window, sample.window[1:], strict=False))
    unseen = sum(steps[step] * len(step[1]) for step in steps.keys() - learned(samples).keys())
    assert unseen <= 0.1 * executed
    assert samples == samples_of(steps, histories, SETTLED)
