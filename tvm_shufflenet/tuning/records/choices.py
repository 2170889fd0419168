"""Which records a network is built with after its own latency has decided; kept beside the records.

What is fastest by itself is not always fastest in the network, where other operators have left other lines in the
caches. ``choices.jsonl`` has a line for each decision; the last one counts of a network, clock and number of threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from ...support.toolchain import TVM_VERSION
from .folder import Skipped
from .journal import Damaged, Setting, checksum, parse
from .lines import Stream, append_line
from .matching import same_version

CHOICES = "choices.jsonl"
SCHEMA = 1


class Choice(msgspec.Struct, frozen=True):
    """A decision. Workloads and traces are hashes, as in the journal.

    ``chosen`` names the record of each workload, by its trace, and ``fastest`` what was fastest by itself then: where
    that is another one now, the decision no longer says anything of the workload. With ``shipped`` the whole network
    is built as if the folder had no records. ``network_us`` is what an inference took, and in ``shipped_us`` by what
    is shipped alone.
    """

    network: str
    clock: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    chosen: dict[str, str]
    fastest: dict[str, str]
    shipped: bool
    network_us: float
    shipped_us: float
    target: str = ""
    tvm: str = ""

    @property
    def setting(self) -> Setting:
        return Setting(self.clock, self.threads)


def network_hash(operators: Iterable[tuple[str, int]]) -> str:
    """Of the workloads of a network and how often each occurs, in any order."""
    return hashlib.sha256(json.dumps(sorted(operators)).encode()).hexdigest()[:16]


class Choices:
    """The decisions of one folder for one target, made with this TVM; ``skipped`` are lines that could not be used."""

    def __init__(self, folder: Path, target: str):
        self._folder, self._target = folder, target
        self._found: dict[tuple[str, Setting], Choice] = {}
        self.skipped: list[Skipped] = []
        for number, choice in read_choices(folder):
            if isinstance(choice, str):
                self.skipped.append(Skipped(CHOICES, number, choice))
            elif choice.target == target and same_version(choice.tvm):
                self._found[choice.network, choice.setting] = choice

    def of(self, network: str, setting: Setting) -> Choice | None:
        return self._found.get((network, setting))

    def write(self, choice: Choice) -> None:
        """Under the folder's lock; on disk when this returns. Raises BadInput."""
        choice = msgspec.structs.replace(choice, target=self._target, tvm=TVM_VERSION)
        write_choice(self._folder, choice)
        self._found[choice.network, choice.setting] = choice


def write_choice(folder: Path, choice: Choice) -> None:
    """Append a line, under the folder's lock. Raises BadInput."""
    value = {"schema": SCHEMA, **msgspec.to_builtins(choice)}
    append_line(folder / CHOICES, json.dumps(value | {"crc32": checksum(value)}, separators=(",", ":")).encode())


def read_choices(folder: Path) -> Iterator[tuple[int, Choice | str]]:
    """Number and content of each line, or what is wrong with it."""
    for line in Stream(folder / CHOICES).fresh():
        try:
            yield line.number, _choice(line.data)
        except (Damaged, msgspec.ValidationError) as exc:
            yield line.number, str(exc)


def _choice(data: bytes | None) -> Choice:
    value = parse(data)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise Damaged("not a choice, or written by a newer version")
    if value.pop("crc32", None) != checksum(value):
        raise Damaged("its checksum is another: damaged, or edited by hand")
    return msgspec.convert(value, Choice)
