"""The counting plugin on a program whose counts are known, and the cost model on blocks whose cost is known."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from helpers.cross import static_zig_cc
from tvm_shufflenet.clock import disassembly
from tvm_shufflenet.clock.counts import (
    BEYOND_L2,
    HIDDEN,
    STORE,
    Arrival,
    Block,
    Code,
    Counts,
    Share,
    read_counts,
    read_trace,
)
from tvm_shufflenet.clock.cycles import LAUNCH_US, OVERLAP_LOST, CycleModel, Traffic, traffic_of
from tvm_shufflenet.clock.instructions import IMMEDIATES, accesses_memory, alike, loads
from tvm_shufflenet.clock.mca import Mca
from tvm_shufflenet.errors import DeviceFailed, ToolMissing, UnknownName
from tvm_shufflenet.hardware.boards import BOARDS, find_board
from tvm_shufflenet.support import toolchain

TOOLS = [toolchain.find_qemu(), toolchain.find_llvm_mca(), toolchain.find_llvm_mc(), toolchain.find_zig()]
MISSING = [tool.name for tool in TOOLS if tool.path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")

# No C library: nothing runs but what is written here. Each region is one loop over `buffer`.
PROGRAM = r"""
static char buffer[4 << 20] __attribute__((aligned(65536)));

static long call(long number, long a, long b) {
    register long x8 asm("x8") = number, x0 asm("x0") = a, x1 asm("x1") = b;
    asm volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x8) : "memory");
    return x0;
}
static void mark(long k) { call(141, 0x7e57, k); }

#define LOOP(trips, from, body)                                                                      \
    {                                                                                                \
        long n = trips;                                                                              \
        char *p = from;                                                                              \
        asm volatile("1: " body "subs %1, %1, #1\n b.ne 1b" : "+r"(p), "+r"(n)::"x9", "cc", "memory"); \
    }

void _start(void) {
    mark(0); LOOP(1000, buffer, "ldr x9, [%0]\n add %0, %0, #8\n") mark(1);
    mark(0); LOOP(16384, buffer + (1 << 20), "ldr x9, [%0], #64\n") mark(2);
    LOOP(256, buffer, "ldr x9, [%0], #64\n")
    mark(0); LOOP(256, buffer, "ldr x9, [%0], #64\n") mark(3);
    mark(0); LOOP(100, buffer + 60, "ldr x9, [%0], #64\n") mark(4);
    LOOP(32768, buffer, "str x9, [%0], #64\n")
    mark(0); LOOP(16384, buffer + (2 << 20), "ldr x9, [%0], #64\n") mark(5);
    mark(0); LOOP(500, buffer + (3 << 20) + 65536, "ldr x9, [%0], #-64\n") mark(6);
    mark(0); LOOP(500, buffer + (3 << 20), "ldr x9, [%0], #192\n") mark(7);
    mark(0); LOOP(500, buffer, "str x9, [%0], #64\n") mark(8);
    call(94, 0, 0);
}
"""


# A second thread that waits in a system call during the first region, and is woken in the second.
TWO_THREADS = r"""
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ends[2];
static volatile int waiting, woken;

static void *wait_for_a_byte(void *unused) {
    char byte;
    waiting = 1;
    read(ends[0], &byte, 1);
    woken = 1;
    return unused;
}
static void mark(long k) { syscall(SYS_getpriority, 0x7e57, k); }

int main(void) {
    pthread_t thread;
    pipe(ends);
    pthread_create(&thread, 0, wait_for_a_byte, 0);
    while (!waiting) usleep(1000);
    usleep(200000);
    mark(0); mark(1);
    mark(0);
    write(ends[1], "x", 1);
    while (!woken) usleep(1000);
    mark(2);
    pthread_join(thread, 0);
    mark(0); mark(3);
    return 0;
}
"""

# Threads that run the same code for the first time since the mark, side by side, and before and after it one alone.
THREADS_SIDE_BY_SIDE = r"""
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int ready;
#define FEW(n) if (*x & 1 << (n)) __asm__ volatile("nop");
#define MANY FEW(0) FEW(1) FEW(2) FEW(3) FEW(4) FEW(5) FEW(6) FEW(7)

static void work(volatile int *x) { MANY MANY MANY MANY MANY MANY MANY MANY }
static void mark(long k) { syscall(SYS_getpriority, 0x7e57, k); }

static void *run(void *unused) {
    int x = 0;
    __sync_fetch_and_add(&ready, 1);
    while (ready % 2) {}
    work(&x);
    return unused;
}
static __attribute__((noinline)) void alone(long k) {
    int x = 0;
    work(&x);
    mark(0);
    work(&x);
    mark(k);
}

int main(void) {
    alone(1);
    for (long k = 2; k < 100; k++) {
        pthread_t thread;
        mark(0);
        pthread_create(&thread, 0, run, 0);
        run(0);
        pthread_join(thread, 0);
        mark(k);
    }
    alone(100);
    return 0;
}
"""


def compiled(source: str, folder, *options: str):
    (folder / "program.c").write_text(source)
    command = static_zig_cc("aarch64", "-O1", *options)
    subprocess.run([*command, "-o", folder / "program", folder / "program.c"], check=True)
    return folder / "program"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(PROGRAM, tmp_path_factory.mktemp("program"), "-nostdlib")


def run(program, folder, options: str = "") -> dict[int, Counts]:
    """Counts of each of the program's regions, with the A72's caches: 32 KiB in 2 ways and 1 MiB in 16."""
    from tvm_shufflenet.emulator.build import plugin_library

    folder.mkdir()
    plugin = f"{plugin_library()},out={folder},l1d=32768:2:64,l2=1048576:16:64,window=6{options}"
    subprocess.run([toolchain.find_qemu().path, "-plugin", plugin, str(program)], check=True, env={})
    return {int(path.suffix[1:]): read_counts(path) for path in folder.iterdir() if path.suffix != ".trace"}


@pytest.fixture(scope="module")
def counts(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp("counts") / "out")


def moved(counts: Counts) -> Traffic:
    return sum(map(traffic_of, counts.blocks), Traffic())


def accesses(counts: Counts) -> int:
    return sum(block.accesses for block in counts.blocks)


def misses(counts: Counts, kind: int) -> int:
    return sum(block.misses[kind] for block in counts.blocks)


def waits(counts: Counts) -> int:
    return moved(counts).l2_stalls + moved(counts).dram_stalls


class TestPlugin:
    def test_a_loop_is_counted_exactly(self, counts):
        # The first of 1000 passes belongs to the block that runs into the loop.
        (loop,) = (block for block in counts[1].blocks if block.count > 1)
        assert (loop.count, len(loop.code), accesses(counts[1]), counts[1].threads) == (999, 4, 1000, 1)

    def test_it_knows_what_ran_before(self, counts):
        (loop,) = (block for block in counts[1].blocks if block.count > 1)
        (entry,) = (arrival for arrival in counts[1].arrivals if arrival.code == loop.code and arrival.count == 1)
        (around,) = (arrival for arrival in counts[1].arrivals if arrival.code == loop.code and arrival.count == 998)
        assert entry.history[-1] != loop.code
        assert around.history == (loop.code,) * 64
        for block in counts[1].blocks:
            assert block.count == sum(each.count for each in counts[1].arrivals if each.code == block.code)

    def test_a_trace_holds_every_run_in_its_order(self, program, tmp_path):
        marks = run(program, tmp_path / "out", ",trace=1")
        assert len(marks) == len(list((tmp_path / "out").glob("*.trace"))) == 8
        for mark, counts in marks.items():
            (dump,) = (tmp_path / "out").glob(f"*.{mark}")
            trace = read_trace(dump)
            assert Counter(trace) == Counter({block.code: block.count for block in counts.blocks})
            arrived = {(each.history[-1], each.code): each.count for each in counts.arrivals if each.history}
            assert Counter(itertools.pairwise(trace)) == arrived

    def test_without_the_option_there_is_no_trace(self, program, tmp_path):
        run(program, tmp_path / "out")
        assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [f".{mark}" for mark in range(1, 9)]
        with pytest.raises(DeviceFailed, match="trace"):
            read_trace(next((tmp_path / "out").iterdir()))

    def test_streaming_misses_once_a_line_and_is_expected(self, counts):
        traffic = moved(counts[2])
        assert (accesses(counts[2]), traffic.l1_misses, traffic.l2_misses) == (16384, 16384, 16384)
        assert misses(counts[2], BEYOND_L2 | HIDDEN) >= 16383

    def test_a_stream_may_run_backwards(self, counts):
        assert moved(counts[6]).l1_misses == 500
        assert waits(counts[6]) <= 1

    def test_strides_are_not_expected(self, counts):
        """Every second of these loads misses while the one before, three instructions ago, is still under way."""
        assert moved(counts[7]).l1_misses >= 400
        assert waits(counts[7]) == pytest.approx(moved(counts[7]).l1_misses / 2, abs=3)

    def test_what_fits_the_cache_does_not_miss(self, counts):
        assert (accesses(counts[3]), moved(counts[3]).l1_misses, moved(counts[3]).l2_misses) == (256, 0, 0)

    def test_an_access_across_two_lines_touches_both(self, counts):
        assert accesses(counts[4]) == 200

    def test_loads_are_not_stores(self, counts):
        # After a megabyte of loads nothing in the caches was written to: only what was written before may come back.
        assert moved(counts[2]).l1_writebacks == 0
        assert misses(counts[8], STORE | HIDDEN) + misses(counts[8], STORE | HIDDEN | BEYOND_L2) >= 499
        assert all(not misses(counts[2], kind) for kind in range(8) if kind & STORE)

    def test_written_lines_are_written_back_when_they_leave(self, counts):
        # 2 MiB were written: the last 1 MiB sits in the caches and is pushed out by the next 1 MiB.
        assert moved(counts[5]).l2_writebacks == 16384

    def test_only_threads_that_ran_between_the_marks_are_counted(self, tmp_path):
        marks = run(compiled(TWO_THREADS, tmp_path), tmp_path / "out")
        assert {mark: counts.threads for mark, counts in marks.items()} == {1: 1, 2: 2, 3: 1}

    def test_threads_spoil_no_dump_and_nothing_that_is_counted_after_them(self, tmp_path):
        marks = run(compiled(THREADS_SIDE_BY_SIDE, tmp_path), tmp_path / "out")
        assert Counter(counts.threads for counts in marks.values()) == {1: 2, 2: 98}
        before, after = ({block.address: block.count for block in marks[mark].blocks} for mark in (1, 100))
        assert before == after and len(before) > 64

    def test_a_program_ends_with_the_status_it_chose(self, tmp_path):
        with pytest.raises(subprocess.CalledProcessError) as ended:
            run(compiled("int main(void) { return 3; }", tmp_path), tmp_path / "out")
        assert ended.value.returncode == 3

    def test_refuses_a_geometry_it_cannot_simulate(self, program, tmp_path):
        from tvm_shufflenet.emulator.build import plugin_library

        plugin = f"{plugin_library()},out={tmp_path},l1d=30000:2:64,l2=1048576:16:64"
        done = subprocess.run([toolchain.find_qemu().path, "-plugin", plugin, program], capture_output=True, text=True)
        assert done.returncode != 0 and "powers of two" in done.stderr

    def test_same_program_same_nanoseconds(self, program, tmp_path):
        model = CycleModel(find_board("cortex-a72"), tmp_path / "cache")
        runs = [run(program, tmp_path / str(i)) for i in range(3)]
        times = [[model.price(counts).nanoseconds for _, counts in sorted(marks.items())] for marks in runs]
        assert times[0] == times[1] == times[2] and min(times[0]) > 0


def fmla(accumulator: int) -> int:
    """fmla v<accumulator>.4s, v30.4s, v31.4s"""
    return 0x4E20CC00 | 31 << 16 | 30 << 5 | accumulator


NOP = 0xD503201F
RET = 0xD65F03C0
NOT_AN_INSTRUCTION = 0xFFFFFFFF


def loop(*body: int) -> tuple[int, ...]:
    """The body, then subs x0, x0, #1 and b.ne back to its start."""
    return (*body, 0xF1000400, 0x54000001 | (-(len(body) + 1) & 0x7FFFF) << 5)


def follows(code: Code, count: int, *history: Code) -> Arrival:
    return Arrival(code, count, tuple(history))


def around(code: Code, count: int) -> Arrival:
    """A loop's further passes."""
    return Arrival(code, count, (code,) * 64)


def executed(*blocks: tuple[int, Code], threads: int = 1, **of_first) -> Counts:
    """Blocks with their counts; one that ends in a branch to its start followed itself. ``of_first``: see Block."""
    made, arrivals = [], []
    for index, (count, code) in enumerate(blocks):
        made.append(Block(code, count, 0x1000 * index, **(of_first if index == 0 else {})))
        if code[-1] >> 24 == 0x54:
            arrivals.append(around(code, count))
    return Counts(threads, tuple(made), tuple(arrivals))


def missing(kind: int, count: int) -> tuple[int, ...]:
    return tuple(count if each == kind else 0 for each in range(8))


@pytest.fixture
def a72(tmp_path):
    return CycleModel(find_board("cortex-a72"), tmp_path / "cache")


class TestCost:
    @pytest.mark.parametrize("core", sorted(BOARDS))
    def test_never_faster_than_the_multiply_add_units(self, core, tmp_path):
        model = CycleModel(find_board(core), tmp_path / "cache")
        cost = model.price(executed((1000, loop(*map(fmla, range(16))))))
        at_peak = 1000 * 16 * 4 / find_board(core).core.fp32_macs_per_cycle
        assert at_peak <= cost.core_cycles <= 1.5 * at_peak

    @pytest.mark.parametrize("core", sorted(BOARDS))
    def test_a_dependent_chain_costs_its_latency(self, core, tmp_path):
        model = CycleModel(find_board(core), tmp_path / "cache")
        chain = model.price(executed((1000, loop(*[fmla(0)] * 16))))
        independent = model.price(executed((1000, loop(*map(fmla, range(16))))))
        assert chain.core_cycles > 1.9 * independent.core_cycles

    def test_a_block_that_does_not_loop_has_no_loop_carried_latency(self, a72):
        """Between two passes of a chain something else runs, and the chain starts anew."""
        chain, other = (*[fmla(0)] * 4, RET), tuple(map(fmla, range(8, 24)))
        once = Counts(
            1,
            (Block(chain, 1000), Block(other, 1000)),
            (follows(chain, 1000, *(chain, other) * 20), follows(other, 1000, *(other, chain) * 20)),
        )
        looped = a72.price(executed((1000, loop(*[fmla(0)] * 4)))).core_cycles
        assert a72.price(once).core_cycles - a72.price(executed((1000, loop(*other)))).core_cycles < looped / 3

    def test_a_dependency_from_one_block_to_the_next_is_seen(self, a72):
        """The same chain cut into two blocks takes as long as in one."""
        left, right = (*[fmla(0)] * 8, 0x14000001), (*[fmla(0)] * 8, RET)
        cut = Counts(
            1,
            (Block(left, 1000), Block(right, 1000)),
            (follows(left, 1000, *(left, right) * 30), follows(right, 1000, *(right, left) * 30)),
        )
        whole = a72.price(executed((1000, loop(*[fmla(0)] * 16)))).core_cycles
        assert a72.price(cut).core_cycles == pytest.approx(whole, rel=0.05)

    @pytest.mark.parametrize("core", sorted(BOARDS))
    def test_never_faster_than_the_ports(self, core, tmp_path):
        load, store = 0x3DC00000, 0x3D800000  # ldr q0, [x0] and str q0, [x0]
        model = CycleModel(find_board(core), tmp_path / "cache")
        for word, ports in ((load, model.board.core.load_ports), (store, model.board.core.store_ports)):
            assert model.price(executed((1000, loop(*[word] * 16)))).core_cycles >= 16_000 / ports

    def test_lines_move_while_the_core_computes(self, a72):
        board, block = a72.board, (1000, loop(*map(fmla, range(16))))
        hits = a72.price(executed(block))
        few = a72.price(executed(block, misses=missing(HIDDEN, 100)))
        many = a72.price(executed(block, misses=missing(HIDDEN, 10_000), l1_writebacks=500))
        assert hits.memory_cycles == 0 and hits.core_cycles == few.core_cycles == many.core_cycles
        assert few.memory_cycles == pytest.approx(OVERLAP_LOST * 100 * board.core.l2_latency)
        assert many.total_cycles == pytest.approx(10_500 * board.core.l2_latency + OVERLAP_LOST * many.core_cycles)
        assert set(hits.bound_cycles) == {"compute"} and set(many.bound_cycles) == {"L2"}
        assert many.nanoseconds == round(many.total_cycles / board.clock_ghz)

    def test_memory_has_a_bandwidth(self, a72):
        board, block = a72.board, (1000, loop(NOP))
        cost = a72.price(executed(block, misses=missing(STORE | HIDDEN | BEYOND_L2, 10_000), l2_writebacks=9_000))
        expected = 19_000 * board.dram_line_ns * board.clock_ghz + OVERLAP_LOST * cost.core_cycles
        assert cost.total_cycles == pytest.approx(expected)
        assert (cost.l2_misses, cost.l2_writebacks, set(cost.bound_cycles)) == (10_000, 9_000, {"DRAM"})

    def test_a_load_that_nothing_announced_waits(self, a72):
        board, block = a72.board, (1000, loop(NOP))
        expected = a72.price(executed(block, misses=missing(BEYOND_L2 | HIDDEN, 10_000)))
        surprise = a72.price(executed(block, misses=missing(BEYOND_L2, 10_000)))
        waited = surprise.total_cycles - expected.total_cycles
        assert waited == pytest.approx(10_000 * board.dram_latency_ns * board.clock_ghz)

    def test_blocks_of_a_loop_share_its_time(self, a72):
        """One block computes and the other loads: together they take the longer of the two, not the sum."""
        computing, loading = tuple(map(fmla, range(16))), (NOP, RET)
        arrivals = (
            follows(computing, 1000, *(computing, loading) * 30),
            follows(loading, 1000, *(loading, computing) * 30),
        )
        blocks = Block(computing, 1000), Block(loading, 1000, misses=missing(HIDDEN, 1000))
        together = a72.price(Counts(1, blocks, arrivals))
        assert together.memory_cycles == pytest.approx(OVERLAP_LOST * 1000 * a72.board.core.l2_latency)

    def test_a_parallel_region_ends_with_its_slowest_share(self, a72):
        alone, work = executed((10, (NOP, RET))), loop(*map(fmla, range(16)))
        shares = [Share(0x1000, core, 3, executed((count, work))) for core, count in enumerate((100, 900))]
        together = a72.price(Counts(1, alone.blocks, alone.arrivals, tuple(shares)))
        slowest = a72.price(shares[1].counts)
        launches = 3 * LAUNCH_US * 1000 * a72.board.clock_ghz
        assert together.total_cycles == pytest.approx(
            a72.price(alone).total_cycles + slowest.total_cycles + launches, rel=1e-3
        )
        (region,) = a72.regions(Counts(1, alone.blocks, alone.arrivals, tuple(shares)))
        assert (region.slowest.core, region.address, region.waiting_cycles) == (1, 0x1000, 0)
        assert together.multiply_adds == 1000 * 16 * 4 and together.bound_cycles["launch"] == launches
        assert sum(together.bound_cycles.values()) == pytest.approx(together.total_cycles)

    def test_cores_share_the_memory(self, a72):
        """Two cores that do nothing but stream take as long as one that streams all of it."""
        stream = executed((1000, loop(NOP)), misses=missing(HIDDEN | BEYOND_L2, 10_000))
        shares = tuple(Share(0x1000, core, 1, stream) for core in range(2))
        both = a72.price(Counts(1, stream.blocks, stream.arrivals, shares)).total_cycles
        lines = 20_000 * a72.board.dram_line_ns * a72.board.clock_ghz
        launch = LAUNCH_US * 1000 * a72.board.clock_ghz
        assert both == pytest.approx(a72.price(stream).total_cycles + lines + launch)

    def test_rare_blocks_cost_the_average(self, a72):
        hot, rare = loop(NOP, NOP), (NOP, RET)
        with_rare = a72.price(executed((100_000, hot), (1, rare)))
        alone = a72.price(executed((100_000, hot)))
        assert with_rare.instructions == alone.instructions + 2
        assert with_rare.core_cycles == pytest.approx(alone.core_cycles * with_rare.instructions / alone.instructions)

    def test_a_history_may_hold_what_was_not_counted(self, a72):
        """The plugin keeps few predecessors of a block: a history may show it after another one."""
        head, tail, other = (NOP, RET), (*map(fmla, range(16)), RET), (NOP, NOP, RET)
        arrivals = (follows(head, 1000, *(head, tail) * 30), follows(tail, 1000, *(other,) * 60))
        cost = a72.price(Counts(1, (Block(head, 1000), Block(tail, 1000)), arrivals))
        assert cost.core_cycles >= 1000 * 16

    def test_a_short_loop_costs_what_its_passes_cost_on_average(self, a72):
        """The first pass of a round may run beside the last of the round before. Where in a round the plugin took its
        snapshot must make no difference."""
        start, chain = (0x6E3F1FC0, RET), loop(*[fmla(0)] * 4)  # eor v0, v30, v31
        round_ = (start, chain, chain, chain, chain)
        entering = (follows(start, 1000, *round_ * 10), follows(chain, 1000, *round_ * 10, start))
        prices = [
            a72.price(
                Counts(
                    1,
                    (Block(start, 1000), Block(chain, 4000)),
                    (*entering, Arrival(chain, 3000, (*round_ * 10, *round_[: 2 + cut]))),
                )
            ).core_cycles
            for cut in range(3)
        ]
        assert len(set(prices)) == 1

    def test_predecessors_that_were_not_kept_cost_like_the_others(self, a72):
        code = loop(*map(fmla, range(16)))
        some = Counts(1, (Block(code, 1000),), (around(code, 600),))
        assert a72.price(some).core_cycles == pytest.approx(a72.price(executed((1000, code))).core_cycles)

    def test_what_llvm_does_not_know_costs_a_cycle_and_is_counted(self, a72):
        known = a72.price(executed((10, (fmla(0), RET))))
        mixed = a72.price(executed((10, (fmla(0), NOT_AN_INSTRUCTION, RET))))
        only = a72.price(executed((10, (NOT_AN_INSTRUCTION, NOT_AN_INSTRUCTION))))
        assert (known.unmodelled_instructions, mixed.unmodelled_instructions) == (0, 10)
        assert mixed.core_cycles == pytest.approx(known.core_cycles + 10 * a72.board.core.compute_scale)
        assert only.core_cycles == pytest.approx(20 * a72.board.core.compute_scale)
        assert (only.unmodelled_instructions, only.unmodelled_share) == (20, pytest.approx(1))

    def test_what_the_cores_model_lacks_is_counted_too(self, tmp_path):
        """llvm-mca disassembles it, but has no timing of it for this core: now, and when it comes from the cache."""
        sve = 0x04A00000  # add z0.s, z0.s, z0.s
        counts = executed((10, (fmla(0), sve, RET)))
        for _ in range(2):
            model = CycleModel(find_board("cortex-a72"), tmp_path / "cache")
            assert model.price(counts).unmodelled_instructions == 10

    def test_code_seen_at_two_addresses_is_one_block(self, a72):
        block = loop(NOP)
        twice = a72.price(executed((10, block), (20, block)))
        assert twice == a72.price(executed((30, block)))

    def test_the_price_does_not_depend_on_what_else_is_priced(self, a72, tmp_path):
        blocks = [loop(*map(fmla, range(n))) for n in range(1, 6)]
        together = a72.price(executed(*[(100, code) for code in blocks])).core_cycles
        one_by_one = CycleModel(a72.board, tmp_path / "other")
        assert together == pytest.approx(sum(one_by_one.price(executed((100, code))).core_cycles for code in blocks))

    def test_more_than_one_thread_is_refused(self, a72):
        with pytest.raises(DeviceFailed, match="2 threads"):
            a72.price(executed((1, (NOP,)), threads=2))

    def test_nothing_executed_is_no_time(self, a72):
        with pytest.raises(DeviceFailed, match="nothing was executed"):
            a72.price(executed())

    def test_a_guest_that_ran_two_threads_is_refused(self, a72, tmp_path):
        marks = run(compiled(TWO_THREADS, tmp_path), tmp_path / "out")
        assert a72.price(marks[1]).nanoseconds > 0
        with pytest.raises(DeviceFailed, match="ran on 2 threads"):
            a72.price(marks[2])

    def test_unknown_core(self):
        with pytest.raises(UnknownName, match=r"nearest: cortex-a7.*one of .*rk3588"):
            find_board("cortex-a27")

    @pytest.mark.parametrize(
        ("name", "cause"),
        [("cortex-a76", "another core's units for it, A57UnitB"), ("cortex-a99", "does not know that name")],
    )
    def test_a_core_that_llvm_mca_lacks_is_not_priced_as_another(self, name, cause, tmp_path):
        board = find_board("cortex-a76")
        core = replace(board.core, mca_cpu=name)
        for refused in (
            Mca(core).check_core,
            lambda: CycleModel(replace(board, core=core), tmp_path / "cache").price(executed((1, (NOP,)))),
        ):
            with pytest.raises(ToolMissing, match=rf"no model of {name}.*{cause}.*cortex-a53"):
                refused()


class TestRuns:
    def test_a_dump_takes_one_run_of_each_tool_at_most(self, a72, monkeypatch):
        commands = []
        monkeypatch.setattr(disassembly.subprocess, "run", _recording(commands, subprocess.run))
        counts = executed(*[(100, loop(*map(fmla, range(n)))) for n in range(1, 9)])
        a72.price(counts)
        tools = [command[0].rpartition("/")[2] for command in commands if "--version" not in command]
        assert [name.startswith("llvm-mc-") for name in tools] in ([], [True])  # none with LLVM's library
        before = len(commands)
        a72.price(counts)
        assert (len(commands), a72.pipeline.mca.runs) == (before, 1)

    def test_known_blocks_outlive_the_process(self, a72, tmp_path):
        counts = executed((100, loop(fmla(0))), (100, (NOP, RET)))
        first = a72.price(counts)
        again = CycleModel(a72.board, tmp_path / "cache")
        assert again.price(counts) == first
        assert (a72.pipeline.mca.runs, again.pipeline.mca.runs) == (1, 0)
        other_core = CycleModel(find_board("cortex-a53"), tmp_path / "cache")
        assert other_core.price(counts).core_cycles != first.core_cycles
        assert other_core.pipeline.mca.runs == 1

    def test_a_damaged_cache_is_no_obstacle(self, tmp_path):
        (tmp_path / "cache").write_text("this is not a database, it is a text of some length" * 100)
        model = CycleModel(find_board("cortex-a72"), tmp_path / "cache")
        assert model.price(executed((100, loop(fmla(0))))).nanoseconds > 0

    def test_a_failing_llvm_mca_is_reported(self, tmp_path, monkeypatch):
        broken = tmp_path / "llvm-mca-99"
        broken.write_text("#!/bin/sh\necho version\necho it broke >&2\ncase $1 in --version) exit 0;; esac\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("TVM_SHUFFLENET_LLVM_MCA", str(broken))
        with pytest.raises(DeviceFailed, match="it broke"):
            CycleModel(find_board("cortex-a72"), tmp_path / "cache").price(executed((1, (NOP,))))


# An instruction of each kind that has an immediate, and where it names registers, its lowest bit of each.
ENCODED = {
    "ldr q": (0x3DC00000, (0, 5)),
    "str x": (0xF9000000, (0, 5)),
    "ldur q": (0x3CC00000, (0, 5)),
    "ldr q, post-index": (0x3CC00400, (0, 5)),
    "str q, pre-index": (0x3C800C00, (0, 5)),
    "ldp q": (0xAD400000, (0, 5, 10)),
    "stp x, post-index": (0xA8800000, (0, 5, 10)),
    "ldr x, literal": (0x58000000, (0,)),
    "adr": (0x10000000, (0,)),
    "adrp": (0x90000000, (0,)),
    "add": (0x91000000, (0, 5)),
    "subs": (0xF1000000, (0, 5)),
    "movz": (0xD2800000, (0,)),
    "movk": (0xF2800000, (0,)),
    "b": (0x14000000, ()),
    "b.ne": (0x54000001, ()),
    "cbnz": (0xB5000000, (0,)),
    "tbz": (0x36000000, (0,)),
    "fmla by element": (0x4F801000, (0, 5)),
}


class TestImmediates:
    def drawn(self, random) -> tuple[int, ...]:
        """A stretch of such instructions, whose results are often another one's operands."""
        word, registers = ENCODED[random.choice(list(ENCODED))]
        for shift in registers:
            word |= random.choice((1, 2, 3, 9, 30)) << shift
        for mask, value, field, _ in IMMEDIATES:
            if word & mask == value:
                word |= field & random.choice((0, random.getrandbits(32)))
        return (word,)

    @pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72", "cortex-a76"])
    def test_no_timing_depends_on_them(self, core, tmp_path):
        random, model = Random(0), CycleModel(find_board(core), tmp_path / "cache").pipeline
        stretches = [tuple(self.drawn(random) for _ in range(80)) for _ in range(40)]
        plain = [tuple(map(alike, stretch)) for stretch in stretches]
        words = {word for stretch in (*stretches, *plain) for code in stretch for word in code}
        model._disassemble(words)
        assert None not in {model._texts[word] for word in words}
        assert len({word for stretch in plain for code in stretch for word in code}) < len(words) / 2
        assert model._run_mca(plain) == model._run_mca(stretches)

    def test_loops_that_differ_by_nothing_else_are_simulated_once(self, a72):
        def block(offset: int, step: int) -> Code:
            return loop(0x3DC00020 | offset << 10, fmla(0), 0x91000021 | step << 10)

        first = a72.price(executed((100, block(1, 16))))
        assert a72.price(executed((100, block(7, 32)))).core_cycles == first.core_cycles
        assert a72.pipeline.mca.runs == 1


def _recording(commands, run):
    def recorded(command, **options):
        commands.append(command)
        return run(command, **options)

    return recorded


class TestDump:
    def test_a_truncated_dump_is_an_error_at_every_length(self, program, tmp_path):
        run(program, tmp_path / "out")
        whole = next((tmp_path / "out").glob("*.1"))
        lines = whole.read_text().splitlines(keepends=True)
        assert read_counts(whole).blocks
        for kept in range(len(lines)):
            whole.write_text("".join(lines[:kept]))
            with pytest.raises(DeviceFailed, match="cannot be read"):
                read_counts(whole)

    def test_a_truncated_trace_is_an_error(self, program, tmp_path):
        run(program, tmp_path / "out", ",trace=1")
        whole = next((tmp_path / "out").glob("*.1"))
        trace = whole.with_name(whole.name + ".trace")
        ran = trace.read_bytes()
        for kept in (len(ran) - 1, len(ran) - 4, len(ran) // 8 * 4, 0):
            trace.write_bytes(ran[:kept])
            with pytest.raises(DeviceFailed, match="trace"):
                read_trace(whole)

    def test_a_missing_dump_is_an_error(self, tmp_path):
        with pytest.raises(DeviceFailed, match="cannot be read"):
            read_counts(tmp_path / "1.1")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0x3DC00000, (True, True)),  # ldr q0, [x0]
        (0x3D800000, (True, False)),  # str q0, [x0]
        (0xB8800000, (True, True)),  # ldursw x0, [x0]
        (0xAD400000, (True, True)),  # ldp q0, q0, [x0]
        (0xAD000000, (True, False)),  # stp q0, q0, [x0]
        (0x4C402800, (True, True)),  # ld1 {v0.4s-v3.4s}, [x0]
        (0x4C002800, (True, False)),  # st1 {v0.4s-v3.4s}, [x0]
        (0x58000000, (True, True)),  # ldr x0, .
        (0xF9800000, (True, True)),  # prfm pldl1keep, [x0]
        (0x4E3FCFC0, (False, False)),  # fmla v0.4s, v30.4s, v31.4s
        (0x91000400, (False, False)),  # add x0, x0, #1
        (RET, (False, False)),
    ],
)
def test_what_an_instruction_does_to_memory(word, expected):
    assert (accesses_memory(word), loads(word)) == expected
