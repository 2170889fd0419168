"""The cost model: what was counted on an emulated core -> modelled cycles and nanoseconds on a named Cortex-A.

Two terms, added. Core cycles: every executed block's cycles from llvm-mca's model of the core, times how often it ran.
Memory cycles: simulated L1 and L2 misses times what each costs, times the share of it that the core does not hide; the
two shares are fitted per core to published board latencies (see targets.CORES), the core term is taken as it is.
Same counts, same nanoseconds: nothing here depends on time, order or what was priced before.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import sqlite3
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import toolchain
from ..errors import DeviceFailed
from ..targets import Core

COVERAGE = 0.999  # the hottest blocks up to this share of executed instructions are priced; the rest at their average
STEADY_INSTRUCTIONS = 384  # three times a 128-entry reorder buffer: a loop repeated this far has settled
CACHE_LIMIT_BYTES = 64 << 20

Code = tuple[int, ...]  # a block's instruction words


@dataclass(frozen=True)
class Counts:
    """What the plugin saw between two marks: ``blocks`` as (count, address, code), and the cache model's totals."""

    threads: int
    l1_accesses: int
    l1_misses: int
    l2_misses: int
    l2_writebacks: int
    blocks: tuple[tuple[int, int, Code], ...]


def read_counts(path: Path) -> Counts:
    """The dump that the plugin wrote. Raises DeviceFailed where it is missing, cut short or not a dump at all."""
    try:
        lines = path.read_text().splitlines()
        blocks, totals = [], {}
        for line in lines[:-1]:
            name, *fields = line.split()
            if name == "block":
                count, address, code = fields
                words = struct.unpack(f">{len(code) // 8}I", bytes.fromhex(code))
                blocks.append((int(count), int(address, 16), words))
            else:
                totals[name] = int(fields[0])
        if not lines or lines[-1] != f"end {len(blocks)}":
            raise ValueError("its end marker is missing")
        return Counts(blocks=tuple(blocks), **totals)
    except (OSError, ValueError, TypeError, struct.error) as exc:
        what = f"the emulated core's counts in {path.name} cannot be read: {exc}"
        raise DeviceFailed(what, "the disk is full") from exc


@dataclass(frozen=True)
class Cost:
    """A modelled time. ``unmodelled_instructions`` were unknown to llvm-mca and are taken at one cycle each."""

    core_cycles: float
    memory_cycles: float
    total_cycles: float
    nanoseconds: int
    instructions: int
    unmodelled_instructions: int
    l1_misses: int
    l2_misses: int


@dataclass(frozen=True)
class BlockCost:
    cycles: float
    unmodelled: int


class CycleModel:
    """Prices counts for one core; threads may share it. ``mca_runs`` counts llvm-mca runs: at most one a ``price``."""

    def __init__(self, core: Core, cache_file: Path | None = None):
        self.core = core
        self.mca_runs = 0
        self._llvm_mc = toolchain.require(toolchain.find_llvm_mc())
        self._llvm_mca = toolchain.require(toolchain.find_llvm_mca())
        self._known: dict[Code, BlockCost] = {}
        self._disk = _DiskCache(cache_file or toolchain.cache_dir() / "block-cycles.sqlite3")

    def price(self, counts: Counts) -> Cost:
        """Raises DeviceFailed for counts of more than one thread, and where llvm-mca fails."""
        if counts.threads > 1:
            raise DeviceFailed(
                f"the timed code ran on {counts.threads} threads",
                "the emulated device models one core",
                "run it with TVM_NUM_THREADS=1",
            )
        if not counts.blocks:
            raise DeviceFailed("nothing was executed between the timer's start and stop")
        core = self.core
        instructions, core_cycles, unmodelled = self._core_cycles(counts)
        l2_hits = counts.l1_misses - counts.l2_misses
        dram_cycles = core.dram_ns * core.clock_ghz
        memory_cycles = (
            l2_hits * core.l2_hit_cycles * core.l2_hit_exposed + counts.l2_misses * dram_cycles * core.dram_exposed
        )
        total = core_cycles + memory_cycles
        return Cost(
            core_cycles, memory_cycles, total, round(total / core.clock_ghz), instructions, unmodelled,
            counts.l1_misses, counts.l2_misses,
        )  # fmt: skip

    def _core_cycles(self, counts: Counts) -> tuple[int, float, int]:
        """Executed instructions, their cycles, and how many of them llvm-mca does not know."""
        executed = Counter()
        for count, _, code in counts.blocks:
            executed[code] += count  # translated twice or loaded elsewhere, it is the same code
        instructions = sum(count * len(code) for code, count in executed.items())
        hottest_first = sorted(executed.items(), key=lambda item: (-item[1] * len(item[0]), item[0]))
        hot, covered = [], 0
        for code, count in hottest_first:
            if covered >= COVERAGE * instructions:
                break
            hot.append((code, count))
            covered += count * len(code)
        costs = self._block_costs([code for code, _ in hot])
        cycles = math.fsum(costs[code].cycles * count for code, count in hot)
        unmodelled = sum(costs[code].unmodelled * count for code, count in hot)
        return instructions, cycles * instructions / covered, unmodelled

    def _block_costs(self, codes: list[Code]) -> dict[Code, BlockCost]:
        """From memory, else from disk, else from one llvm-mca run over all that are missing."""
        missing = [code for code in codes if code not in self._known]
        keys = {code: self._key(code) for code in missing}
        for code, key in keys.items():
            if (cost := self._disk.get(key)) is not None:
                self._known[code] = cost
        missing = [code for code in missing if code not in self._known]
        if missing:
            fresh = dict(zip(missing, self._run_mca(missing), strict=True))
            self._known.update(fresh)
            self._disk.put((keys[code], cost) for code, cost in fresh.items())
        return {code: self._known[code] for code in codes}

    def _key(self, code: Code) -> bytes:
        return hashlib.sha256(self._identity + struct.pack(f"<{len(code)}I", *code)).digest()[:16]

    @functools.cached_property
    def _identity(self) -> bytes:
        """What block cycles depend on beside the code: this model, the core's entry, llvm-mca's version."""
        model = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        core = f"{self.core.mca_cpu} {self.core.overlap_cycles} {self.core.fp32_macs_per_cycle}"
        return f"{model} {core} {_run([self._llvm_mca, '--version'], '')}".encode()

    # llvm-mca

    def _run_mca(self, codes: list[Code]) -> list[BlockCost]:
        """One disassembly and one simulation of all blocks.

        Each block is written out as often as needed and simulated for a single pass. That gives both figures this model
        uses in one run: what a loop's further iteration costs, and what a block costs that is passed once.
        """
        text = self._disassemble(codes)
        regions = ["// LLVM-MCA-BEGIN none", "nop", "// LLVM-MCA-END"]  # llvm-mca fails if all regions turn out empty
        for index, code in enumerate(codes):
            for copies in _copies(code):
                lines = [text[word] for word in code if text[word]] * copies
                regions += [f"// LLVM-MCA-BEGIN {index}x{copies}", *lines, "// LLVM-MCA-END"]
        command = [
            self._llvm_mca, "-mtriple=aarch64", f"-mcpu={self.core.mca_cpu}", "-mattr=+all", "-iterations=1", "-json",
            "-skip-unsupported-instructions=any", "-call-latency=1",  # without it llvm-mca takes 100 cycles for a call
            "-resource-pressure=false", "-instruction-info=false",
        ]  # fmt: skip
        self.mca_runs += 1
        # The empty last line matters: llvm-mca fails on a comment that ends the file without a newline.
        report = json.loads(_run(command, "\n".join([*regions, ""])))
        summaries = {region["Name"]: region["SummaryView"] for region in report["CodeRegions"]}
        return [self._block_cost(index, code, summaries) for index, code in enumerate(codes)]

    def _block_cost(self, index: int, code: Code, summaries: dict[str, dict]) -> BlockCost:
        passes = [summaries.get(f"{index}x{copies}") for copies in _copies(code)]
        if None in passes:  # llvm-mca knows none of its instructions
            return BlockCost(float(len(code)), len(code))
        fewest = _copies(code)[0]
        unmodelled = len(code) - passes[0]["Instructions"] // fewest
        if len(passes) == 2:
            # A loop: what further iterations add once the pipeline is full.
            cycles = (passes[1]["TotalCycles"] - passes[0]["TotalCycles"]) / fewest
        else:
            # Not a loop: simulating it back to back would invent a dependency of its start on its end. Its throughput
            # bounds it, and so do its own latencies as far as the core cannot overlap them with its neighbours.
            once = passes[0]
            cycles = max(once["BlockRThroughput"], once["TotalCycles"] - self.core.overlap_cycles)
        # llvm-mca's A55 issues two 128-bit multiply-adds a cycle; the core's units are 64 bits wide.
        at_peak = 4 * sum(map(is_fp32_multiply_add, code)) / self.core.fp32_macs_per_cycle
        return BlockCost(max(cycles, at_peak) + unmodelled, unmodelled)

    def _disassemble(self, codes: list[Code]) -> dict[int, str | None]:
        """Instruction word -> its text, None for what is no instruction."""
        words = sorted(set().union(*codes))
        lines = [" ".join(f"0x{byte:02x}" for byte in struct.pack("<I", word)) for word in words]
        command = [self._llvm_mc, "--disassemble", "-triple=aarch64", "-mattr=+all"]
        done = subprocess.run(command, input="\n".join([*lines, ""]), capture_output=True, text=True)
        invalid = {
            int(line.split(":")[1]) - 1 for line in done.stderr.splitlines() if "invalid instruction encoding" in line
        }
        texts = [line.strip() for line in done.stdout.splitlines() if line.strip() and not line.strip().startswith(".")]
        if len(texts) + len(invalid) != len(words):
            raise _tool_failed(command, done.stderr)
        valid = (word for index, word in enumerate(words) if index not in invalid)
        return {word: None for word in words} | dict(zip(valid, texts, strict=True))


def model_error_percent(core: Core) -> float | None:
    """How far modelled latencies of whole networks are off on average, None for a core that was never compared."""
    return core.model_error_percent


def _copies(code: Code) -> tuple[int, ...]:
    """How often to write the block out: a loop twice, so that the difference is free of its start and end."""
    if not loops_on_itself(code):
        return (1,)
    copies = max(2, math.ceil(STEADY_INSTRUCTIONS / len(code)))
    return copies, 2 * copies


def loops_on_itself(code: Code) -> bool:
    """True where the block ends in a branch to its own first instruction."""
    last = code[-1]
    if last & 0xFF000010 == 0x54000000 or last & 0x7E000000 == 0x34000000:  # b.cond, cbz, cbnz
        bits, shift = 19, 5
    elif last & 0x7E000000 == 0x36000000:  # tbz, tbnz
        bits, shift = 14, 5
    elif last & 0xFC000000 == 0x14000000:  # b
        bits, shift = 26, 0
    else:
        return False
    field = last >> shift & (1 << bits) - 1
    return field - (1 << bits) == 1 - len(code) or (field == 0 and len(code) == 1)


def is_fp32_multiply_add(word: int) -> bool:
    """fmla or fmls on four float32 lanes, by vector or by element."""
    return word & 0xFF60FC00 == 0x4E20CC00 or word & 0xFFC0B400 == 0x4F801000


def _run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise _tool_failed(command, done.stderr)
    return done.stdout


def _tool_failed(command: list[str], stderr: str) -> DeviceFailed:
    last_lines = "; ".join(stderr.strip().splitlines()[-3:])
    what = f"{os.path.basename(command[0])} failed: {last_lines}"
    return DeviceFailed(what, "an LLVM version that was not tried", toolchain.find_llvm_mca().install)


class _DiskCache:
    """Block costs that survive the process. Losing it costs time only, so it is never a reason to fail."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        self._database = None
        try:
            if path.exists() and path.stat().st_size > CACHE_LIMIT_BYTES:
                path.unlink()
            self._database = sqlite3.connect(path, timeout=10, check_same_thread=False)
            self._database.execute("pragma synchronous = off")
            self._database.execute(
                "create table if not exists block (key blob primary key, cycles real, unmodelled integer) without rowid"
            )
        except (sqlite3.Error, OSError):
            self._database = None

    def get(self, key: bytes) -> BlockCost | None:
        if self._database is None:
            return None
        try:
            with self._lock:
                row = self._database.execute("select cycles, unmodelled from block where key = ?", (key,)).fetchone()
            return BlockCost(*row) if row else None
        except sqlite3.Error:
            return None

    def put(self, items: Iterable[tuple[bytes, BlockCost]]) -> None:
        if self._database is None:
            return
        rows = [(key, cost.cycles, cost.unmodelled) for key, cost in items]
        with contextlib.suppress(sqlite3.Error), self._lock, self._database:  # one transaction
            self._database.executemany("insert or ignore into block values (?, ?, ?)", rows)
