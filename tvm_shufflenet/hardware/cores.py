"""Cores: microarchitectures, with the constants that the templates and the clock model use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..precision import Precision
from .isa import NEON, Isa

KIB, MIB = 1024, 1024 * 1024
ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
ARMV8_2 = f"{ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Cache:
    """One cache level: total ``bytes``, associativity ``ways``, ``line_bytes`` per line."""

    bytes: int
    ways: int
    line_bytes: int = 64


@dataclass(frozen=True)
class Costs:
    """Cycles by which the templates rank schedules.

    ``latency`` passes until a multiply-add can use the result of the last one; ``load`` is added for each load beside
    multiply-adds, ``step`` for each step of the reduction, ``store`` to start and store one vector of results.

    Fitted to times of pointwise operators, modelled on the emulated cores and measured on an x86-64 server:
    benchmarks/pointwise.py tells how good the schedules are that they rank first.
    """

    latency: float
    load: float
    step: float
    store: float


@dataclass(frozen=True)
class Core:
    """A microarchitecture, as the emulated device models it (clock/cycles.py). Sources are beside each entry.

    ``cpu`` is Arm's name, ``part`` its number in the Main ID register and ``features`` what Linux says of it, by which
    engines choose their kernels. ``mca_cpu`` selects llvm-mca's scheduling model and ``mca_units`` is what that model's
    execution units are called, for llvm-mca prices a core that it has no model of by another's without a word.
    ``qemu_cpu`` is the model that QEMU executes. ``fp32_macs_per_cycle``, ``dispatch_width`` and the ports are the
    units' limits; a core without ``separate_ports`` loads or stores in a cycle, not both. ``in_flight`` is how many
    instructions are under way at once: the reorder buffer, or an in-order pipeline's depth times its width.
    ``l2_latency`` (cycles) is what a load waits beyond an L1 hit. ``compute_scale`` corrects llvm-mca's cycles.
    """

    cpu: str
    part: int
    features: str
    isa: Isa
    mca_cpu: str
    mca_units: str
    qemu_cpu: str
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
    compute_scale: float
    costs: Costs
    source: str

    @property
    def vector_multiply_adds(self) -> float:
        """Multiply-adds of whole vector registers that start in a cycle, whatever their lanes hold."""
        return self.fp32_macs_per_cycle / self.isa.lanes()

    def macs_per_cycle(self, precision: Precision) -> float:
        """Multiply-adds of single numbers that start in a cycle."""
        return self.vector_multiply_adds * self.isa.lanes(precision.bytes)


ONE_PIPE = Costs(latency=9.0, load=0.08, step=0.0, store=4.0)  # one vector multiply-add a cycle
TWO_PIPES = Costs(latency=6.0, load=0.08, step=0.5, store=2.0)

# compute_scale is fitted, to single-thread latencies of 16 networks that ncnn's users published for the Raspberry Pi 4B
# and 3B+ (Tencent/ncnn, benchmark/README.md at a4d2ea1d); benchmarks/calibrate.py does it. l2_latency: from buffers
# inside L2 under tinymembench on boards of these cores (ThomasKaiser/sbc-bench, Results.md at 02c3f9f3).
CORTEX_A53 = Core(
    cpu="cortex-a53", part=0xD03, features=ARMV8, isa=NEON,
    mca_cpu="cortex-a55", mca_units="CortexA55Unit", qemu_cpu="cortex-a53",
    l1d=Cache(32 * KIB, 4), l2=Cache(512 * KIB, 16), fp32_macs_per_cycle=4, dispatch_width=2,
    load_ports=1, store_ports=1, separate_ports=False, in_order=True, in_flight=16,
    l2_latency=10.0, compute_scale=0.97, costs=ONE_PIPE,
    source="Cortex-A53 TRM DDI0500J ch. 6-7; one 128-bit multiply-add a cycle: ncnn's guide to A53 and A55 dual issue; "
    "8 stages, 2 a cycle. llvm-mca's own A53 model holds independent instructions back behind long ones "
    "(llvm/llvm-project#213238); its A55 model comes closer",
)  # fmt: skip
CORTEX_A55 = replace(
    CORTEX_A53, cpu="cortex-a55", part=0xD05, features=ARMV8_2, qemu_cpu="neoverse-n1",
    separate_ports=True, compute_scale=1.0,
    source="Cortex-A55 TRM 100442; Software Optimization Guide EPM128372: one load and one store pipe",
)  # fmt: skip
CORTEX_A72 = Core(
    cpu="cortex-a72", part=0xD08, features=ARMV8, isa=NEON,
    mca_cpu="cortex-a72", mca_units="A57Unit", qemu_cpu="cortex-a72",
    l1d=Cache(32 * KIB, 2), l2=Cache(1 * MIB, 16), fp32_macs_per_cycle=4, dispatch_width=3,
    load_ports=1, store_ports=1, separate_ports=True, in_order=False, in_flight=128,
    l2_latency=15.0, compute_scale=0.96, costs=ONE_PIPE,
    source="Cortex-A72 TRM 100095 ch. 6-7; Cortex-A72 Software Optimization Guide UAN0016 ch. 2: three a cycle, one "
    "load and one store pipe; 128 entries",
)  # fmt: skip
CORTEX_A76 = Core(
    cpu="cortex-a76", part=0xD0B, features=ARMV8_2, isa=NEON,
    mca_cpu="neoverse-n1", mca_units="N1Unit", qemu_cpu="neoverse-n1",
    l1d=Cache(64 * KIB, 4), l2=Cache(512 * KIB, 8), fp32_macs_per_cycle=8, dispatch_width=4,
    load_ports=2, store_ports=2, separate_ports=False, in_order=False, in_flight=128,
    l2_latency=9.0, compute_scale=1.0, costs=TWO_PIPES,
    source="Cortex-A76 TRM 100798; Software Optimization Guide PJDOC-466751330-7215 ch. 2: four a cycle, two load and "
    "store pipes; llvm-mca has no A76 model, Neoverse-N1 is its sibling; 128 entries",
)  # fmt: skip
