"""Running a whole network on this machine, comparing it with what PyTorch computes, and naming what it calls."""

from __future__ import annotations

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from helpers.kernels import UNOPTIMISED
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.graph.bindings import operator
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library import lowering
from tvm_shufflenet.models import exporting

IN_PLACE = "relax.call_tir_inplace"


class Applied(nn.Module):
    """A function of one tensor as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def machine_of(module: tvm.IRModule) -> relax.VirtualMachine:
    """The network compiled for this machine, whatever target its passes were for."""
    return relax.VirtualMachine(lowering.executable(lowering.with_storages(module), UNOPTIMISED), tvm.cpu())


def answer(machine: relax.VirtualMachine, data: tvm.runtime.Tensor) -> np.ndarray:
    """The network's only output, which may come in a tuple."""
    output = machine["main"](data)
    return (output if isinstance(output, tvm.runtime.Tensor) else output[0]).numpy()


def run(module: tvm.IRModule, data: np.ndarray) -> np.ndarray:
    return answer(machine_of(module), tvm.runtime.tensor(data))


def check_import(module: nn.Module, shape: tuple[int, ...], pipelines=(pipeline.stock, pipeline.fuse)) -> None:
    """Imported and through each of ``pipelines``, the module computes what PyTorch does."""
    data = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(data)).numpy()
    imported = frontend.to_relax(exporting.export(module, shape))
    for passes in pipelines:
        output = run(passes(imported, find_target("local")).module, data)
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def tidy(module: tvm.IRModule) -> tvm.IRModule:
    """Without the names that a pass gives to results, to be compared."""
    return relax.transform.CanonicalizeBindings()(module)


def calls(module: tvm.IRModule) -> list[str]:
    """Names of the operators that ``main`` calls, in order; a call_tir by the function it calls."""
    return [_name(call) for call in _calls(module)]


def kinds(module: tvm.IRModule, in_place: str = "") -> list[str]:
    """As ``calls``, without the numbers that tell our own functions apart; ``in_place`` marks what writes in place."""
    return [_kind(_name(call)) + (in_place if operator(call) == IN_PLACE else "") for call in _calls(module)]


def _calls(module: tvm.IRModule) -> list[relax.Call]:
    found = []

    def visit(expr):
        if isinstance(expr, relax.Call):
            found.append(expr)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def _name(call: relax.Call) -> str:
    ours = operator(call) in ("relax.call_tir", IN_PLACE)
    return str(call.args[0].name_hint) if ours else operator(call)


def _kind(name: str) -> str:
    return name if "." in name else name.rstrip("0123456789")
