"""The mutation that evolutionary search applies in a template's space: another candidate for one knob."""

from __future__ import annotations

import random

from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace


@derived_object
class MutateChoice(ms.mutator.PyMutator):
    """Redraw one ``sample_categorical`` of a trace, all of its other candidates alike."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(0)

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self.random = random.Random(context.rand_state)

    def apply(self, trace: Trace, _=None) -> Trace | None:
        knobs = [inst for inst in trace.insts if inst.kind.name == "SampleCategorical" and len(inst.attrs[0]) > 1]
        if not knobs:
            return None
        knob = self.random.choice(knobs)
        decided = int(trace.decisions[knob])
        others = [index for index in range(len(knob.attrs[0])) if index != decided]
        return trace.with_decision(knob, self.random.choice(others), remove_postproc=True)

    def clone(self) -> MutateChoice:
        return MutateChoice()
