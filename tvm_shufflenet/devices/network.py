"""A compiled network in a session on a device: run it, time it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tvm
from tvm import relax

from ..clock.counts import Counts
from ..clock.cycles import Cost
from ..errors import DeviceFailed, first_line
from ..latency import Latency
from ..signature import Signature, Tensors
from .base import Device
from .difference import largest_error

# A measured sample averages as many runs as fit in this time: short enough to see a disturbance, long enough to time.
SAMPLE_MS = 20


class Network:
    """``with Network(device, library, signature) as network: network.run(inputs)``. Every failure is a DeviceFailed."""

    def __init__(self, device: Device, library: Path, signature: Signature):
        self.device, self.library, self.signature = device, Path(library), signature

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
        # The session ends with its last remote object, and TVM's VirtualMachine keeps some of them in reference cycles,
        # which its get_outputs makes: a tracker would not lend the device again before the next garbage collection.
        vars(self._machine).clear()
        self._machine = self._cpu = self._session = None

    def set_inputs(self, inputs: Tensors) -> None:
        try:
            self._machine.set_input("main", *self._given(inputs))
        except Exception as exc:
            raise device_failed(self.device, "failed while taking the input", exc) from exc

    def run(self, inputs: Tensors) -> Tensors:
        """The network's outputs for ``inputs``."""
        try:
            self.set_inputs(inputs)
            self._machine.invoke_stateful("main")
            found = self._machine.get_outputs("main")
            self.latest = self._named([found] if hasattr(found, "numpy") else found)
            return self.latest
        except Exception as exc:
            raise device_failed(self.device, "failed while running the network", exc) from exc

    def run_again(self, inputs: Tensors) -> tuple[Tensors, Tensors]:
        """The outputs for ``inputs``, and what the tensors of these hold then: here the network reads the caller's own
        tensors, as in an application, where ``run`` reads copies that TVM's VM makes of them."""
        try:
            given = self._given(inputs)
            found = self._machine["main"](*given)
            if hasattr(found, "numpy"):
                outputs = [found]
            else:  # a tuple, which stays on the device
                field = self._session.get_function("vm.builtin.tuple_getitem")
                outputs = [field(found, index) for index in range(len(self.signature.outputs))]
            held = dict(zip(self.signature.input_names, (each.numpy() for each in given), strict=True))
            return self._named(outputs), held
        except Exception as exc:
            raise device_failed(self.device, "failed while running the network again", exc) from exc

    def _given(self, inputs: Tensors) -> list[tvm.runtime.Tensor]:
        return [tvm.runtime.tensor(inputs[name], self._cpu) for name in self.signature.input_names]

    def _named(self, outputs: Sequence[tvm.runtime.Tensor]) -> Tensors:
        return {name: each.numpy() for name, each in zip(self.signature.output_names, outputs, strict=True)}

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
def undisturbed(device: Device, library: Path, signature: Signature, inputs: Tensors) -> Iterator[Network]:
    """The network in a session that has done nothing but take its input, for it to be timed. Raises DeviceFailed.

    A modelled time depends on addresses, and these on all that a session has allocated before: so whoever times a
    library does the same from the session's start, and comes to the same figure.
    """
    with Network(device, library, signature) as network:
        network.set_inputs(inputs)
        yield network


def timed(
    device: Device, library: Path, signature: Signature, inputs: Tensors, repeat: int, warmup: int = 1
) -> Latency:
    """``repeat`` samples of a network, see ``undisturbed``. Raises DeviceFailed."""
    with undisturbed(device, library, signature, inputs) as network:
        return network.latency(repeat, warmup)


def second_run(network: Network, inputs: Tensors) -> tuple[str | None, Tensors]:
    """Run again on ``inputs``, the latest ones: what is wrong, as a clause, or None; and the outputs.

    A library must compute the same bits, and leave its inputs as they were.
    """
    outputs, held = network.run_again(inputs)
    for name, data in inputs.items():
        if held[name].tobytes() != data.tobytes():
            return f"overwrites its input, {int((held[name] != data).sum())} of {data.size} elements", outputs
    for name, first in network.latest.items():
        if outputs[name].tobytes() != first.tobytes():
            error = largest_error(outputs[name], first)
            return f"differs by {error:.3g} from its own first run on the same input", outputs
    return None, outputs


def device_failed(device: Device, what: str, exc: Exception) -> DeviceFailed:
    """What a library's error on a device is to the user."""
    return DeviceFailed(
        f"{device.name} {what}: {first_line(exc)}",
        "the device died, or ran out of memory or time",
        f"tvm-shufflenet doctor --device {device.spec}",
    )
