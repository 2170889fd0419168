"""Our own library on one of our devices: it is run and timed as by ``tvm-shufflenet bench``."""

from pathlib import Path

import msgspec
from common import Engine, serve

from tvm_shufflenet.hardware.targets import targets
from tvm_shufflenet.signature import Signature
from tvm_shufflenet.support.toolchain import TVM_VERSION
from tvm_shufflenet.support.without_torch import without_torch

with without_torch():
    from tvm_shufflenet.devices import find_device
    from tvm_shufflenet.devices.network import Network, second_run, timed


class Ours(Engine):
    """``artifact`` is the library. The device server inherits this process's CPUs."""

    def __init__(self, options):
        super().__init__(options)
        target = targets()["local" if options.device == "local" else "arm64"]
        self.device = find_device(options.device, target, options.threads)
        self.device.start()
        described = Path(options.inputs[0]).with_name("signature.json").read_bytes()
        self.signature = msgspec.json.decode(described, type=Signature)
        self.given = dict(zip(self.signature.input_names, self.inputs, strict=True))
        self.network = Network(self.device, Path(options.artifact), self.signature).__enter__()

    def run(self):
        self.found = self.network.run(self.given)

    def outputs(self):
        return list(self.found.values())

    def facts(self):
        return {"version": f"TVM {TVM_VERSION}", "settings": {"TVM_NUM_THREADS": self.options.threads}}

    def time(self, warmup: int, samples: int) -> dict:
        samples_us = list(self.network.latency(samples, warmup).samples_us)
        return {"samples_us": samples_us, "fault": second_run(self.network, self.given)[0]}

    def count(self, warmup: int) -> dict:
        """As ``tvm-shufflenet bench`` counts, to the same figure."""
        timed(self.device, Path(self.options.artifact), self.signature, self.given, 1)
        cost = msgspec.to_builtins(self.device.last_cost())
        return {"cost": cost, "fault": second_run(self.network, self.given)[0]}


serve(Ours)
