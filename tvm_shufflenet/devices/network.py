"""A compiled network in a session on a device: run it, time it."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from ..clock.counts import Counts
from ..clock.cycles import Cost
from ..errors import DeviceFailed, first_line
from ..latency import Latency
from .base import Device

# A measured sample averages as many runs as fit in this time: short enough to see a disturbance, long enough to time.
SAMPLE_MS = 20


class Network:
    """``with Network(device, library) as network: network.run(data)``. Every failure is a DeviceFailed."""

    def __init__(self, device: Device, library: Path):
        self.device, self.library = device, Path(library)

    def __enter__(self) -> Network:
        try:
            self._session = session = self.device.session()
            session.upload(str(self.library))
            module = session.load_module(self.library.name)
            self._cpu = session.cpu(0)
            self._machine = relax.VirtualMachine(module, self._cpu)
        except DeviceFailed:
            raise
        except Exception as exc:
            raise device_failed(self.device, "could not load the library", exc) from exc
        return self

    def __exit__(self, *_exc) -> None:
        # The session ends with its last remote object, and TVM's VirtualMachine keeps some of them in reference cycles:
        # a tracker would not lend the device again before the next collection.
        self._machine = self._cpu = self._session = None
        gc.collect()

    def set_input(self, data: np.ndarray) -> None:
        try:
            self._machine.set_input("main", tvm.runtime.tensor(data, self._cpu))
        except Exception as exc:
            raise device_failed(self.device, "failed while taking the input", exc) from exc

    def run(self, data: np.ndarray) -> np.ndarray:
        """The network's output for ``data``, (N, C, H, W) float32."""
        try:
            self.set_input(data)
            self.latest = self._output()
            return self.latest
        except Exception as exc:
            raise device_failed(self.device, "failed while running the network", exc) from exc

    def run_again(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The output for ``data``, and what the tensor of it holds then: here the network reads the caller's own
        tensor, as in an application, where ``run`` reads a copy that TVM's VM makes of it."""
        try:
            given = tvm.runtime.tensor(data, self._cpu)
            found = self._machine["main"](given)
            if not hasattr(found, "numpy"):  # a tuple, which stays on the device
                found = self._session.get_function("vm.builtin.tuple_getitem")(found, 0)
            return found.numpy(), given.numpy()
        except Exception as exc:
            raise device_failed(self.device, "failed while running the network again", exc) from exc

    def _output(self) -> np.ndarray:
        self._machine.invoke_stateful("main")
        outputs = self._machine.get_outputs("main")
        return (outputs if hasattr(outputs, "numpy") else outputs[0]).numpy()

    def cold_us(self) -> float | None:
        """Wall time of one inference seen from here, in microseconds: the first in a session is what an app sees.

        Includes the round trip to the device. None for a modelled clock, which has no model of a cold start.
        """
        if self.device.cost_model is not None:
            return None
        started = time.perf_counter()
        try:
            self._machine.invoke_stateful("main")
        except Exception as exc:
            raise device_failed(self.device, "failed in its first inference", exc) from exc
        return 1e6 * (time.perf_counter() - started)

    def latency(self, repeat: int, warmup: int = 1) -> Latency:
        """``repeat`` samples by the device's own clock, after ``run`` has set the input."""
        modelled = self.device.cost_model is not None
        try:
            for _ in range(0 if modelled else warmup):
                self._machine.invoke_stateful("main")
            # The evaluator runs once untimed itself. A modelled clock repeats itself, so a sample is one run.
            timer = self._machine.time_evaluator(
                "invoke_stateful",
                self._cpu,
                number=1,
                repeat=1 if modelled else repeat,
                min_repeat_ms=0 if modelled else SAMPLE_MS,
            )
            return Latency.from_seconds(timer("main").results, self.device.kind)
        except Exception as exc:
            raise device_failed(self.device, "failed while timing the network", exc) from exc

    def cost(self) -> Cost:
        """What the latest latency, by a modelled clock, is made of. Raises DeviceFailed."""
        return self.device.cost_of(self._session)

    def counts(self) -> Counts:
        """What was executed in it. Raises DeviceFailed."""
        return self.device.counts_of(self._session)


@contextmanager
def undisturbed(device: Device, library: Path, data: np.ndarray) -> Iterator[Network]:
    """The network in a session that has done nothing but take its input, for it to be timed. Raises DeviceFailed.

    A modelled time depends on addresses, and these on all that a session has allocated before: so whoever times a
    library does the same from the session's start, and comes to the same figure.
    """
    with Network(device, library) as network:
        network.set_input(data)
        yield network


def timed(device: Device, library: Path, data: np.ndarray, repeat: int, warmup: int = 1) -> Latency:
    """``repeat`` samples of a network, see ``undisturbed``. Raises DeviceFailed."""
    with undisturbed(device, library, data) as network:
        return network.latency(repeat, warmup)


def largest_error(output: np.ndarray, reference: np.ndarray, spoilt: np.ndarray | None = None) -> float:
    """Largest absolute difference from ``reference``; infinite for another shape. Where that is NaN or infinite,
    ``output`` must be the same: the difference is NaN or infinite else, as for a NaN in ``output`` alone. Where
    ``spoilt``, a NaN on either side passes."""
    if output.shape != reference.shape:
        return float("inf")
    ours, theirs = np.isnan(output), np.isnan(reference)
    same = (output == reference) | (ours & theirs)
    if spoilt is not None:
        same |= spoilt & (ours | theirs)
    return float(np.abs(output[~same].astype(float) - reference[~same]).max(initial=0.0))


def second_run(network: Network, data: np.ndarray) -> tuple[str | None, np.ndarray]:
    """What is wrong with another run on ``data``, the latest input, as a clause, or None; and the output of it.

    A library must answer with the same bits, and leave its input as it was.
    """
    output, held = network.run_again(data)
    if held.tobytes() != data.tobytes():
        return f"overwrites its input, {int((held != data).sum())} of {data.size} elements", output
    if output.tobytes() != network.latest.tobytes():
        error = largest_error(output, network.latest)
        return f"differs by {error:.3g} from its own first run on the same input", output
    return None, output


def device_failed(device: Device, what: str, exc: Exception) -> DeviceFailed:
    """What a library's error on a device is to the user."""
    return DeviceFailed(
        f"{device.name} {what}: {first_line(exc)}",
        "the device died, or ran out of memory or time",
        f"tvm-shufflenet doctor --device {device.spec}",
    )
