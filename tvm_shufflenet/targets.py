"""Targets (what code is generated for) and cores (what the emulated device models), each one data entry.

This module imports neither TVM nor torch, so that listing targets costs nothing; ``Target.tvm()`` imports TVM.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from .errors import UnknownName


@dataclass(frozen=True)
class Cache:
    """One cache level: total ``bytes``, associativity ``ways``, ``line_bytes`` per line."""

    bytes: int
    ways: int
    line_bytes: int = 64


@dataclass(frozen=True)
class Core:
    """A Cortex-A core on a board, as the emulated device models it (devices/cycles.py). Sources are beside each entry.

    ``cpu`` is Arm's name, ``mca_cpu`` the one that selects llvm-mca's scheduling model and ``mca_units`` what that
    model's execution units are called, for llvm-mca prices a core that it has no model of by another's without a word.
    ``qemu_cpu`` is the model that QEMU executes. ``fp32_macs_per_cycle``, ``dispatch_width`` and the ports are the
    units' limits; a core without ``separate_ports`` loads or stores in a cycle, not both. ``in_flight`` is how many
    instructions are under way at once: the reorder buffer, or an in-order pipeline's depth times its width.
    ``l2_latency`` (cycles) and ``dram_latency_ns`` are what a load waits beyond an L1 hit, ``dram_line_ns`` how long a
    line takes to or from memory in a stream of them. ``compute_scale`` corrects llvm-mca's cycles.
    ``model_error_percent`` is the mean error of modelled latencies of networks that the fit left out, None where there
    was nothing to compare with: "not calibrated".
    """

    name: str
    cpu: str
    mca_cpu: str
    mca_units: str
    qemu_cpu: str
    clock_ghz: float
    l1d: Cache
    l2: Cache
    fp32_macs_per_cycle: int
    dispatch_width: int
    load_ports: int
    store_ports: int
    separate_ports: bool
    in_order: bool
    in_flight: int
    l2_latency: float
    dram_latency_ns: float
    dram_line_ns: float
    compute_scale: float
    model_error_percent: float | None
    source: str
    cores: int = 4


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


# A CPU as TVM writes it down, in files by whomever: which code is generated for it, and no options of LLVM's.
CONFIG_WORD = re.compile(r"[\w.+\-]{0,100}\Z")
CONFIG = {
    **dict.fromkeys(("mcpu", "mtriple", "mabi", "mfloat-abi", "tag"), lambda v: _is_word(v)),
    **dict.fromkeys(("mattr", "keys"), lambda v: isinstance(v, list) and len(v) <= 200 and all(map(_is_word, v))),
    **dict.fromkeys(("num-cores", "vector-width", "opt-level"), lambda v: type(v) is int and -1 <= v <= 4096),
    "kind": lambda value: value == "llvm",
}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and CONFIG_WORD.match(value) is not None


def is_cpu(config: object) -> bool:
    """Whether a target as JSON is a CPU and no more. TVM may be asked for such a target, whoever wrote it."""

    def plain(key: object, value: object) -> bool:
        if isinstance(key, str) and key.startswith("feature."):
            return type(value) in (bool, int) and _is_word(key)
        return isinstance(key, str) and key in CONFIG and CONFIG[key](value)

    return isinstance(config, dict) and "kind" in config and all(plain(*item) for item in config.items())


KIB, MIB = 1024, 1024 * 1024

# Fitted, to single-thread latencies of 16 networks that ncnn's users published for the Raspberry Pi 4B and 3B+
# (Tencent/ncnn, benchmark/README.md at a4d2ea1d): compute_scale and dram_line_ns; benchmarks/calibrate.py does it.
# Latencies and copy bandwidths: tinymembench on these boards, in ThomasKaiser/sbc-bench, Results.md at 02c3f9f3 and
# results/1MFf, 1iI5, 2sZH: l2_latency from buffers inside L2, dram_latency_ns from one of 4 MiB. On both fitted boards
# a line then takes 0.75 to 0.95 of the time that such a copy, which reads and writes, spends on one; boards without
# latencies to fit take theirs from their copy bandwidth: 0.85 * 64 bytes / (2 * bandwidth).
_A53 = Core(
    name="cortex-a53", cpu="cortex-a53", mca_cpu="cortex-a55", mca_units="CortexA55Unit", qemu_cpu="cortex-a53",
    clock_ghz=1.4,
    l1d=Cache(32 * KIB, 4), l2=Cache(512 * KIB, 16), fp32_macs_per_cycle=4, dispatch_width=2,
    load_ports=1, store_ports=1, separate_ports=False, in_order=True, in_flight=16,
    l2_latency=10.0, dram_latency_ns=142.0, dram_line_ns=19.4, compute_scale=0.97, model_error_percent=5.1,
    source="Raspberry Pi 3B+ (BCM2837B0); Cortex-A53 TRM DDI0500J ch. 6-7; one 128-bit multiply-add a cycle: ncnn's "
    "guide to A53 and A55 dual issue; 8 stages, 2 a cycle. llvm-mca's own A53 model holds independent instructions "
    "back behind long ones (llvm/llvm-project#213238); its A55 model comes closer. Copies at 1.23 GB/s",
)  # fmt: skip
_A55 = replace(
    _A53, name="cortex-a55", cpu="cortex-a55", qemu_cpu="neoverse-n1", clock_ghz=1.8, separate_ports=True,
    dram_line_ns=9.1, compute_scale=1.0, model_error_percent=None,
    source="RK3568; Cortex-A55 TRM 100442; Software Optimization Guide EPM128372: one load and one store pipe. Copies "
    "at 2.98 GB/s (Quartz64); latency of memory as Raspberry Pi 3B+",
)  # fmt: skip
_A72 = Core(
    name="cortex-a72", cpu="cortex-a72", mca_cpu="cortex-a72", mca_units="A57Unit", qemu_cpu="cortex-a72",
    clock_ghz=1.8,
    l1d=Cache(32 * KIB, 2), l2=Cache(1 * MIB, 16), fp32_macs_per_cycle=4, dispatch_width=3,
    load_ports=1, store_ports=1, separate_ports=True, in_order=False, in_flight=128,
    l2_latency=15.0, dram_latency_ns=115.0, dram_line_ns=12.1, compute_scale=0.96, model_error_percent=4.7,
    source="Raspberry Pi 4B (BCM2711); Cortex-A72 TRM 100095 ch. 6-7; Cortex-A72 Software Optimization Guide UAN0016 "
    "ch. 2: three a cycle, one load and one store pipe; 128 entries. Copies at 2.5 GB/s",
)  # fmt: skip
_A76 = Core(
    name="cortex-a76", cpu="cortex-a76", mca_cpu="neoverse-n1", mca_units="N1Unit", qemu_cpu="neoverse-n1",
    clock_ghz=2.4,
    l1d=Cache(64 * KIB, 4), l2=Cache(512 * KIB, 8), fp32_macs_per_cycle=8, dispatch_width=4,
    load_ports=2, store_ports=2, separate_ports=False, in_order=False, in_flight=128,
    l2_latency=9.0, dram_latency_ns=40.0, dram_line_ns=4.9, compute_scale=1.0, model_error_percent=None,
    source="Raspberry Pi 5 (BCM2712); Cortex-A76 TRM 100798; Software Optimization Guide PJDOC-466751330-7215 ch. 2: "
    "four a cycle, two load/store pipes; llvm-mca has no A76 model, Neoverse-N1 is its sibling; 128 entries. Beyond L2 "
    "lie a 2 MiB L3 and then memory, which a latency of 40 ns and copies at 5.5 GB/s stand between: a guess",
)  # fmt: skip

CORES: dict[str, Core] = {
    core.name: core
    for core in (
        _A53,
        _A55,
        _A72,
        _A76,
        replace(_A53, name="raspberry-pi-3b"),
        replace(_A72, name="raspberry-pi-4b"),
        replace(
            _A72, name="rk3399", cores=2, dram_latency_ns=131.0, dram_line_ns=7.0, model_error_percent=None,
            source="RK3399's Cortex-A72 cores; as Raspberry Pi 4B, but copies at 3.9 GB/s (RockPro64, NanoPC T4)",
        ),
        replace(_A55, name="rk3568"),
        replace(_A76, name="raspberry-pi-5"),
        replace(
            _A76, name="rk3588", clock_ghz=2.35, dram_line_ns=2.5,
            source="RK3588's Cortex-A76 cores; as Raspberry Pi 5, but copies at 10.8 GB/s (Rock 5B)",
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


def compiled_for(target: Target, config: Mapping[str, object]) -> Target:
    """``target`` with the CPU and attributes of ``config``, TVM's own form of the target that code was generated for:
    ``local`` meant another CPU where it was compiled. What is no name in ``config`` is passed over."""
    mcpu, mattr = config.get("mcpu"), config.get("mattr")
    return replace(
        target,
        mcpu=mcpu if mcpu and _is_word(mcpu) else target.mcpu,
        mattr=tuple(filter(_is_word, mattr if isinstance(mattr, list) else ())) or target.mattr,
    )


def find_core(name: str) -> Core:
    """The modelled core called ``name``. Raises UnknownName with the nearest ones."""
    if name not in CORES:
        raise UnknownName("core", name, CORES, f"name one of {', '.join(CORES)}")
    return CORES[name]


def features_of(target: Target) -> set[str]:
    """What code for the target may use, in LLVM's names; nothing is known of a CPU that is yet to be detected."""
    import tvm

    if target.mcpu == "native":
        return set()
    return {str(name) for name in tvm.get_global_func("target.llvm_get_cpu_features")(target.tvm())}
