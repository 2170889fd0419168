"""Merges sequences with common parts into a short sequence that contains each of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence


def overlaid(sequences: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """A sequence that has all of ``sequences`` in it, and where each begins; an item weighs what it has characters.

    To find the shortest is NP-hard. Those that share most are joined first, which shares at least half of what can be
    shared (Tarhio and Ukkonen, A greedy approximation algorithm for constructing shortest common superstrings, 1988).
    """
    # As strings of one character an item, to be searched at the speed of C.
    characters: dict[str, str] = {}
    strings = ["".join(characters.setdefault(item, chr(len(characters))) for item in each) for each in sequences]
    items = {character: item for item, character in characters.items()}
    whole = "".join(_joined(_not_within_another(strings), items))
    return [items[character] for character in whole], [whole.index(string) for string in strings]


def _not_within_another(strings: list[str]) -> list[str]:
    kept: list[str] = []
    for string in sorted(dict.fromkeys(strings), key=len, reverse=True):
        if string and not any(string in longer for longer in kept):
            kept.append(string)
    return kept


def _joined(strings: list[str], items: dict[str, str]) -> Iterator[str]:
    """The strings in chains, each without what the one before it ends with."""
    follower: dict[int, tuple[int, int]] = {}
    first_of, last_of = list(range(len(strings))), list(range(len(strings)))  # of a chain, by its other end
    preceded = set()
    for _, left, right, shared in sorted(_overlaps(strings, items), reverse=True):
        if left in follower or right in preceded or first_of[left] == right:
            continue
        follower[left] = right, shared
        preceded.add(right)
        first, last = first_of[left], last_of[right]
        first_of[last], last_of[first] = first, last
    for index in range(len(strings)):
        if index in preceded:
            continue
        yield strings[index]
        while index in follower:
            index, shared = follower[index]
            yield strings[index][shared:]


def _overlaps(strings: list[str], items: dict[str, str]) -> Iterator[tuple[int, int, int, int]]:
    """The weight of what one string ends with and another begins with, their numbers, and how many items that are."""
    holders = defaultdict(list)
    for number, string in enumerate(strings):
        for character in set(string):
            holders[character].append(number)
    for right, string in enumerate(strings):
        for left in holders[string[0]]:
            if left != right and (shared := _shared(strings[left], string)):
                yield sum(len(items[character]) for character in string[:shared]), left, right, shared


def _shared(left: str, right: str) -> int:
    start = left.find(right[0], 1)
    while start >= 0:
        if right.startswith(left[start:]):
            return len(left) - start
        start = left.find(right[0], start + 1)
    return 0
