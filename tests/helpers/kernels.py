"""Running one operator of tvm_shufflenet.operators, scheduled or not, and comparing it with what PyTorch computes."""

from __future__ import annotations

import numpy as np
import torch
import tvm
from tvm.s_tir import Schedule

from tvm_shufflenet.graph.tasks import argument_shapes
from tvm_shufflenet.hardware.isa import AVX2, AVX512, NEON
from tvm_shufflenet.hardware.machine import Machine, unknown
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.precision import FLOAT16
from tvm_shufflenet.schedules import rules

HOST = find_target("local")
# What is checked here is the program that is handed to LLVM; LLVM's own passes take three times as long as the rest.
UNOPTIMISED = tvm.target.Target({**HOST.tvm_config, "opt-level": 0})
MACHINES = (unknown(NEON), unknown(AVX2), unknown(AVX512))
UNTOUCHED = 77.0


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def torch_of(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def padded(data: np.ndarray, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """``padding`` is (top, left, bottom, right), zeros."""
    top, left, bottom, right = padding
    return torch.nn.functional.pad(torch.from_numpy(data), (left, right, top, bottom))


def spoil(data: np.ndarray) -> np.ndarray:
    """NaN and both infinities, in places of their own, at the beginning, in the middle and at the end."""
    flat = data.reshape(-1)
    flat[:3] = np.nan, np.inf, -np.inf
    flat[flat.size // 2 : flat.size // 2 + 3] = -np.inf, np.nan, np.inf
    flat[-3:] = np.inf, -np.inf, np.nan
    return data


def module(kernel) -> tvm.IRModule:
    return tvm.IRModule({"main": kernel.function().with_attr("tirx.noalias", True)})


def schedules(kernel, machine: Machine, seed: int = 11) -> list[tvm.IRModule]:
    """A random point of every variant of the kernel's template."""
    mod = module(kernel)
    return [point.mod for point in rules.TEMPLATES[rules.template_name(mod)](Schedule(mod, seed=seed), machine)]


def run(mod: tvm.IRModule, operands: list[np.ndarray], before: np.ndarray) -> np.ndarray:
    """The result, given what its tensor held ``before``; an operand that is ``before`` is the same tensor. All become
    what the function declares."""
    compiled = tvm.compile(mod, UNOPTIMISED)
    *dtypes, dtype = (dtype for _, dtype in argument_shapes(mod))
    result = tvm.runtime.tensor(before.astype(dtype))
    arguments = [
        result if operand is before else tvm.runtime.tensor(operand.astype(declared))
        for operand, declared in zip(operands, dtypes, strict=True)
    ]
    compiled["main"](*arguments, result)
    return result.numpy().astype(before.dtype)


def check(mod: tvm.IRModule, operands: list[np.ndarray], expected: np.ndarray, before: np.ndarray | None = None):
    before = np.full(expected.shape, UNTOUCHED, np.float32) if before is None else before
    # Where terms cancel, the rounding error is that of the terms: it follows the largest result, not this one.
    scale = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=1.0)
    off = 5e-6 * max(scale, 4.0)
    if rules.precision_of_operator(mod) is FLOAT16:
        off = 4 * FLOAT16.epsilon * scale  # operands are rounded, too
    np.testing.assert_allclose(run(mod, operands, before), expected, rtol=2e-5, atol=off)


def check_default(
    kernel, machine: Machine, operands: list[np.ndarray], expected: np.ndarray, before: np.ndarray | None = None
) -> None:
    """The kernel as it is, and as its template schedules it by default."""
    mod = module(kernel)
    for each in (mod, rules.default_schedule(mod, machine).mod):
        check(each, operands, expected, before)
