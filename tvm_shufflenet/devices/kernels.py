"""Calls single operators of a compiled network in a session on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DeviceFailed
from ..latency import Latency
from .base import Device
from .network import SAMPLE_MS, device_failed
from .operands import Operands

# The symbol of what TVM embeds in a library: the network, as whose import the operators cannot be named in a session.
EMBEDDED = b"\0__tvm_ffi__library_bin\0"


class Kernels:
    """``with Kernels(device, library) as kernels: kernels.latency(name, arguments)``. Failures are DeviceFailed."""

    def __init__(self, device: Device, library: Path):
        self.device, self.library = device, Path(library)

    def __enter__(self) -> Kernels:
        try:
            self._session = self.device.session()
            with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-") as folder:
                bare = Path(folder) / "operators.so"
                bare.write_bytes(without_network(self.library.read_bytes()))
                self._session.upload(str(bare))
            self._module = self._session.load_module(bare.name)
        except DeviceFailed:
            raise
        except Exception as exc:
            raise device_failed(self.device, "could not load the operators", exc) from exc
        return self

    def __exit__(self, *_exc) -> None:
        self._module = self._session = None  # the session ends with its last object

    def digests(self, name: str, arguments: Sequence[tuple[Sequence[int], str]]) -> list[list[np.ndarray]]:
        """What tensors that were filled by the common rule (operands.py) hold after one call of an operator, and after
        a second one."""
        try:
            cpu = self._session.cpu(0)
            operands = Operands(self._session, cpu, [(tuple(shape), dtype) for shape, dtype in arguments])
            found = []
            for _ in range(2):
                self._module[name](*operands.tensors)
                found.append(operands.digests())
            return found
        except Exception as exc:
            raise device_failed(self.device, f"failed while running operator {name}", exc) from exc

    def latency(self, name: str, arguments: Sequence[tuple[Sequence[int], str]], repeat: int) -> Latency:
        """``repeat`` samples of one operator on tensors of its own, (shape, dtype) each: they stay in cache, as far as
        they fit."""
        try:
            cpu = self._session.cpu(0)
            operands = Operands(self._session, cpu, [(tuple(shape), dtype) for shape, dtype in arguments])
            timer = self._module.time_evaluator(name, cpu, number=1, repeat=repeat, min_repeat_ms=SAMPLE_MS)
            return Latency.from_seconds(timer(*operands.tensors).results, self.device.kind)
        except Exception as exc:
            raise device_failed(self.device, f"failed while timing operator {name}", exc) from exc


def without_network(library: bytes) -> bytes:
    """The same library, in which TVM's loader finds nothing embedded and so offers the functions themselves."""
    return library.replace(EMBEDDED, EMBEDDED.replace(b"_bin", b"_off"))
