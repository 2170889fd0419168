"""Sequences laid over each other."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tvm_shufflenet.clock.overlaps import overlaid

ITEMS = st.sampled_from(["a", "bb", "ccc", ""])


@given(st.lists(st.lists(ITEMS, max_size=12), max_size=8))
def test_every_sequence_is_where_it_is_said_to_be(sequences):
    whole, starts = overlaid(sequences)
    assert [whole[start : start + len(each)] for start, each in zip(starts, sequences, strict=True)] == sequences
    assert len(whole) <= sum(map(len, sequences))
    assert set(whole) == {item for each in sequences for item in each}


@given(st.lists(ITEMS, min_size=1, max_size=12, unique=True), st.data())
def test_stretches_of_one_sequence_become_that_sequence(sequence, data):
    """Where nothing recurs and each shares an item with the next, there is one way to lay them."""
    edges = sorted({0, len(sequence) - 1, *data.draw(st.lists(st.integers(0, len(sequence) - 1)))})
    stretches = [sequence[first : last + 1] for first, last in itertools.pairwise(edges)] or [sequence]
    whole, _ = overlaid(data.draw(st.permutations(stretches)))
    assert whole == sequence


def test_the_heavier_overlap_is_shared():
    heavy = "x" * 100
    whole, starts = overlaid([["a", heavy], ["b", "c", "a"], [heavy, "b", "c"]])
    assert whole == ["a", heavy, "b", "c", "a"]
    assert starts == [0, 2, 1]
