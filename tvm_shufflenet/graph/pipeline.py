"""The passes from a folded Relax module to one that is ready to build: a table of contents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import relax
from tvm.relax import transform
from tvm.s_tir import Schedule

from ..hardware.targets import Target
from .passes.fold_empty import LoadEmpty
from .passes.fuse_operators import FuseOperators
from .passes.legalize import legalize
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


def fuse(module: tvm.IRModule, target: Target) -> Fused:
    """Our operators where they match, TVM's own elsewhere."""
    passes = [
        FuseOperators(target),  # convolution + bias + residual + ReLU + shuffle
        legalize(),  # what is left becomes TVM's own operators, of PyTorch's numbers
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        DropRuleHints(),
        LoadEmpty(),
    ]
    with target.tvm():
        return Fused(tvm.transform.Sequential(passes)(module), target)


def stock(module: tvm.IRModule, target: Target) -> Fused:
    """What TVM does with the network by itself, untuned, but for the numbers it would have wrong: the baseline."""
    with target.tvm():
        return Fused(tvm.transform.Sequential([legalize(), relax.get_pipeline("zero"), LoadEmpty()])(module), target)
