"""The peers' Python environments, one for each compatible set of pins, created once in the cache folder.

PyTorch is not installed there. It comes from this tool's own environment, so every peer converts the network with the
very PyTorch that it is compared with, and no second one (with its gigabytes for GPUs) is downloaded.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..locks import lock
from ..support import toolchain
from ..support.cached_build import cached_build
from ..support.processes import run_installer

Announce = Callable[[str], None]

# The one table of versions. LiteRT's requirements clash with onnx's; the other two agree, and are the extra "peers" of
# pyproject.toml: where that is installed, they run in this tool's own environment.
PINS = {
    "onnx": ("onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.31.1", "openvino==2026.4.1"),
    "ncnn": ("ncnn==1.0.20261020", "pnnx==20261020"),
    "litert": ("litert-torch==0.10.0", "ai-edge-litert==2.3.0"),
}
# onnxruntime would otherwise start a thread that reports to its makers, beside the inference that is timed.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
OWN = "own"  # this tool's own environment, which has PyTorch
INSTALL_LIMIT_S = 1800


def pinned(environment: str, package: str) -> str:
    """The version of a package that its environment pins, or of one of this tool's own."""
    if environment == OWN:
        return importlib.metadata.version(package)
    return dict(pin.split("==") for pin in PINS[environment])[package]


def environment_python(name: str, announce: Announce) -> Path:
    """The Python of an environment, made if necessary. Raises ToolMissing where its packages cannot be had."""
    if name == OWN or installed(PINS[name]):
        return Path(sys.executable)
    folder = peers_folder() / name
    key = [lock(name).read_bytes(), importlib.metadata.version("torch"), sys.version, *own_packages()]

    def build(temporary: Path) -> None:
        announce(f"making the environment of {', '.join(PINS[name])} (once)")
        _make(temporary, name)

    return cached_build(str(folder), key, build) / "bin" / "python"


def installed(pins: tuple[str, ...]) -> bool:
    """Whether this tool's own environment has exactly these versions."""
    try:
        return all(importlib.metadata.version(name) == version for name, version in (pin.split("==") for pin in pins))
    except importlib.metadata.PackageNotFoundError:
        return False


def peers_folder() -> Path:
    folder = toolchain.cache_dir() / "peers"
    folder.mkdir(exist_ok=True)
    return folder


def own_packages() -> list[str]:
    """The folders that this Python imports installed packages from."""
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages")) and os.path.isdir(path)]


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change another Python's imports, and with telemetry off."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | QUIET


def _make(folder: Path, name: str) -> None:
    """A virtual environment that sees this tool's packages behind its own. What it installs is in the lock, file by
    file with its hash."""
    _run([sys.executable, "-m", "venv", str(folder)], "a virtual environment could not be made")
    site = next((folder / "lib").glob("python*/site-packages"))
    # Named so that it is read last: what is installed here comes before what is only borrowed.
    (site / "zz-borrowed.pth").write_text("".join(f"{path}\n" for path in own_packages()))
    install = ["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--disable-pip-version-check", "--no-deps"]
    install += ["--require-hashes", "--requirement", str(lock(name))]
    _run([str(folder / "bin" / "python"), *install], f"{', '.join(PINS[name])} could not be installed")


def _run(command: list[str], failure: str) -> None:
    next_step = "run this again with a network, or leave the peer out"
    run_installer(command, failure, next_step, env=clean_environment(), timeout=INSTALL_LIMIT_S)
