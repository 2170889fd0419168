"""Targets (what code is generated for) and cores (what the emulated device models), each one data entry.

This module imports neither TVM nor torch, so that listing targets costs nothing; ``Target.tvm()`` imports TVM.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

from .errors import UnknownName


@dataclass(frozen=True)
class Cache:
    """One cache level: total ``bytes``, associativity ``ways``, ``line_bytes`` per line."""

    bytes: int
    ways: int
    line_bytes: int = 64


@dataclass(frozen=True)
class Core:
    """A Cortex-A core as the emulated device models it.

    ``mca_cpu`` is the scheduling model llvm-mca uses, ``qemu_cpu`` the model QEMU executes. ``l2_hit_cycles`` and
    ``dram_ns`` are what an L1 miss that hits L2, and an L2 miss, add beyond an L1 hit; ``l2_hit_exposed`` and
    ``dram_exposed`` the share of them that prefetching and out-of-order execution do not hide, fitted. A block's own
    latency overlaps with its neighbours for ``overlap_cycles``: reorder buffer / dispatch width, or the depth of an
    in-order pipeline. ``model_error_percent`` is the mean error of modelled latencies of networks that the fit left
    out, None where there was nothing to fit to. Sources are beside each entry.
    """

    name: str
    mca_cpu: str
    qemu_cpu: str
    clock_ghz: float
    l1d: Cache
    l2: Cache
    l2_hit_cycles: float
    dram_ns: float
    fp32_macs_per_cycle: int
    source: str
    overlap_cycles: float
    l2_hit_exposed: float
    dram_exposed: float
    model_error_percent: float | None


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    ``machine`` is the ELF machine a library must carry; ``core`` the core an emulated device models for it by default;
    ``lanes`` the float32 lanes of one vector register and ``vector_registers`` how many there are. ``shipped`` is the
    target whose shipped records serve it: itself where None.
    """

    name: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    num_cores: int
    machine: str
    lanes: int
    vector_registers: int
    core: str | None
    note: str
    shipped: str | None = None

    @property
    def is_arm(self) -> bool:
        return self.machine == "aarch64"

    @property
    def tvm_config(self) -> dict:
        config = {"kind": "llvm", "mcpu": self.mcpu, "num-cores": self.num_cores, "mtriple": self.triple}
        if self.mattr:
            config["mattr"] = list(self.mattr)
        return config

    def tvm(self):
        import tvm

        return tvm.target.Target(self.tvm_config)

    def describe(self) -> str:
        attrs = ",".join(self.mattr) or "none"
        return f"{self.name}: {self.triple}, cpu {self.mcpu}, features {attrs}, {self.num_cores} cores"

    def to_json(self) -> dict:
        return asdict(self)


KIB, MIB = 1024, 1024 * 1024

# The exposed shares and errors are fitted to single-thread latencies of 16 networks that ncnn's users published for
# these two boards (Tencent/ncnn, benchmark/README.md at a4d2ea1d), each network left out of its own prediction.
# llvm-mca's own Cortex-A53 model holds independent instructions back behind long ones, which the core does not do (see
# llvm/llvm-project#213238), and misses these latencies by 14 %; the A55's is in-order too and comes closer.
CORES: dict[str, Core] = {
    core.name: core
    for core in (
        Core(
            "cortex-a53", "cortex-a55", "cortex-a53", 1.4, Cache(32 * KIB, 4), Cache(512 * KIB, 16), 12.0, 110.0, 4,
            "Raspberry Pi 3B+ (BCM2837B0); Cortex-A53 TRM DDI0500J ch. 6-7; one 128-bit multiply-add a cycle: ncnn's "
            "guide to A53 and A55 dual issue",
            4.0, 0.85, 0.145, 10.2,
        ),
        Core(
            "cortex-a55", "cortex-a55", "cortex-a53", 1.8, Cache(32 * KIB, 4), Cache(512 * KIB, 16), 10.0, 110.0, 4,
            "RK3568; Cortex-A55 TRM 100442; exposed shares as Cortex-A53",
            4.0, 0.85, 0.145, None,
        ),
        Core(
            "cortex-a72", "cortex-a72", "cortex-a72", 1.8, Cache(32 * KIB, 2), Cache(1 * MIB, 16), 12.0, 90.0, 4,
            "Raspberry Pi 4B (BCM2711); Cortex-A72 TRM 100095 ch. 6-7; 128 entries, 3 a cycle",
            42.0, 0.89, 0.104, 10.3,
        ),
        Core(
            "cortex-a76", "neoverse-n1", "neoverse-n1", 2.4, Cache(64 * KIB, 4), Cache(512 * KIB, 8), 9.0, 40.0, 8,
            "Raspberry Pi 5 (BCM2712); Cortex-A76 TRM 100798; llvm-mca has no A76 model of its own, Neoverse-N1 is its "
            "sibling; 128 entries, 4 a cycle; exposed shares as Cortex-A72; beyond L2 lie a 2 MiB L3 and then memory, "
            "which 40 ns stands between: a guess",
            32.0, 0.89, 0.104, None,
        ),
    )
}  # fmt: skip


def _arm(
    name: str, mcpu: str, core: str, note: str, mattr=("+neon",), num_cores: int = 4, triple: str = "aarch64-linux-gnu"
) -> Target:
    """Records are shipped for the cores; a generic target or a board takes those of the core it is modelled as."""
    return Target(name, triple, mcpu, mattr, num_cores, "aarch64", 4, 32, core, note, None if name == core else core)


@functools.cache
def targets() -> dict[str, Target]:
    """Every preset by name."""
    presets = [
        _arm("arm64", "generic", "cortex-a72", "any ARMv8-A Cortex-A; modelled as Cortex-A72"),
        _arm("cortex-a53", "cortex-a53", "cortex-a53", "in-order ARMv8-A"),
        _arm(
            "cortex-a55",
            "cortex-a55",
            "cortex-a55",
            "in-order ARMv8.2-A with dot product",
            ("+neon", "+dotprod", "+fullfp16"),
        ),
        _arm("cortex-a72", "cortex-a72", "cortex-a72", "out-of-order ARMv8-A"),
        _arm(
            "cortex-a76",
            "cortex-a76",
            "cortex-a76",
            "out-of-order ARMv8.2-A with dot product",
            ("+neon", "+dotprod", "+fullfp16"),
        ),
        _arm("raspberry-pi-3b", "cortex-a53", "cortex-a53", "BCM2837, 4x Cortex-A53"),
        _arm("raspberry-pi-4b", "cortex-a72", "cortex-a72", "BCM2711, 4x Cortex-A72"),
        _arm(
            "raspberry-pi-5", "cortex-a76", "cortex-a76", "BCM2712, 4x Cortex-A76", ("+neon", "+dotprod", "+fullfp16")
        ),
        _arm("android-arm64", "generic", "cortex-a72", "any 64-bit Android phone", triple="aarch64-linux-android"),
        Target("x86-64", "x86_64-linux-gnu", "haswell", (), 2, "x86_64", 8, 16, None, "x86-64 with AVX2 and FMA"),
        Target(
            "x86-64-avx512", "x86_64-linux-gnu", "skylake-avx512", (), 2, "x86_64", 16, 32, None, "x86-64 with AVX-512"
        ),
        _local(),
    ]
    return {target.name: target for target in presets}


def host_machine() -> str:
    """ELF machine name of this computer."""
    import platform

    return {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())


def _local() -> Target:
    """This machine, as LLVM sees it once TVM is loaded: see ``resolve``."""
    import os

    machine = host_machine()
    triple = f"{machine}-linux-gnu"
    lanes, registers = (4, 32) if machine == "aarch64" else _x86_vectors()
    shipped = "cortex-a72" if machine == "aarch64" else {8: "x86-64", 16: "x86-64-avx512"}.get(lanes)
    note = "the machine this runs on"
    return Target("local", triple, "native", (), os.cpu_count() or 1, machine, lanes, registers, None, note, shipped)


def _x86_vectors() -> tuple[int, int]:
    """Float32 lanes and vector registers of this x86 machine, from the kernel's list of CPU features."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            flags = next((line for line in cpuinfo if line.startswith("flags")), "")
    except OSError:
        flags = ""
    if " avx512f" in flags:
        return 16, 32
    return (8, 16) if " avx2" in flags else (4, 16)


def find_target(name: str) -> Target:
    """The preset called ``name``. Raises UnknownName. ``local`` is resolved to the name of this CPU."""
    known = targets()
    if name not in known:
        raise UnknownName("target", name, known, "tvm-shufflenet targets")
    return _resolved(known[name]) if name == "local" else known[name]


@functools.cache
def _resolved(target: Target) -> Target:
    """``native`` replaced by the CPU that LLVM detects: a record must name the code it was measured on."""
    import dataclasses

    import tvm

    cpu = str(tvm.get_global_func("target.llvm_get_system_cpu")())
    triple = str(tvm.get_global_func("target.llvm_get_system_triple")())
    return dataclasses.replace(target, mcpu=cpu, triple=triple)


def find_core(name: str) -> Core:
    """The modelled core called ``name``. Raises UnknownName with the nearest ones."""
    if name not in CORES:
        raise UnknownName("core", name, CORES, "tvm-shufflenet targets")
    return CORES[name]
