"""The cycles that a core takes for executed code, from llvm-mca's timelines.

A block costs what it adds to the time of what ran before it: the pipeline is still full then, and its own end is hidden
by what follows. So stretches of blocks are written out in the order in which they ran (sampling.py chooses them),
llvm-mca simulates each once, and a block's cost is the time between the end of its predecessor and its own end.
Loop-carried latencies are there because the loop's iterations are; a block that is passed once has none. Sums of such
costs telescope to the time of the whole run.

The end of a block is where its last instruction retires; on an in-order core, where it is issued.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path

from ..hardware.cores import Core
from ..support import toolchain
from ..support.block_cache import BlockCache
from . import disassembly, mca
from .counts import Code, Counts
from .disassembly import texts_of
from .instructions import alike
from .mca import Mca, Moments
from .sampling import Step, Window, samples_of, step_at

MARGIN = 32  # a sequence has settled this many instructions after the pipeline has filled once

# llvm-mca's in-order cores hold a nop back until all that was issued before has finished; the cores do not.
NOP, PLAIN = "nop", "mov\txzr, xzr"


class Pipeline:
    """Core cycles on one core; threads may share it. llvm-mca runs once a call at most."""

    def __init__(self, core: Core, cache: BlockCache):
        self.core = core
        self.mca = Mca(core)
        self._llvm_mc = toolchain.require(toolchain.find_llvm_mc())
        self._cache = cache
        self._texts: dict[int, str | None] = {}

    def cycles(self, steps: dict[Step, float], histories: dict[Step, Window]) -> dict[Code, float]:
        """Cycles by block, all its runs together, of what ``steps_of`` gives.

        Raises DeviceFailed where llvm-mca fails.
        """
        samples = samples_of(steps, histories, self.core.in_flight + MARGIN)
        ends = self.ends([sample.window for sample in samples])
        added: dict[Step, list[int]] = defaultdict(list)
        for sample in samples:
            moments = (0, *ends[sample.window])
            for index in sample.indices:
                added[step_at(sample.window, index)].append(moments[index + 1] - moments[index])
        cost = {step: sum(moments) / len(moments) for step, moments in added.items()}
        priced = sum(steps[step] * len(step[1]) for step in cost)
        average = sum(steps[step] * cost[step] for step in cost) / priced
        cycles: dict[Code, float] = defaultdict(float)
        for step, count in steps.items():
            cycles[step[1]] += count * cost.get(step, average * len(step[1]))
        return dict(cycles)

    def unmodelled(self, counts: Counts) -> int:
        """Executed instructions that llvm-mca does not know, among those that ``cycles`` has simulated."""
        unknown = {word for word, text in list(self._texts.items()) if text is None}  # other threads add to them
        if not unknown:
            return 0
        return sum(block.count * sum(word in unknown for word in alike(block.code)) for block in counts.blocks)

    # llvm-mca

    def ends(self, windows: Sequence[Window]) -> dict[Window, tuple[int, ...]]:
        """When each block of each sequence ends."""
        plain = {window: tuple(map(alike, window)) for window in windows}
        found = self._ends(dict.fromkeys(plain.values()))
        return {window: found[same] for window, same in plain.items()}

    def _ends(self, windows: Iterable[Window]) -> dict[Window, tuple[int, ...]]:
        """From disk, else from one run over all missing: a device that serves for days prices so many that they are not
        kept in memory.
        """
        keys = {window: self._key(window) for window in windows}
        values = self._cache.get_many([*keys.values()])
        ends = {window: _unpacked(values[key]) for window, key in keys.items() if key in values}
        self._disassemble({word for window in keys for code in window for word in code})
        missing = [window for window in keys if window not in ends]
        if missing:
            fresh = dict(zip(missing, self._run_mca(missing), strict=True))
            ends.update(fresh)
            self._cache.put((keys[window], _packed(moments)) for window, moments in fresh.items())
        return ends

    def _key(self, window: Window) -> bytes:
        return self._key_of(b"window", [word for code in window for word in (len(code), *code)])

    def _key_of(self, kind: bytes, words: Sequence[int]) -> bytes:
        return hashlib.sha256(self._identity + kind + _packed(words)).digest()[:16]

    @functools.cached_property
    def _identity(self) -> bytes:
        """What a timeline depends on beside the code: these modules, the core's model, llvm-mca's version."""
        modules = hashlib.sha256(
            b"".join(Path(name).read_bytes() for name in (__file__, mca.__file__, disassembly.__file__))
        )
        depends = f"{modules.hexdigest()} {self.core.mca_cpu} {self.core.in_order} {self.mca.version}"
        return hashlib.sha256(depends.encode()).digest()

    def _run_mca(self, windows: list[Window]) -> list[tuple[int, ...]]:
        regions = self._timelines(windows)
        lengths = [sum(self._texts[word] is not None for code in window for word in code) for window in windows]
        if any(len(region) != length for region, length in zip(regions, lengths, strict=True)):
            self._drop_unsupported({word for window in windows for code in window for word in code})
            regions = self._timelines(windows)
        return [self._block_ends(window, region) for window, region in zip(windows, regions, strict=True)]

    def _block_ends(self, window: Window, timeline: Sequence[Moments]) -> tuple[int, ...]:
        moment = attrgetter("cycle_issued" if self.core.in_order else "cycle_retired")
        ends, seen, extra, last = [], 0, 0, 0
        for code in window:
            known = sum(self._texts[word] is not None for word in code)
            extra += len(code) - known
            seen += known
            last = moment(timeline[seen - 1]) if known else last
            ends.append(last + extra)
        return tuple(ends)

    def _timelines(self, windows: Sequence[Window]) -> list[Sequence[Moments]]:
        """One simulation of every window: an entry for each instruction that llvm-mca knows."""
        codes = {code for window in windows for code in window}  # loops repeat theirs many times
        texts = {code: "\n".join(filter(None, map(self._texts.get, code))) for code in codes}
        return self.mca.timelines([[texts[code] for code in window] for window in windows])

    def _drop_unsupported(self, words: set[int]) -> None:
        """Forget the text of instructions that the core's model does not have."""
        candidates = sorted(word for word in words if self._texts[word] is not None)
        timelines = self._timelines([((word,),) for word in candidates])
        unknown = [word for word, timeline in zip(candidates, timelines, strict=True) if not timeline]
        self._texts.update(dict.fromkeys(unknown))
        self._cache.put((self._key_of(b"unsupported", [word]), b"") for word in unknown)

    def _disassemble(self, words: set[int]) -> None:
        """Learn the text of instruction words; None for what is no instruction."""
        fresh = words - self._texts.keys()
        if not fresh:
            return
        keys = {word: self._key_of(b"text", [word]) for word in fresh}
        # Found out by an earlier process, whose timelines are in the cache.
        unsupported = {word: self._key_of(b"unsupported", [word]) for word in fresh}
        values = self._cache.get_many([*keys.values(), *unsupported.values()])
        texts = {word: values[key].decode() or None for word, key in keys.items() if key in values}
        unread = texts_of(fresh - texts.keys(), self._llvm_mc, self.mca.version)
        self._cache.put((keys[word], (text or "").encode()) for word, text in unread.items())
        texts |= unread
        if self.core.in_order:
            texts = {word: PLAIN if text == NOP else text for word, text in texts.items()}
        self._texts.update(texts | {word: None for word, key in unsupported.items() if key in values})


def _packed(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _unpacked(value: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(value) // 4}I", value)
