"""The pass pipeline from an imported Relax module to one whose operators can be scheduled, as a table of contents.

``phases.PHASES`` lists all phases of a compile; the later ones are in ``library/scheduling.py`` and ``lowering.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import relax
from tvm.relax import transform
from tvm.s_tir import Schedule

from ..hardware.targets import Target
from ..precision import FLOAT32, Precision
from .passes.canonicalize_shuffles import CanonicalizeShuffles
from .passes.convert_precision import ConvertPrecision
from .passes.fold_batch_norm import FoldBatchNorm
from .passes.fold_empty import FoldEmpty, LoadEmpty
from .passes.fuse_operators import FuseOperators
from .passes.legalize import legalize
from .phases import phase
from .tasks import OperatorTask, operator_tasks


@tvm.transform.module_pass(opt_level=0, name="DropRuleHints")
class DropRuleHints:
    """Remove the hints on pooling blocks that ask for GPU schedule rules: MetaSchedule warns of each, each time."""

    HINT = "schedule_rule"

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        result = mod.clone()
        for name, function in mod.functions_items():
            if isinstance(function, tvm.tirx.PrimFunc):
                schedule = Schedule(tvm.IRModule({"main": function}))
                for block in schedule.get_child_blocks(schedule.get_sblock("root")):
                    if self.HINT in schedule.get(block).annotations:
                        schedule.unannotate(block, self.HINT)
                        result.update_func(name, schedule.mod["main"])
        return result


@dataclass(frozen=True)
class Fused:
    """A network as calls of operators, each a PrimFunc that can be scheduled for the ``target``."""

    module: tvm.IRModule
    target: Target

    @cached_property
    def tasks(self) -> tuple[OperatorTask, ...]:
        """Its distinct operators, in the order of their first calls."""
        return tuple(operator_tasks(self.module))


def fold(module: tvm.IRModule) -> tvm.IRModule:
    """Batch norms into their convolutions, everything constant into constants, channel shuffles into one spelling."""
    passes = [
        phase("imported"),
        phase(
            "folded",
            FoldEmpty(),
            transform.CanonicalizeBindings(),
            FoldBatchNorm(),
            transform.DecomposeOpsForInference(),  # a batch norm without a convolution before it becomes arithmetic
            transform.CanonicalizeBindings(),
            transform.FoldConstant(),
            CanonicalizeShuffles(),  # once the indices of permutations are constants
        ),
    ]
    # Folding computes constants by compiling them for this machine, whatever the target is.
    with tvm.target.Target("llvm"):
        return tvm.transform.Sequential(passes)(module)


def fuse(module: tvm.IRModule, target: Target, precision: Precision = FLOAT32) -> Fused:
    """Our operators where they match, TVM's own elsewhere, computing in ``precision`` where they may."""
    passes = [
        phase("converted", ConvertPrecision(precision)),
        phase("fused", FuseOperators(target)),  # convolution + bias + residual + ReLU + shuffle
        phase("legalized", legalize()),  # what is left becomes TVM's own operators, of PyTorch's numbers
        phase(
            "operators",
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            DropRuleHints(),
            LoadEmpty(),
        ),
    ]
    with target.tvm():
        return Fused(tvm.transform.Sequential(passes)(module), target)


def stock(module: tvm.IRModule, target: Target) -> Fused:
    """What TVM does with the network by itself, untuned, but for the numbers it would have wrong: the baseline."""
    passes = [phase("legalized", legalize()), phase("operators", relax.get_pipeline("zero"), LoadEmpty())]
    with target.tvm():
        return Fused(tvm.transform.Sequential(passes)(module), target)
