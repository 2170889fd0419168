"""What is present and missing here, each with the command that brings it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from .errors import DeployError, ToolMissing
from .toolchain import FFI_VERSION, TVM_VERSION, Tool, all_tools, cache_dir, find_adb, find_llvm_objcopy, find_ssh

PACKAGES = {"apache-tvm": TVM_VERSION, "apache-tvm-ffi": FFI_VERSION, "torch": None, "xgboost": None}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``error`` is what is wrong with it, if anything. What is not ``required`` serves
    one command only."""

    name: str
    purpose: str
    found: str | None
    error: DeployError | None = None
    required: bool = True

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_json(self) -> dict:
        facts = {"name": self.name, "purpose": self.purpose, "found": self.found, "ok": self.ok}
        facts["required"] = self.required
        return facts if self.ok else facts | {"install": self.error.next_step, "problem": self.error.what}


def examine(device: str | None = None) -> list[Finding]:
    """Python packages, programs, the cache folder, and ``device`` if one is named: it is started and asked."""
    findings = [_package(name, version) for name, version in PACKAGES.items()]
    findings += [_tool(tool) for tool in all_tools()]
    findings += [_tool(tool, required=False) for tool in (find_llvm_objcopy(), find_ssh(), find_adb())]
    findings.append(Finding("cache", "built servers and plugins", str(cache_dir())))
    if device is not None:
        findings.append(_device(device))
    return findings


def _tool(tool: Tool, required: bool = True) -> Finding:
    error = None if tool.path else ToolMissing(f"{tool.name} is missing ({tool.purpose})", "", tool.install)
    return Finding(tool.name, tool.purpose, tool.path, error, required)


def _package(name: str, wanted: str | None) -> Finding:
    purpose = f"version {wanted}" if wanted else "Python package"
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    pin = f"{name}=={wanted}" if wanted else name
    error = None
    if found is None or (wanted and found != wanted):
        error = ToolMissing(f"{name} is {found or 'missing'}", "", f"python -m pip install {pin}")
    return Finding(name, purpose, found, error)


def _device(spec: str) -> Finding:
    from .devices import find_device
    from .targets import host_machine, targets

    target = (
        next(t for t in targets().values() if t.machine == host_machine()) if spec == "local" else targets()["arm64"]
    )
    try:
        with find_device(spec, target, match=False) as device:
            session = device.endpoint().connect(10)
            info = (
                session.get_function("tvm_shufflenet.server_info") if device.name != spec or "://" not in spec else None
            )
            return Finding(spec, "device", str(info()) if info else device.describe())
    except DeployError as exc:
        return Finding(spec, "device", None, exc)
