"""Finds the state dict in a checkpoint, and removes wrappers' prefixes from its names.

Training loops save a state dict among other things, or several: averaged weights beside the last ones. Wrappers
(DataParallel, torch.compile, Lightning, moving averages) put a prefix before every name. Which of the states and
spellings is meant is for the network to say: the one that has the most of its names. Between equals decides the order
here: averaged weights first, as evaluated and published, then by ``CONTAINERS``, then as they stand in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

# Keys under which training loops keep a network, in order of preference.
CONTAINERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network", "module", "params",
    "weights",
)  # fmt: skip
AVERAGED = re.compile(r"(?<![a-z])(ema|swa|averaged?)(?![a-z])")  # in a key: a moving average of the weights
NO_NETWORK = ("optim", "sched", "scaler", "amp", "criterion", "loss")  # in a key: never a network
# What wrappers put before every name; and those that also stand within names, where a part of a network was wrapped.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema_model.", "online_model.", "ema.", "backbone.")
ANYWHERE = ("module", "_orig_mod")
MOST_DEPTH, MOST_DICTS, MOST_STATES, MOST_PREFIXES = 6, 256, 32, 6


@dataclass(frozen=True)
class State:
    """Tensors by name, and the ``keys`` that lead to them in the file: none at its top."""

    keys: tuple[str, ...]
    tensors: dict[str, object]

    @property
    def label(self) -> str:
        return ".".join(self.keys) or "the top of the file"

    @property
    def averaged(self) -> bool:
        return any(AVERAGED.search(key.lower()) for key in self.keys)


def states_in(loaded: dict) -> list[State]:
    """Every state in a loaded checkpoint, the preferred first, each under every spelling of its names."""
    found = sorted(_states(loaded), key=_rank)[:MOST_STATES]
    return [spelling for state in found or [State((), _named(loaded))] for spelling in _spellings(state)]


def _states(loaded: dict) -> Iterator[State]:
    """The dicts in it that hold tensors, each once: a hostile file may refer to itself."""
    pending, seen = [State((), loaded)], set()
    while pending and len(seen) < MOST_DICTS:
        state = pending.pop(0)
        if id(state.tensors) in seen:
            continue
        seen.add(id(state.tensors))
        if any(isinstance(value, torch.Tensor) for value in state.tensors.values()):
            yield replace(state, tensors=_named(state.tensors))
        if len(state.keys) < MOST_DEPTH:
            pending += [
                State((*state.keys, key), value)
                for key, value in state.tensors.items()
                if isinstance(key, str) and isinstance(value, dict) and not _foreign(key)
            ]


def _foreign(key: str) -> bool:
    return any(word in key.lower() for word in NO_NETWORK)


def _named(tensors: dict) -> dict[str, object]:
    return {str(name): value for name, value in tensors.items()}


def _rank(state: State) -> tuple[bool, int]:
    known = [CONTAINERS.index(key) for key in state.keys if key in CONTAINERS]
    behind = len(CONTAINERS) + bool(state.keys)  # the top of the file, then unknown keys
    return not state.averaged, min(known, default=behind)


def _spellings(state: State) -> list[State]:
    """The state as it is, then with fewer and fewer prefixes."""
    found, current = [state.tensors], [state.tensors]
    for _ in range(MOST_PREFIXES):
        shorter = [names for tensors in current for names in _shorter(tensors)]
        current = [names for names in shorter if all(names.keys() != known.keys() for known in found)]
        found += current[:MOST_STATES]
        if not current or len(found) > MOST_STATES:
            break
    return [replace(state, tensors=tensors) for tensors in found]


def _shorter(tensors: dict[str, object]) -> Iterator[dict[str, object]]:
    """Without the wrappers' parts of names wherever they stand; without each of the prefixes."""
    parts = {name: ".".join(part for part in name.split(".") if part not in ANYWHERE) for name in tensors}
    if len(set(parts.values())) == len(parts) and any(name != part for name, part in parts.items()):
        yield {parts[name]: value for name, value in tensors.items()}
    for prefix in PREFIXES:
        inside = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
        beside = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
        if inside and all(name.startswith(PREFIXES) or _counts(value) for name, value in beside.items()):
            yield inside


def _counts(value: object) -> bool:
    """Whether it is a counter of a wrapper's, such as AveragedModel's n_averaged."""
    return isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.ndim == 0)
