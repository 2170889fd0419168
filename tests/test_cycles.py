"""The counting plugin on a program whose counts are known, and the cost model on blocks whose cost is known."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from tvm_shufflenet import toolchain
from tvm_shufflenet.devices import cycles
from tvm_shufflenet.devices.cycles import Counts, CycleModel, loops_on_itself, read_counts
from tvm_shufflenet.errors import DeviceFailed, UnknownName
from tvm_shufflenet.targets import CORES, find_core

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


def compiled(source: str, folder, *options: str):
    (folder / "program.c").write_text(source)
    command = [toolchain.find_zig().path, "cc", "-target", "aarch64-linux-musl", "-static", "-O1", *options]
    subprocess.run([*command, "-o", folder / "program", folder / "program.c"], check=True)
    return folder / "program"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(PROGRAM, tmp_path_factory.mktemp("program"), "-nostdlib")


def run(program, folder) -> dict[int, Counts]:
    """Counts of each of the program's regions, with the A72's caches: 32 KiB in 2 ways and 1 MiB in 16."""
    from tvm_shufflenet.devices.native.plugin_build import plugin_library

    folder.mkdir()
    plugin = f"{plugin_library()},out={folder},l1d=32768:2:64,l2=1048576:16:64"
    subprocess.run([toolchain.find_qemu().path, "-plugin", plugin, str(program)], check=True, env={})
    return {int(path.suffix[1:]): read_counts(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def counts(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp("counts") / "out")


class TestPlugin:
    def test_a_loop_is_counted_exactly(self, counts):
        loop = [block for block in counts[1].blocks if loops_on_itself(block[2])]
        # The first of 1000 passes belongs to the block that runs into the loop.
        assert [(count, len(code)) for count, _, code in loop] == [(999, 4)]
        assert counts[1].l1_accesses == 1000
        assert counts[1].threads == 1

    def test_streaming_misses_once_a_line(self, counts):
        assert (counts[2].l1_accesses, counts[2].l1_misses, counts[2].l2_misses) == (16384, 16384, 16384)

    def test_what_fits_the_cache_does_not_miss(self, counts):
        assert (counts[3].l1_accesses, counts[3].l1_misses, counts[3].l2_misses) == (256, 0, 0)

    def test_an_access_across_two_lines_touches_both(self, counts):
        assert counts[4].l1_accesses == 200

    def test_written_lines_are_written_back_when_they_leave(self, counts):
        # 2 MiB were written: the last 1 MiB sits in the caches and is pushed out by the next 1 MiB.
        assert counts[5].l2_writebacks == 16384

    def test_only_threads_that_ran_between_the_marks_are_counted(self, tmp_path):
        marks = run(compiled(TWO_THREADS, tmp_path), tmp_path / "out")
        assert {mark: counts.threads for mark, counts in marks.items()} == {1: 1, 2: 2, 3: 1}

    def test_refuses_a_geometry_it_cannot_simulate(self, program, tmp_path):
        from tvm_shufflenet.devices.native.plugin_build import plugin_library

        plugin = f"{plugin_library()},out={tmp_path},l1d=30000:2:64,l2=1048576:16:64"
        done = subprocess.run([toolchain.find_qemu().path, "-plugin", plugin, program], capture_output=True, text=True)
        assert done.returncode != 0 and "powers of two" in done.stderr

    def test_same_program_same_nanoseconds(self, program, tmp_path):
        model = CycleModel(find_core("cortex-a72"), tmp_path / "cache")
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


def executed(*blocks: tuple[int, tuple[int, ...]], **totals: int) -> Counts:
    zero = {"threads": 1, "l1_accesses": 0, "l1_misses": 0, "l2_misses": 0, "l2_writebacks": 0}
    placed = tuple((count, 0x1000 * index, code) for index, (count, code) in enumerate(blocks))
    return Counts(**(zero | totals), blocks=placed)


@pytest.fixture
def a72(tmp_path):
    return CycleModel(find_core("cortex-a72"), tmp_path / "cache")


class TestCost:
    @pytest.mark.parametrize("core", sorted(CORES))
    def test_never_faster_than_the_multiply_add_units(self, core, tmp_path):
        model = CycleModel(find_core(core), tmp_path / "cache")
        cost = model.price(executed((1000, loop(*map(fmla, range(16))))))
        at_peak = 1000 * 16 * 4 / find_core(core).fp32_macs_per_cycle
        assert at_peak <= cost.core_cycles <= 1.5 * at_peak

    @pytest.mark.parametrize("core", sorted(CORES))
    def test_a_dependent_chain_costs_its_latency(self, core, tmp_path):
        model = CycleModel(find_core(core), tmp_path / "cache")
        chain = model.price(executed((1000, loop(*[fmla(0)] * 16))))
        independent = model.price(executed((1000, loop(*map(fmla, range(16))))))
        assert chain.core_cycles > 1.9 * independent.core_cycles

    def test_a_block_that_does_not_loop_has_no_loop_carried_latency(self, a72):
        body = (fmla(0), fmla(0), NOP)
        once = a72.price(executed((1000, (*body, RET)))).core_cycles
        looped = a72.price(executed((1000, loop(*body)))).core_cycles
        assert once < looped / 3

    def test_misses_are_added(self, a72):
        block = (1000, loop(NOP))
        hits = a72.price(executed(block, l1_accesses=1000))
        l1 = a72.price(executed(block, l1_accesses=1000, l1_misses=100))
        l2 = a72.price(executed(block, l1_accesses=1000, l1_misses=100, l2_misses=100))
        assert hits.memory_cycles == 0 and hits.core_cycles == l1.core_cycles == l2.core_cycles
        core = a72.core
        assert l1.memory_cycles == pytest.approx(100 * core.l2_hit_cycles * core.l2_hit_exposed)
        assert l2.memory_cycles == pytest.approx(100 * core.dram_ns * core.clock_ghz * core.dram_exposed)
        assert l2.total_cycles == l2.core_cycles + l2.memory_cycles
        assert l2.nanoseconds == round(l2.total_cycles / core.clock_ghz)

    def test_rare_blocks_cost_the_average(self, a72):
        hot, rare = loop(NOP, NOP), (NOP, RET)
        with_rare = a72.price(executed((100_000, hot), (1, rare)))
        alone = a72.price(executed((100_000, hot)))
        assert with_rare.instructions == alone.instructions + 2
        assert with_rare.core_cycles == pytest.approx(alone.core_cycles * with_rare.instructions / alone.instructions)
        assert len(a72._known) == 1

    def test_what_llvm_does_not_know_costs_a_cycle_and_is_counted(self, a72):
        known = a72.price(executed((10, (fmla(0), RET))))
        mixed = a72.price(executed((10, (fmla(0), NOT_AN_INSTRUCTION, RET))))
        only = a72.price(executed((10, (NOT_AN_INSTRUCTION, NOT_AN_INSTRUCTION))))
        assert (known.unmodelled_instructions, mixed.unmodelled_instructions) == (0, 10)
        assert mixed.core_cycles == known.core_cycles + 10
        assert (only.core_cycles, only.unmodelled_instructions) == (20, 20)

    def test_code_seen_at_two_addresses_is_one_block(self, a72):
        block = loop(NOP)
        twice = a72.price(executed((10, block), (20, block)))
        assert dataclasses.astuple(twice) == dataclasses.astuple(a72.price(executed((30, block))))

    def test_the_price_does_not_depend_on_what_else_is_priced(self, a72, tmp_path):
        blocks = [loop(*map(fmla, range(n))) for n in range(1, 6)]
        together = a72.price(executed(*[(100, code) for code in blocks])).core_cycles
        one_by_one = CycleModel(a72.core, tmp_path / "other")
        assert together == pytest.approx(sum(one_by_one.price(executed((100, code))).core_cycles for code in blocks))

    def test_more_than_one_thread_is_refused(self, a72):
        with pytest.raises(DeviceFailed, match="2 threads"):
            a72.price(executed((1, (NOP,)), threads=2))

    def test_nothing_executed_is_no_time(self, a72):
        with pytest.raises(DeviceFailed, match="nothing was executed"):
            a72.price(executed())

    def test_unknown_core(self):
        with pytest.raises(UnknownName, match="cortex-a72"):
            find_core("cortex-a27")


class TestRuns:
    def test_a_dump_takes_one_run_of_each_tool(self, a72, monkeypatch):
        commands = []
        monkeypatch.setattr(cycles.subprocess, "run", _recording(commands, subprocess.run))
        counts = executed(*[(100, loop(*map(fmla, range(n)))) for n in range(1, 9)])
        a72.price(counts)
        tools = [command[0].rpartition("/")[2] for command in commands if "--version" not in command]
        assert len(tools) == 2 and tools[0].startswith("llvm-mc-") and tools[1].startswith("llvm-mca")
        a72.price(counts)
        assert (len(tools), a72.mca_runs) == (2, 1)

    def test_known_blocks_outlive_the_process(self, a72, tmp_path):
        counts = executed((100, loop(fmla(0))), (100, (NOP, RET)))
        first = a72.price(counts)
        again = CycleModel(a72.core, tmp_path / "cache")
        assert again.price(counts) == first
        assert (a72.mca_runs, again.mca_runs) == (1, 0)
        other_core = CycleModel(find_core("cortex-a53"), tmp_path / "cache")
        assert other_core.price(counts).core_cycles != first.core_cycles
        assert other_core.mca_runs == 1

    def test_a_damaged_cache_is_no_obstacle(self, tmp_path):
        (tmp_path / "cache").write_text("this is not a database, it is a text of some length" * 100)
        model = CycleModel(find_core("cortex-a72"), tmp_path / "cache")
        assert model.price(executed((100, loop(fmla(0))))).nanoseconds > 0

    def test_a_failing_llvm_mca_is_reported(self, tmp_path, monkeypatch):
        broken = tmp_path / "llvm-mca-99"
        broken.write_text("#!/bin/sh\necho version\necho it broke >&2\ncase $1 in --version) exit 0;; esac\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("TVM_SHUFFLENET_LLVM_MCA", str(broken))
        with pytest.raises(DeviceFailed, match="it broke"):
            CycleModel(find_core("cortex-a72"), tmp_path / "cache").price(executed((1, (NOP,))))


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

    def test_a_missing_dump_is_an_error(self, tmp_path):
        with pytest.raises(DeviceFailed, match="cannot be read"):
            read_counts(tmp_path / "1.1")


@pytest.mark.parametrize(
    ("last", "loops"),
    [
        (0x54FFFFC1, True),  # b.ne -8
        (0xB5FFFFC0, True),  # cbnz x0, -8
        (0x3607FFC0, True),  # tbz w0, #0, -8
        (0x17FFFFFE, True),  # b -8
        (0x54FFFFE1, False),  # b.ne -4
        (0x54000041, False),  # b.ne +8
        (0x97FFFFFE, False),  # bl -8
        (RET, False),
    ],
)
def test_loops_on_itself(last, loops):
    assert loops_on_itself((NOP, NOP, last)) is loops
