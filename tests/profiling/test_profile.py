"""Profiles: which operator an address belongs to, that every cycle is dealt out once, and what is printed of it."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import struct
from dataclasses import replace

import msgspec
import pytest
import torch
from rich.console import Console
from torch import nn

from helpers.profiles import cost, profile_of, work
from helpers.tensors import OUTPUT, only
from helpers.tiny_packages import as_before_schema_4
from tvm_shufflenet.clock.counts import BEYOND_L2, Arrival, Block, Counts, Share
from tvm_shufflenet.clock.cycles import LAUNCH_US, Cost, CycleModel
from tvm_shufflenet.clock.instructions import multiply_add_lanes
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.kernels import EMBEDDED, without_network
from tvm_shufflenet.errors import BadInput, DeviceFailed, PackageInvalid, UnknownName, WrongResult
from tvm_shufflenet.graph import pipeline
from tvm_shufflenet.graph.complexity import count
from tvm_shufflenet.hardware.boards import find_board
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.symbols import LibraryCode, read_code
from tvm_shufflenet.models import Model, randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit
from tvm_shufflenet.packages.manifest import MANIFEST, Argument, OperatorEntry
from tvm_shufflenet.packages.package import Package
from tvm_shufflenet.profiling.attribution import Attributed, attribute, load_address
from tvm_shufflenet.profiling.counted import Counted, assembly
from tvm_shufflenet.profiling.result import Profile
from tvm_shufflenet.report.documents import BenchDocument, ProfileDocument
from tvm_shufflenet.report.profile import print_profile
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.workflow.bench import bench_package
from tvm_shufflenet.workflow.compile import compile_package
from tvm_shufflenet.workflow.imported import import_model
from tvm_shufflenet.workflow.profile import profile_package

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
SHAPE = (1, 12, 8, 8)
A72 = find_board("cortex-a72")
FMLA, NOP = 0x4E3FCFC0, 0xD503201F
LOOP = (FMLA, FMLA + 1, FMLA + 2, FMLA + 3, 0xF1000400, 0x54FFFF61)  # ends in a branch to its start
LOADS = (0x3DC00000, 0x91004000, 0xF1000400, 0x54FFFFA1)


# The symbol table


def elf(functions: dict[str, int], code: bytes = bytes(256), address: int = 0x10000) -> bytes:
    """A library with one section of code and these functions in it, by their places there."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    table = bytes(24)
    for name, place in functions.items():
        table += struct.pack("<IBBHQQ", names.index(b"\0" + name.encode() + b"\0") + 1, 2, 0, 1, address + place, 4)
    parts = [b"", code, table, names]
    offsets = [64 + sum(map(len, parts[:index])) for index in range(len(parts))]
    kinds = [(0, 0), (1, 0), (2, 3), (3, 0)]
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, 183, 1) + bytes(16)
    header += struct.pack("<QIHHHHHH", 64 + sum(map(len, parts)), 0, 64, 0, 0, 64, len(parts), 0)
    sections = b"".join(
        struct.pack("<IIQQQQIIQQ", 0, kind, 0, address if index == 1 else 0, offset, len(part), link, 0, 1, 24)
        for index, ((kind, link), part, offset) in enumerate(zip(kinds, parts, offsets, strict=True))
    )
    return header + b"".join(parts) + sections


FUNCTIONS = {
    "__tvm_ffi___vmtir__main": 0,
    "__tvm_ffi_dense": 16,
    "__tvm_ffi_dense1": 32,
    "__vmtir__main_compute_": 48,
    "dense_compute_": 64,
    "dense1_compute_": 96,
    "__extendhfsf2": 128,
}


def stripped(library: bytes) -> bytes:
    """As ``strip`` leaves it: without the section that holds the symbol table, here by making it a note."""
    (sections,), (count,) = struct.unpack_from("<Q", library, 0x28), struct.unpack_from("<H", library, 0x3C)
    changed = bytearray(library)
    for place in range(sections + 4, sections + 64 * count, 64):
        if struct.unpack_from("<I", changed, place) == (2,):
            struct.pack_into("<I", changed, place, 7)
    return bytes(changed)


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "made.so"
    path.write_bytes(elf(FUNCTIONS))
    return path


def test_an_address_belongs_to_the_operator_whose_function_it_is_in(library):
    code = read_code(library, ["dense", "dense1"])
    places = {0: None, 16: "dense", 28: "dense", 32: "dense1", 48: None, 64: "dense", 96: "dense1", 124: "dense1"}
    places |= {128: None, 252: None, 256: None, -4: None}
    assert {place: code.owner(0x10000 + place) for place in places} == places


def test_the_body_of_a_parallel_loop_has_no_symbol_and_belongs_to_what_stands_before_it(library):
    # dense_compute_ is 4 bytes long, as the symbols say; what follows up to dense1_compute_ is its loop.
    assert {read_code(library, ["dense"]).owner(0x10000 + place) for place in range(68, 96, 4)} == {"dense"}


def test_two_symbols_at_one_place_are_no_obstacle(library):
    library.write_bytes(elf(FUNCTIONS | {"alias": 64}))
    assert read_code(library, ["dense"]).owner(0x10040) == "dense"


def with_section(library: bytes, index: int, place: int, value: int) -> bytes:
    """With another number in a section's header."""
    (sections,), changed = struct.unpack_from("<Q", library, 0x28), bytearray(library)
    struct.pack_into("<Q", changed, sections + 64 * index + place, value)
    return bytes(changed)


def with_symbol_in(library: bytes, section: int) -> bytes:
    """Every function in another section."""
    (sections,), changed = struct.unpack_from("<Q", library, 0x28), bytearray(library)
    start, size = struct.unpack_from("<QQ", library, sections + 64 * 2 + 24)
    for place in range(start + 24, start + size, 24):
        struct.pack_into("<H", changed, place + 6, section)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_section(elf(FUNCTIONS), 3, 24, 2**64 - 1), "cannot be read"),
        (with_section(elf(FUNCTIONS), 2, 24, 2**64 - 1), "cannot be read"),
        (with_symbol_in(elf(FUNCTIONS), 0xFFF1), "cannot be read"),
        (stripped(elf(FUNCTIONS)), "has no symbols"),
        (elf({}), "has no symbols"),
        (elf({"__tvm_ffi_dense": 0}), "has no functions for dense1"),
        (elf(FUNCTIONS)[:200], "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=[
        "names out of reach", "symbols out of reach", "no such section", "stripped", "empty", "partly stripped",
        "cut short", "nothing",
    ],
)  # fmt: skip
def test_a_library_without_what_is_needed_is_refused(library, content, message):
    library.write_bytes(content)
    with pytest.raises(PackageInvalid, match=message):
        read_code(library, ["dense", "dense1"])


# Counts, dealt out


def block(code, count: int, address: int, **more) -> Block:
    return Block(code, count, address, **more)


def counts_of(*blocks: Block) -> Counts:
    arrivals = [Arrival(each.code, each.count, (each.code,) * 64) for each in blocks]
    return Counts(1, blocks, tuple(arrivals))


def bytes_of(code) -> bytes:
    return struct.pack(f"<{len(code)}I", *code)


def test_the_load_address_is_where_the_executed_code_stands_in_the_library():
    content = bytes(32) + bytes_of(LOOP) + bytes(40) + bytes_of(LOADS) + bytes(16) + bytes_of(LOOP)
    code = LibraryCode(0x2000, content, (), ())
    base = 0x5500_0000_0000
    ran = [block(LOOP, 5, base + 0x2020), block(LOADS, 5, base + 0x2000 + content.index(bytes_of(LOADS)))]
    elsewhere = block((NOP,) * 8, 1000, 0x7000_1234)
    assert load_address(code, counts_of(*ran, elsewhere)) == base
    with pytest.raises(DeviceFailed, match="nothing of the library"):
        load_address(code, counts_of(elsewhere))


@pytest.fixture
def model(tmp_path):
    return CycleModel(A72, tmp_path / "cache")


def owner(address: int) -> str | None:
    return {1: "first", 2: "second"}.get(address >> 12)


def missing(lines: int) -> tuple[int, ...]:
    return tuple(lines if kind == BEYOND_L2 else 0 for kind in range(8))


@needs_tools
class TestAttribution:
    # The same loop in two operators, which the model prices as one: one computes in cache, the other waits for memory.
    COUNTS = counts_of(
        block(LOOP, 9000, 0x1000),
        block(LOOP, 1000, 0x2000, misses=missing(50_000), l1_writebacks=200, l2_writebacks=100),
        block(LOADS, 500, 0x2100, misses=missing(10)),
        block((NOP,) * 5, 100, 0x9000),
    )

    def by_owner(self, model):
        found: dict = {}
        for share in attribute(model, self.COUNTS, owner):
            found.setdefault(share.owner, []).append(share)
        return found

    def test_every_cycle_is_dealt_out_once(self, model):
        shares = [share for shares in self.by_owner(model).values() for share in shares]
        price = model.price(self.COUNTS)
        assert math.fsum(share.cycles for share in shares) == pytest.approx(price.total_cycles, rel=1e-12)
        assert sum(share.traffic.l2_misses for share in shares) == price.l2_misses
        assert sum(share.traffic.l2_writebacks for share in shares) == price.l2_writebacks

    def test_identical_code_is_told_apart_by_its_address(self, model):
        found = self.by_owner(model)
        (first,), seconds = found["first"], found["second"]
        second = next(share for share in seconds if share.blocks[0][0].code == LOOP)
        assert set(found) == {"first", "second", None} and len(seconds) == 2
        assert first.time.core_cycles == pytest.approx(9 * second.time.core_cycles)
        assert first.traffic.l1_misses == 0 and second.traffic.l1_misses == 50_000
        assert (first.time.bound, second.time.bound) == ("compute", "DRAM")
        assert second.cycles > 50_000 * A72.dram_latency_ns

    def test_an_operator_alone_is_priced_as_it_is(self, model):
        only = counts_of(self.COUNTS.blocks[0])
        (share,) = attribute(model, only, owner)
        assert share.cycles == pytest.approx(model.price(only).total_cycles)

    def test_costs_of_operators(self, model):
        entries = [
            OperatorEntry("first", 3, "template", multiply_adds=48_000, arguments=()),
            OperatorEntry("second", 1, "none", multiply_adds=0, arguments=()),
            OperatorEntry("idle", 1, "none", multiply_adds=0, arguments=()),
        ]
        counted = Counted(A72, tuple(entries), Attributed.of(model, self.COUNTS, owner), base=0)
        second, first, idle = counted.operators()
        assert (second.entry.name, first.entry.name, idle.entry.name) == ("second", "first", "idle")
        assert (first.work.bound, second.work.bound, idle.work.bound) == ("compute", "DRAM", "nothing")
        assert first.macs_per_cycle == pytest.approx(144_000 / first.work.cycles)
        assert second.work.l1_bytes == 64 * (50_010 + 200) and second.work.l2_bytes == 64 * (50_010 + 100)
        total = sum(row.time_us for row in (*counted.operators(), counted.runtime()))
        assert total == pytest.approx(model.price(self.COUNTS).nanoseconds / 1e3, abs=1e-3)
        loop = counted.hottest_loop("first")
        assert (loop.bound, loop.share_of_operator) == ("compute", 1)
        assert loop.multiply_adds_per_cycle == pytest.approx(16 * 9000 / loop.cycles)
        (listed,) = loop.blocks
        assert (listed.address, listed.runs, listed.cycles) == (0x1000, 9000, pytest.approx(loop.cycles))
        assert listed.instructions[0] == "fmla v0.4s, v30.4s, v31.4s" and listed.instructions[-1].startswith("b.ne")
        with pytest.raises(DeviceFailed, match="idle did not run"):
            counted.hottest_loop("idle")

    def test_a_parallel_region_is_its_operator_s(self, model):
        """Its time is the slowest share's, and the wait; its lines are those of all shares."""
        alone = counts_of(block((NOP,) * 5, 100, 0x9000))
        runs = (100, 900, 400)
        shares = tuple(
            Share(0x1000, core, 3, counts_of(block(LOOP, count, 0x1100, misses=missing(10))))
            for core, count in enumerate(runs)
        )
        streaming = counts_of(block(LOADS, 100, 0x2100, misses=tuple(9000 if kind == 3 else 0 for kind in range(8))))
        shares += tuple(Share(0x2000, core, 1, streaming) for core in range(2))
        counts = replace(alone, shares=shares)
        entries = [
            OperatorEntry(name, 1, "none", multiply_adds=16 * 1400, arguments=()) for name in ("first", "second")
        ]
        counted = Counted(A72, tuple(entries), Attributed.of(model, counts, owner), base=0)
        second, first = counted.operators()
        assert math.fsum(row.work.cycles for row in (first, second, counted.runtime())) == pytest.approx(
            model.price(counts).total_cycles, rel=1e-12
        )
        launch = LAUNCH_US * 1000 * A72.clock_ghz
        assert first.work.cycles == pytest.approx(model.price(shares[1].counts).total_cycles + 3 * launch)
        assert first.work.bound_cycles["launch"] == 3 * launch and first.work.l2_misses == 30
        # Two cores' lines go one after the other, at half the pace of one's.
        assert second.work.cycles > 18_000 * A72.dram_line_ns * A72.clock_ghz and second.work.bound == "DRAM"
        assert second.work.l2_bytes == 64 * 18_000
        assert counted.hottest_loop("first").blocks[0].runs == 900

    def test_assembly_shows_overlapping_blocks_once(self):
        entry = block((NOP, NOP, *LOOP), 2, 0x1000)
        rows = assembly([(entry, 16.0), (block(LOOP, 98, 0x1008), 600.0), (block((0,), 1, 0x2000), 1.0)], base=0x1000)
        assert [(row.address, row.runs, len(row.instructions)) for row in rows] == [
            (0, 2, 2),
            (8, 100, 6),
            (4096, 1, 1),
        ]
        assert [row.cycles for row in rows] == pytest.approx([4, 612, 1])
        assert rows[2].instructions == ("udf #0",)


# Packages


class Small(nn.Module):
    """A unit of ours, and at its end what no operator of ours computes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.unit = ShuffleUnit(12, 12, 3, 1, 3)
        randomise_batch_norms(self)

    def forward(self, data):
        return torch.tanh(self.unit(data))


@pytest.fixture(scope="module")
def imported():
    return import_model(Model("small", SHAPE, module=Small().eval()))


def compiled(imported, target: str, folder) -> Package:
    store = RecordStore(folder / "records", find_target(target).tvm())
    return compile_package(imported, find_target(target), store, folder / target)


@pytest.fixture(scope="module")
def local(imported, tmp_path_factory):
    return compiled(imported, "local", tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def arm(imported, tmp_path_factory):
    return compiled(imported, "arm64", tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def emulated():
    with find_device("emulated:cortex-a72", find_target("arm64")) as device:
        yield device


@pytest.fixture(scope="module")
def modelled(arm, emulated):
    return profile_package(arm, emulated, 1, assembly=True)


def rewritten(package: Package, folder, **changes) -> Package:
    """A copy whose operators have other facts."""
    shutil.copytree(package.folder, folder)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for operator in manifest["operators"]:
        for name, value in changes.items():
            operator.pop(name) if value is None else operator.update({name: value})
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Package(folder)


@pytest.mark.parametrize("passes", [pipeline.stock, pipeline.fuse])
def test_multiply_adds_of_operators_add_up_to_those_of_the_network(imported, passes):
    tasks = passes(imported.module, find_target("arm64")).tasks
    total = sum(task.occurrences * task.multiply_adds for task in tasks)
    assert total == count(imported.module).multiply_adds > 0


def test_the_manifest_says_what_operators_take(local, imported):
    by_name = {operator.name: operator for operator in local.manifest.operators}
    (tanh,) = (operator for operator in by_name.values() if operator.schedule == "none")
    assert tanh.arguments == (Argument(SHAPE, "float32"),) * 2 and tanh.multiply_adds == 0
    total = sum(operator.occurrences * operator.multiply_adds for operator in by_name.values())
    assert total == count(imported.module).multiply_adds


@needs_tools
class TestModelled:
    def test_operators_and_runtime_add_up_to_the_latency(self, modelled):
        assert modelled.kind == modelled.latency.kind == "modelled"
        assert modelled.sum_us == pytest.approx(modelled.latency.median_us, abs=1e-3)  # it is whole nanoseconds
        assert sum(map(modelled.share, modelled.rows)) == pytest.approx(1)

    def test_every_operator_ran_in_its_own_name(self, modelled, arm, emulated):
        assert {row.entry for row in modelled.operators} == set(arm.manifest.operators)
        assert all(row.time_us > 0 for row in modelled.operators) and modelled.runtime.time_us > 0
        code, counts = read_code(arm.library, [o.name for o in arm.manifest.operators]), emulated.last_counts()
        base, executed = load_address(code, counts), dict.fromkeys([*(o.name for o in arm.manifest.operators), None], 0)
        for each in counts.blocks:
            executed[code.owner(each.address - base)] += each.count * sum(map(multiply_add_lanes, each.code))
        # Pointwise convolutions are all fmla; a depthwise one may start with a product, and pads its rows.
        pointwise = {row.entry.name: row.multiply_adds for row in modelled.operators if "pointwise" in row.entry.name}
        assert pointwise and {name: executed[name] for name in pointwise} == pointwise
        assert executed[None] == 0

    def test_its_facts(self, modelled, arm):
        facts = msgspec.to_builtins(ProfileDocument.of(modelled))
        assert (facts["schema"], facts["kind"], facts["model"]) == (1, "modelled", "small")
        assert facts["peak_macs_per_cycle"] == 4 and facts["runtime"]["name"] == "runtime"
        times = [row["time_us"] for row in facts["operators"]]
        assert times == sorted(times, reverse=True) and facts["device"]["kind"] == "modelled"
        for row in facts["operators"]:
            assert 0 <= row["peak_share"] <= 1 and row["cycles"] > 0 and row["calls"] >= 1
            assert row["bound"] in ("compute", "L1", "L2", "DRAM", "front end", "latency")
            assert sum(row["bound_cycles"].values()) == pytest.approx(row["cycles"])
        (plain,) = facts["plain"]["operators"]
        assert "tanh" in plain and 0 < facts["plain"]["time_us"] < facts["sum_us"]

    def test_the_hottest_loop_is_the_hottest_operator_s(self, modelled):
        (loop,) = modelled.assembly
        hottest = modelled.operators[0]
        assert loop.operator == hottest.entry.name and 0 < loop.share_of_operator <= 1
        assert 0 < sum(block.cycles for block in loop.blocks) <= loop.cycles * 1.000001 <= hottest.work.cycles * 1.00001

    def test_another_operator_s_loop(self, arm, emulated, modelled):
        name = modelled.operators[1].entry.name
        (loop,) = profile_package(arm, emulated, 1, assembly_of=[name]).assembly
        assert loop.operator == name
        with pytest.raises(UnknownName, match=name):
            profile_package(arm, emulated, 1, assembly_of=[name + "x"])

    def test_the_device_knows_what_it_counted_last(self, emulated, modelled):
        cost, counts = emulated.last_cost(), emulated.last_counts()
        assert counts.instructions == cost.instructions
        with find_device("emulated", find_target("arm64")) as fresh, pytest.raises(DeviceFailed, match="timed nothing"):
            fresh.last_counts()

    def test_a_bench_and_a_profile_say_how_much_is_a_guess(self, modelled, arm, emulated):
        bench = bench_package(arm, emulated, 1, 0, 1)
        told = msgspec.to_builtins(BenchDocument.of(bench).unmodelled)
        assert told == {
            "instructions": bench.cost.unmodelled_instructions,
            "share_of_core_cycles": pytest.approx(0, abs=0.02),
        }
        assert bench.cost.nanoseconds == round(1e3 * bench.latency.median_us)
        assert ProfileDocument.of(modelled).unmodelled.share_of_core_cycles == pytest.approx(0, abs=0.02)

    def test_a_stripped_library_is_refused(self, arm, emulated, tmp_path):
        library = stripped(arm.library.read_bytes())
        folder = shutil.copytree(arm.folder, tmp_path / "stripped")
        (folder / "small.so").write_bytes(library)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        manifest["hashes"]["small.so"] = hashlib.sha256(library).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(PackageInvalid, match="has no symbols; likely cause: it was stripped"):
            profile_package(Package(folder), emulated, 1)

    def test_a_wrong_answer_has_no_profile(self, arm, emulated, monkeypatch):
        first, *others = arm.answers.each
        wrong = replace(first, expected={OUTPUT: only(first.expected) + 1})
        monkeypatch.setattr(Package, "answers", replace(arm.answers, each=(wrong, *others)))
        with pytest.raises(WrongResult, match="off by 1 from PyTorch"):
            profile_package(arm, emulated, 1)


@needs_tools
def test_on_several_cores_an_operator_s_time_is_its_slowest_share_s(imported, tmp_path):
    target = find_target("arm64")
    store = RecordStore(tmp_path / "records", target.tvm())
    package = compile_package(imported, target, store, tmp_path / "parallel", threads=2)
    with find_device("emulated:cortex-a72", target, 2) as device:
        profile = profile_package(package, device, 2, assembly=True)
    assert profile.sum_us == pytest.approx(profile.latency.median_us, abs=1e-3)
    launching = [row for row in profile.operators if "launch" in row.work.bound_cycles]
    facts = msgspec.to_builtins(ProfileDocument.of(profile))
    assert launching and (facts["threads"], facts["peak_macs_per_cycle"]) == (2, 8)
    assert all(sum(row.work.bound_cycles.values()) == pytest.approx(row.work.cycles) for row in profile.operators)
    assert sum(row.work.l1_misses for row in profile.rows) == profile.cost.l1_misses  # those of both cores
    assert "2 threads" in printed(profile) and "of 8 multiply-adds a cycle" in printed(profile)


@needs_tools
def test_instructions_that_llvm_mca_does_not_know_are_told(imported, tmp_path):
    """Code for a newer core, on one whose model lacks some of its instructions: QEMU's A76 runs it, llvm-mca's A55 has
    no timing for all of it."""


def test_on_a_measured_device_each_operator_is_timed_by_itself(local):
    with find_device("local", find_target("local")) as device:
        profile = profile_package(local, device, 1)
        with pytest.raises(BadInput, match="no assembly"):
            profile_package(local, device, 1, assembly=True)
    facts = msgspec.to_builtins(ProfileDocument.of(profile))
    assert (profile.kind, profile.runtime, profile.peak) == ("measured", None, None)
    assert facts["how"] == "each operator by itself, its data in cache" and facts["device"]["kind"] == "measured"
    assert {row.entry for row in profile.operators} == set(local.manifest.operators)
    assert all(row.time_us > 0 and row.work is None for row in profile.operators)
    assert {row["gmacs_per_second"] > 0 for row in facts["operators"] if row["multiply_adds"]} == {True}
    assert facts["sum_us"] == pytest.approx(sum(row["time_us"] for row in facts["operators"]))
    assert [name for name in facts["plain"]["operators"] if "tanh" in name]


def test_an_older_package_is_read_but_not_profiled(local, tmp_path):
    package = rewritten(local, tmp_path / "older", arguments=None, multiply_adds=None)
    as_before_schema_4(package.folder, 1)
    package = Package(package.folder)
    assert package.manifest.operators[0].arguments is None
    with find_device("local", find_target("local")) as device:
        assert bench_package(package, device, 1, 0, 1).latency.median_us > 0
        with pytest.raises(PackageInvalid, match="an earlier version compiled it; next: compile it again"):
            profile_package(package, device, 1)


def test_a_call_with_other_arguments_fails_by_name(local, tmp_path):
    package = rewritten(local, tmp_path / "other", arguments=[{"shape": [3], "dtype": "float32"}])
    with find_device("local", find_target("local")) as device, pytest.raises(DeviceFailed, match="timing operator"):
        profile_package(package, device, 1)


def test_only_the_network_is_hidden_from_the_loader():
    library = b"head" + EMBEDDED + b"tail"
    assert without_network(library) == b"head\0__tvm_ffi__library_off\0tail" and len(without_network(library)) == 32


# What is printed


def printed(profile: Profile, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, highlight=False, color_system="auto")
    print_profile(console, profile)
    return file.getvalue()


def sentences(profile: Profile) -> str:
    return " ".join(printed(profile).split())


class TestPrint:
    LONG = "fused_conv2d16_add13_add13_relu8_concatenate_reshape_transpose"

    def test_the_largest_numbers_fit_80_columns(self, local):
        for kind, done in (("modelled", work()), ("measured", None)):
            text = printed(profile_of(cost(self.LONG, work=done), manifest=local.manifest, kind=kind))
            assert max(map(len, text.splitlines())) <= 80
            assert "conv2d16_add13" in text.replace("…", "3") and "292739" in text

    def test_colour_is_for_terminals(self, local):
        rows = [cost("pointwise", work=work()), cost("tanh", schedule="none", work=work())]
        profile = profile_of(*rows, manifest=local.manifest)
        assert "\x1b[" in printed(profile, terminal=True) and "\x1b" not in printed(profile)

    def test_what_is_not_ours_is_named_with_its_cost(self, local):
        ours, plain = cost("pointwise", 90.0, work=work()), cost("tir_tanh", 9.0, schedule="none", work=work())
        text = printed(profile_of(ours, plain, manifest=local.manifest))
        assert "not ours, TVM's plain loops: tir_tanh; they cost 9.0 us, 9.0 %" in text
        assert "every operator is scheduled" in printed(profile_of(ours, manifest=local.manifest))
        assert "none of these operators is ours" in printed(profile_of(plain, manifest=local.manifest))
        many = [cost(f"plain{index}", 1.0, schedule="none", work=work()) for index in range(9)]
        assert "plain5 and 3 more; they cost 9.0 us" in sentences(profile_of(ours, *many, manifest=local.manifest))

    def test_what_llvm_mca_does_not_know_is_told_with_its_share(self, local):
        guessed = Cost(800.0, 0.0, 800.0, 1, 500, 20, 0, 0, unmodelled_cycles=20.0)
        profile = profile_of(cost("dense", work=work()), manifest=local.manifest, cost=guessed)
        assert "20 executed instructions are unknown to llvm-mca and taken at a cycle each: 2.5 %" in sentences(profile)
        assert msgspec.to_builtins(ProfileDocument.of(profile).unmodelled) == {
            "instructions": 20,
            "share_of_core_cycles": 0.025,
        }
        known = replace(profile, cost=msgspec.structs.replace(guessed, unmodelled_instructions=0))
        assert "unknown to llvm-mca" not in sentences(known)

    def test_how_it_was_had(self, local):
        measured = sentences(profile_of(cost("dense"), manifest=local.manifest, kind="measured"))
        assert "measured: each operator by itself, its data in cache" in measured
        assert "sum of the operators 292.739 ms, the whole network 0.100 ms (measured)" in measured
        modelled = sentences(profile_of(cost("dense", work=work()), manifest=local.manifest))
        assert "about 4 % off on average" in modelled and "0.100 ms (modelled)" in modelled
