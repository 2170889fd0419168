"""All peers, one entry each: its environment, the conversion to its format, and its runner."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import PeerFailed, UnknownName
from .environments import OWN, Announce, clean_environment, environment_python, pinned
from .handover import Handover
from .process import last_words

RUNNERS = Path(__file__).parent / "runners"
CONVERT_LIMIT_S = 900


@dataclass(frozen=True)
class Peer:
    """One engine. ``artifact`` is the file that its runner loads: ``converter`` writes it, or it is handed over as it
    is. ``guest_pins`` are the aarch64 wheels that run it on the emulated core, empty where it does not run there."""

    name: str
    package: str
    environment: str
    runner: str
    artifact: str
    converter: str | None = None
    guest_pins: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return pinned(self.environment, self.package)

    @property
    def script(self) -> Path:
        return RUNNERS / f"{self.runner}.py"

    def python(self, announce: Announce) -> Path:
        """The Python that has this peer. Raises ToolMissing."""
        return environment_python(self.environment, announce)

    def convert(self, handover: Handover, announce: Announce) -> Path:
        """The network in this peer's format. Raises PeerFailed, ToolMissing. Made once per handover."""
        artifact = handover.folder / self.artifact
        if self.converter is None or artifact.exists():
            return artifact
        python = self.python(announce)
        announce(f"converting for {self.name}")
        command = [str(python), str(RUNNERS / f"{self.converter}.py"), str(handover.folder), str(artifact)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=clean_environment(),
                timeout=CONVERT_LIMIT_S, cwd=handover.folder,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise PeerFailed(f"{self.name}: the conversion did not end within {CONVERT_LIMIT_S} s") from exc
        if done.returncode != 0 or not artifact.exists():
            artifact.unlink(missing_ok=True)
            raise PeerFailed(
                f"{self.name}: the network could not be converted: {last_words(done.stderr)}",
                "an operator that its converter does not know",
                "leave it out with --peers",
            )
        return artifact


NUMPY = "numpy==2.4.6"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "onnxruntime", "onnxruntime", "onnx", "run_onnxruntime", "model.onnx", "convert_onnx",
            (NUMPY, "onnxruntime==1.31.1"),
        ),
        Peer("openvino", "openvino", "onnx", "run_openvino", "model.onnx", "convert_onnx"),
        Peer("ncnn", "ncnn", "ncnn", "run_ncnn", "model.param", "convert_ncnn", (NUMPY, "ncnn==1.0.20261020")),
        Peer(
            "litert", "ai-edge-litert", "litert", "run_litert", "model.tflite", "convert_litert",
            (NUMPY, "ai-edge-litert==2.3.0"),
        ),
        Peer("torch", "torch", OWN, "run_torch", "model.pickle"),
        Peer("torch-compile", "torch", OWN, "run_torch_compile", "model.pickle"),
    )
}  # fmt: skip


def find_peers(names: str | Iterable[str], emulated: bool = False) -> list[Peer]:
    """The peers that ``--peers`` names, "all" for every one that runs there. Raises UnknownName."""
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    known = {name: peer for name, peer in PEERS.items() if peer.guest_pins or not emulated}
    if names == ["all"]:
        return list(known.values())
    for name in names:
        if name not in known:
            raise UnknownName("peer on the emulated core" if emulated else "peer", name, known)
    return [known[name] for name in dict.fromkeys(names)]
