"""Checks the requirements on this machine, each with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from dataclasses import dataclass

from ..errors import DeployError, ToolMissing
from ..support.surroundings import LEAST_FREE_BYTES, Unusable, make_folder, own_folders
from ..support.toolchain import (
    FFI_VERSION,
    TVM_VERSION,
    Tool,
    apt,
    emulation_tools,
    find_adb,
    find_llvm_objcopy,
    find_ssh,
    find_zig,
)

PACKAGES = {"apache-tvm": TVM_VERSION, "apache-tvm-ffi": FFI_VERSION, "torch": None, "xgboost": None}


@dataclass(frozen=True)
class Requirement:
    """One thing that was looked at; ``error`` is what is wrong with it, if anything. What is not ``required`` serves
    one command only."""

    name: str
    purpose: str
    found: str | None
    error: DeployError | None = None
    required: bool = True
    packages: tuple[str, ...] = ()  # of apt, or the one of pip

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True)
class Ability:
    """Something that a user may want, and what is missing for it."""

    what: str
    missing: tuple[str, ...]


CACHE, TEMPORARY = "cache", "temporary files"
COMMON = (*PACKAGES, "zig", CACHE, TEMPORARY)
EMULATION = ("qemu-aarch64", "arm64 sysroot", "llvm-mca", "llvm-mc")
# What users want, and the requirements that it rests on.
WISHES = {
    "compile for every target": COMMON,
    "tune, run and measure on this machine": COMMON,
    "tune, run and measure on emulated Cortex-A cores": (*COMMON, *EMULATION),
    "static libraries": (*COMMON, "llvm-objcopy"),
    "deploy over ssh": (CACHE, TEMPORARY, "ssh"),
    "deploy to a phone": (CACHE, TEMPORARY, "adb"),
}


def examine(device: str | None = None, target: str | None = None) -> list[Requirement]:
    """Python packages, programs, folders, and ``device`` if one is named: it is started and asked.

    Required is what ``device`` and ``target`` need; without either, what emulated cores need, too. Raises UnknownName.
    """
    emulates = _emulates(device, target)
    requirements = [_package(name, version) for name, version in PACKAGES.items()]
    requirements.append(_tool(find_zig()))
    has_zig = requirements[-1].ok
    requirements += [
        _tool(tool, emulates and not (tool.name == "C compiler" and has_zig)) for tool in emulation_tools()
    ]
    requirements += [_tool(tool, required=False) for tool in (find_llvm_objcopy(), find_ssh(), find_adb())]
    requirements += _folders()
    if device is not None:
        requirements.append(_device(device))
    return requirements


def _emulates(device: str | None, target: str | None) -> bool:
    from ..hardware.targets import find_target, targets

    wanted = None if target is None else targets().get(target) or find_target(target)  # which raises, and is slow
    if device is not None:
        return device.partition(":")[0] == "emulated"
    return wanted is None or wanted.board is not None


def abilities(requirements: list[Requirement]) -> list[Ability]:
    """What works here, and what does not for want of what."""
    wrong = {requirement.name for requirement in requirements if not requirement.ok}
    return [Ability(what, tuple(name for name in needs if name in wrong)) for what, needs in WISHES.items()]


def install_commands(requirements: list[Requirement]) -> list[str]:
    """The commands that bring all that is missing and required: one of apt, one of pip."""
    missing = [
        requirement
        for requirement in requirements
        if requirement.required and not requirement.ok and requirement.packages
    ]
    of_pip = (*PACKAGES, "zig")
    pip = [requirement.packages[0] for requirement in missing if requirement.name in of_pip]
    debian = dict.fromkeys(
        name for requirement in missing if requirement.name not in of_pip for name in requirement.packages
    )
    commands = [apt(*debian)] if debian else []
    return commands + ([f"{sys.executable} -m pip install {' '.join(pip)}"] if pip else [])


def _folders() -> list[Requirement]:
    """Where this program writes: the folders need not exist, but it must be possible to make them."""
    names = {"TVM_SHUFFLENET_CACHE": CACHE, "TMPDIR": TEMPORARY, "XDG_DATA_HOME": "tuning records"}
    return [_folder(names[own.variable], own) for own in own_folders() if own.variable in names]


def _folder(name: str, own) -> Requirement:
    try:
        make_folder(own.path, own.what, own.variable)
        free = shutil.disk_usage(own.path).free
        if free < LEAST_FREE_BYTES:
            what = f"the disk of {own.what}, {own.path}, is full"
            raise Unusable(what, "", f"free space there, or set {own.variable} to another folder")
    except DeployError as exc:
        return Requirement(name, own.what, None, exc)
    return Requirement(name, own.what, f"{own.path}, {free / 1e9:.1f} GB free")


def _tool(tool: Tool, required: bool = True) -> Requirement:
    error = None if tool.path else ToolMissing(f"{tool.name} is missing ({tool.purpose})", "", tool.install)
    return Requirement(tool.name, tool.purpose, tool.path, error, required, tool.packages)


def _package(name: str, wanted: str | None) -> Requirement:
    purpose = f"version {wanted}" if wanted else "Python package"
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    pin = f"{name}=={wanted}" if wanted else name
    error = None
    if found is None or (wanted and found != wanted):
        error = ToolMissing(f"{name} is {found or 'missing'}", "", f"python -m pip install {pin}")
    return Requirement(name, purpose, found, error, packages=(pin,))


def _device(spec: str) -> Requirement:
    from ..devices import find_device
    from ..hardware.targets import host_machine, targets

    target = (
        next(t for t in targets().values() if t.machine == host_machine()) if spec == "local" else targets()["arm64"]
    )
    try:
        with find_device(spec, target, match=False) as device:
            session = device.endpoint().connect(10)
            info = (
                session.get_function("tvm_shufflenet.server_info") if device.name != spec or "://" not in spec else None
            )
            return Requirement(spec, "device", str(info()) if info else device.describe())
    except DeployError as exc:
        return Requirement(spec, "device", None, exc)
