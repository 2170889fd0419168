"""Cycles that a core takes for code as it was really run, by llvm-mca's timelines.

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
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path

import msgspec

from .. import toolchain
from ..errors import ToolMissing
from ..targets import CORES, Core
from .block_cache import BlockCache
from .counts import Code, Counts
from .disassembly import texts_of, tool_failed
from .instructions import alike
from .sampling import Step, Window, samples_of, step_at

MARGIN = 32  # a sequence has settled this many instructions after the pipeline has filled once

# llvm-mca's in-order cores hold a nop back until all that was issued before has finished; the cores do not.
NOP, PLAIN = "nop", "mov\txzr, xzr"


class _Moments(msgspec.Struct, rename="pascal"):
    """When an instruction is issued and when it retires, in cycles; as llvm-mca's JSON has it, like what follows."""

    cycle_issued: int
    cycle_retired: int


class _Timeline(msgspec.Struct, rename="pascal", frozen=True):
    timeline_info: tuple[_Moments, ...] = ()


class _Region(msgspec.Struct, rename="pascal"):
    name: str
    timeline_view: _Timeline = _Timeline()


class _TargetInfo(msgspec.Struct, rename="pascal"):
    resources: list[str]


class _Report(msgspec.Struct, rename="pascal"):
    target_info: _TargetInfo
    code_regions: list[_Region]


class Pipeline:
    """Core cycles on one core; threads may share it. ``mca_runs`` counts llvm-mca runs: at most one a call."""

    def __init__(self, core: Core, cache: BlockCache):
        self.core = core
        self.mca_runs = 0
        self._llvm_mc = toolchain.require(toolchain.find_llvm_mc())
        self._llvm_mca = toolchain.require(toolchain.find_llvm_mca())
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
        known, missing = {}, {}
        for window in windows:
            key = self._key(window)
            if (value := self._cache.get(key)) is None:
                missing[window] = key
            else:
                known[window] = struct.unpack(f"<{len(value) // 4}I", value)
        self._disassemble({word for window in windows for code in window for word in code})
        if missing:
            fresh = dict(zip(missing, self._run_mca(list(missing)), strict=True))
            known.update(fresh)
            self._cache.put((missing[window], struct.pack(f"<{len(ends)}I", *ends)) for window, ends in fresh.items())
        return known

    def _key(self, window: Window) -> bytes:
        words = [word for code in window for word in (len(code), *code)]
        return hashlib.sha256(self._identity + struct.pack(f"<{len(words)}I", *words)).digest()[:16]

    @functools.cached_property
    def _identity(self) -> bytes:
        """What a timeline depends on beside the code: this module, the core's model, llvm-mca's version."""
        module = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        return f"{module} {self.core.mca_cpu} {self.core.in_order} {self._llvm_version}".encode()

    @functools.cached_property
    def _llvm_version(self) -> str:
        return _run([self._llvm_mca, "--version"])

    def _run_mca(self, windows: list[Window]) -> list[tuple[int, ...]]:
        regions = self._timelines([[word for code in window for word in code] for window in windows])
        lengths = [sum(self._texts[word] is not None for code in window for word in code) for window in windows]
        if any(len(region) != length for region, length in zip(regions, lengths, strict=True)):
            self._drop_unsupported({word for window in windows for code in window for word in code})
            regions = self._timelines([[word for code in window for word in code] for window in windows])
        return [self._block_ends(window, region) for window, region in zip(windows, regions, strict=True)]

    def _block_ends(self, window: Window, timeline: Sequence[_Moments]) -> tuple[int, ...]:
        moment = attrgetter("cycle_issued" if self.core.in_order else "cycle_retired")
        ends, seen, extra, last = [], 0, 0, 0
        for code in window:
            known = sum(self._texts[word] is not None for word in code)
            extra += len(code) - known
            seen += known
            last = moment(timeline[seen - 1]) if known else last
            ends.append(last + extra)
        return tuple(ends)

    def _timelines(self, sequences: list[list[int]]) -> list[Sequence[_Moments]]:
        """One simulation of every sequence: an entry for each instruction that llvm-mca knows."""
        regions = ["// LLVM-MCA-BEGIN none", "nop", "// LLVM-MCA-END"]  # llvm-mca fails if all regions turn out empty
        for index, words in enumerate(sequences):
            lines = [self._texts[word] for word in words if self._texts[word]]
            regions += [f"// LLVM-MCA-BEGIN {index}", *lines, "// LLVM-MCA-END"]
        options = [
            "-mattr=+all", "-timeline", "-timeline-max-cycles=0", "-resource-pressure=false", "-instruction-info=false",
            "-skip-unsupported-instructions=any", "-call-latency=1",  # without it llvm-mca takes 100 cycles for a call
        ]  # fmt: skip
        self.mca_runs += 1
        # The empty last line matters: llvm-mca fails on a comment that ends the file without a newline.
        report = _simulated(self._llvm_mca, self.core, options, "\n".join([*regions, ""]))
        found = {region.name: region.timeline_view.timeline_info for region in report.code_regions}
        return [found.get(str(index), ()) for index in range(len(sequences))]

    def _drop_unsupported(self, words: set[int]) -> None:
        """Forget the text of instructions that the core's model does not have."""
        candidates = sorted(word for word in words if self._texts[word] is not None)
        timelines = self._timelines([[word] for word in candidates])
        unknown = [word for word, timeline in zip(candidates, timelines, strict=True) if not timeline]
        self._texts.update(dict.fromkeys(unknown))
        self._cache.put((self._unsupported_key(word), b"") for word in unknown)

    def _unsupported_key(self, word: int) -> bytes:
        return hashlib.sha256(self._identity + b"unsupported" + struct.pack("<I", word)).digest()[:16]

    def _texts_on_disk(self, words: set[int]) -> dict[int, str | None]:
        found = {word: self._cache.get(self._text_key(word)) for word in words}
        return {word: text.decode() or None for word, text in found.items() if text is not None}

    def _text_key(self, word: int) -> bytes:
        return hashlib.sha256(self._identity + b"text" + struct.pack("<I", word)).digest()[:16]

    def _disassemble(self, words: set[int]) -> None:
        """Learn the text of instruction words; None for what is no instruction."""
        fresh = words - self._texts.keys()
        if not fresh:
            return
        texts = self._texts_on_disk(fresh)
        unread = texts_of(fresh - texts.keys(), self._llvm_mc, self._llvm_version)
        self._cache.put((self._text_key(word), (text or "").encode()) for word, text in unread.items())
        texts |= unread
        if self.core.in_order:
            texts = {word: PLAIN if text == NOP else text for word, text in texts.items()}
        self._texts.update(texts)
        # Found out by an earlier process, whose timelines are in the cache.
        self._texts.update({word: None for word in fresh if self._cache.get(self._unsupported_key(word)) is not None})


def check_core(core: Core) -> None:
    """Raises ToolMissing where the llvm-mca that is found has no model of the core."""
    _simulated(toolchain.require(toolchain.find_llvm_mca()), core, [], "nop\n")


def _simulated(llvm_mca: str, core: Core, options: list[str], text: str) -> _Report:
    """llvm-mca's report of one pass through the text, made with the model that the core's entry names."""
    command = [llvm_mca, "-mtriple=aarch64", f"-mcpu={core.mca_cpu}", "-iterations=1", "-json", *options]
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    complaint = done.stderr.decode(errors="replace")
    if "is not a recognized processor" in complaint:
        raise _no_model(llvm_mca, core, "it does not know that name")
    if done.returncode != 0:
        raise tool_failed(command, complaint)
    report = msgspec.json.decode(done.stdout, type=_Report)
    units = report.target_info.resources
    if not all(unit.startswith(core.mca_units) for unit in units):
        used = f"{units[0]} and the like" if units else "none"
        raise _no_model(llvm_mca, core, f"it takes another core's units for it, {used}, where {core.mca_units}* belong")
    return report


def _no_model(llvm_mca: str, core: Core, cause: str) -> ToolMissing:
    what = f"{llvm_mca} has no model of {core.mca_cpu}, by which {core.name} is priced"
    return ToolMissing(what, cause, f"{toolchain.find_llvm_mca().install}, or name another of {', '.join(CORES)}")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise tool_failed(command, done.stderr)
    return done.stdout
