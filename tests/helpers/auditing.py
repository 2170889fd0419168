"""Whether the importer reads one-operator networks as PyTorch does: right, refused in words, or at fault.

Cases of one shape are joined to one network, whose output is all of theirs end to end: exporting and compiling cost
far more than any of them. Where one of them is refused, they are tried in halves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from helpers.operator_cases import Case
from tvm_shufflenet.errors import ImportFailed
from tvm_shufflenet.graph import frontend, pipeline
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.lowering import PIPELINE
from tvm_shufflenet.models import exporting

JOINED = 16
TOLERANCE = 2e-5
RIGHT, REFUSED, WRONG = "right", "refused", "wrong"
UNOPTIMISED = tvm.target.Target({"kind": "llvm", "opt-level": 0})


@dataclass(frozen=True)
class Outcome:
    """What became of ``case``: ``verdict`` is RIGHT, REFUSED or WRONG; ``detail`` says how."""

    case: Case
    verdict: str
    detail: str = ""


class Joined(nn.Module):
    """Several cases' outputs end to end."""

    def __init__(self, cases: list[Case]):
        super().__init__()
        self.parts = nn.ModuleList(case.module() for case in cases)

    def forward(self, x):
        return torch.cat([part(x).reshape(-1) for part in self.parts])


def audit(cases: list[Case], way: Callable = pipeline.stock) -> Iterator[Outcome]:
    """The outcome of each case through the passes of ``way``."""
    _remember_decompositions()
    for _, group in groupby(sorted(cases, key=lambda case: case.shape), key=lambda case: case.shape):
        group = list(group)
        for start in range(0, len(group), JOINED):
            yield from _together(group[start : start + JOINED], way)


@functools.cache
def _remember_decompositions() -> None:
    """torch finds the operators that it can decompose anew for every program, which takes longer than all else."""
    utils = torch._export.utils
    utils._collect_all_valid_cia_ops = functools.cache(utils._collect_all_valid_cia_ops)


def _together(cases: list[Case], way: Callable) -> list[Outcome]:
    module, shape = Joined(cases).eval(), cases[0].shape
    try:
        machine = _machine(module, shape, way)
    except Exception as exc:
        if len(cases) > 1:
            half = len(cases) // 2
            return _together(cases[:half], way) + _together(cases[half:], way)
        refused = isinstance(exc, ImportFailed)
        reason = str(exc.what) if refused else (str(exc).strip().splitlines() or [repr(exc)])[-1]
        return [Outcome(cases[0], REFUSED if refused else WRONG, reason if refused else f"crash: {reason}")]
    found = [_compared(module, machine, cases, spoilt=False), _compared(module, machine, cases, spoilt=True)]
    return [
        Outcome(case, WRONG if plain or spoilt else RIGHT, plain or (f"NaN: {spoilt}" if spoilt else ""))
        for case, plain, spoilt in zip(cases, *found, strict=True)
    ]


def _machine(module: nn.Module, shape: tuple[int, ...], way: Callable) -> relax.VirtualMachine:
    with torch.no_grad():
        module(torch.zeros(shape))  # constants are made at their first use
    imported = way(frontend.to_relax(exporting.export(module, shape)), find_target("local")).module
    return relax.VirtualMachine(relax.build(imported, UNOPTIMISED, tir_pipeline=PIPELINE), tvm.cpu())


def _compared(module: nn.Module, machine: relax.VirtualMachine, cases: list[Case], spoilt: bool) -> list[str]:
    """For each case how its output differs from PyTorch's, empty where it does not."""
    found = [""] * len(cases)
    for special in sorted({case.special for case in cases}) if spoilt else [()]:
        chosen = [at for at, case in enumerate(cases) if not spoilt or (special and case.special == special)]
        if not chosen:
            continue
        data = cases[chosen[0]].spoilt() if spoilt else cases[0].data()
        with torch.no_grad():
            expected = [part(torch.from_numpy(data)).numpy().reshape(-1) for part in module.parts]
        output = machine["main"](tvm.runtime.tensor(data))
        output = (output if isinstance(output, tvm.runtime.Tensor) else output[0]).numpy()
        pieces = np.split(output, np.cumsum([each.size for each in expected])[:-1])
        for at in chosen:
            found[at] = _difference(expected[at], pieces[at])
    return found


def _difference(expected: np.ndarray, output: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        finite = np.isfinite(expected)
        scale = max(1.0, float(np.abs(expected[finite]).max())) if finite.any() else 1.0
        same = (expected == output) | (np.isnan(expected) & np.isnan(output))
        same |= np.abs(expected - output) <= TOLERANCE * scale
    if same.all():
        return ""
    first = int(np.argmin(same))
    return f"{int((~same).sum())} of {same.size} elements, the first {output[first]} instead of {expected[first]}"
