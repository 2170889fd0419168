"""Targets: what code is generated for, one data entry each.

This module imports neither TVM nor torch, so that listing targets costs nothing; ``Target.tvm()`` imports TVM.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import BadInput, UnknownName
from ..precision import Precision
from .isa import AVX2, AVX512, NEON, SSE, Isa


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    ``isa`` is the vector instruction set that the templates count on; ``board`` the board, or the core on its usual
    one, that an emulated device models for it by default. ``shipped`` is the target whose shipped records serve it:
    itself where None.
    """

    name: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    num_cores: int
    isa: Isa
    board: str | None
    note: str
    shipped: str | None = None

    @property
    def machine(self) -> str:
        """The ELF machine that a library must carry."""
        return self.isa.machine

    @property
    def is_arm(self) -> bool:
        return self.machine == "aarch64"

    @property
    def tvm_config(self) -> dict:
        config = {"kind": "llvm", "mcpu": self.mcpu, "num-cores": self.num_cores, "mtriple": self.triple}
        if self.mattr:
            config["mattr"] = list(self.mattr)
        return config

    def refuse(self, precision: Precision) -> None:
        """Raises BadInput for a precision that code for this target cannot compute in."""
        wanted = FEATURES.get(precision.name)
        if wanted is not None and wanted not in self.mattr:
            able = ", ".join(name for name, each in targets().items() if wanted in each.mattr)
            raise BadInput(
                f"{self.name} does not compute in {precision.name}",
                f"its cores may lack the feature {wanted.removeprefix('+')} of ARMv8.2-A",
                f"choose another --target ({able}), or leave out --precision",
            )

    def tvm(self):
        import tvm

        return tvm.target.Target(self.tvm_config)

    def describe(self) -> str:
        attrs = ",".join(self.mattr) or "none"
        return f"{self.name}: {self.triple}, cpu {self.mcpu}, features {attrs}, {self.num_cores} cores"


# LLVM's names of what ARMv8.2-A cores since Cortex-A55 have beside NEON: dot products and arithmetic in half precision.
DOTPROD = ("+neon", "+dotprod", "+fullfp16")

# What code in a precision needs, in LLVM's names.
FEATURES = {"float16": "+fullfp16"}

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


def _arm(
    name: str, mcpu: str, board: str, note: str, mattr=("+neon",), num_cores: int = 4, triple: str = "aarch64-linux-gnu"
) -> Target:
    """Records are shipped for the cores; a generic target or a board takes those of the core it is modelled as."""
    return Target(name, triple, mcpu, mattr, num_cores, NEON, board, note, None if name == board else board)


@functools.cache
def targets() -> dict[str, Target]:
    """Every preset by name."""
    presets = [
        _arm("arm64", "generic", "cortex-a72", "any ARMv8-A Cortex-A; modelled as Cortex-A72"),
        _arm("cortex-a53", "cortex-a53", "cortex-a53", "in-order ARMv8-A"),
        _arm("cortex-a55", "cortex-a55", "cortex-a55", "in-order ARMv8.2-A with dot product", DOTPROD),
        _arm("cortex-a72", "cortex-a72", "cortex-a72", "out-of-order ARMv8-A"),
        _arm("cortex-a76", "cortex-a76", "cortex-a76", "out-of-order ARMv8.2-A with dot product", DOTPROD),
        _arm("raspberry-pi-3b", "cortex-a53", "cortex-a53", "BCM2837, 4x Cortex-A53"),
        _arm("raspberry-pi-4b", "cortex-a72", "cortex-a72", "BCM2711, 4x Cortex-A72"),
        _arm("raspberry-pi-5", "cortex-a76", "cortex-a76", "BCM2712, 4x Cortex-A76", DOTPROD),
        _arm("android-arm64", "generic", "cortex-a72", "any 64-bit Android phone", triple="aarch64-linux-android"),
        Target("x86-64", "x86_64-linux-gnu", "haswell", (), 2, AVX2, None, "x86-64 with AVX2 and FMA"),
        Target("x86-64-avx512", "x86_64-linux-gnu", "skylake-avx512", (), 2, AVX512, None, "x86-64 with AVX-512"),
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
    isa = NEON if machine == "aarch64" else _x86_vectors()
    shipped = {NEON: "cortex-a72", AVX2: "x86-64", AVX512: "x86-64-avx512"}.get(isa)
    note, cores = "the machine this runs on", os.cpu_count() or 1
    return Target("local", f"{machine}-linux-gnu", "native", (), cores, isa, None, note, shipped)


def _x86_vectors() -> Isa:
    """The vectors of this x86 machine, from the kernel's list of CPU features."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            flags = next((line for line in cpuinfo if line.startswith("flags")), "")
    except OSError:
        flags = ""
    if " avx512f" in flags:
        return AVX512
    return AVX2 if " avx2" in flags else SSE


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
        mcpu=str(mcpu) if mcpu and _is_word(mcpu) else target.mcpu,
        mattr=tuple(filter(_is_word, mattr if isinstance(mattr, list) else ())) or target.mattr,
    )


def features_of(target: Target) -> set[str]:
    """What code for the target may use, in LLVM's names; nothing is known of a CPU that is yet to be detected."""
    import tvm

    if target.mcpu == "native":
        return set()
    return {str(name) for name in tvm.get_global_func("target.llvm_get_cpu_features")(target.tvm())}
