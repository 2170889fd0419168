"""A model as Relax, with PyTorch's answers: where every job begins."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tvm

from ..errors import BadInput
from ..graph.pipeline import Fused, fuse
from ..hardware.targets import Target
from ..models import Model
from ..packages.package import reference_input
from ..signature import Signature, refuse_undeployable
from ..support.activity import doing
from ..verification.answers import Answers, answers_of

REFERENCE_SEED = 0


@dataclass(frozen=True)
class Imported:
    """A model as folded Relax, with PyTorch's answer to the reference input."""

    model: Model
    module: tvm.IRModule
    signature: Signature
    reference: np.ndarray

    @property
    def input(self) -> np.ndarray:
        return reference_input(self.model.input_shape, REFERENCE_SEED)

    def fused(self, target: Target) -> Fused:
        """The network as operators for ``target``; fused once for each."""
        if target not in self._fused:
            self._fused[target] = fuse(self.module, target)
        return self._fused[target]

    @cached_property
    def _fused(self) -> dict[Target, Fused]:
        return {}

    @cached_property
    def answers(self) -> Answers:
        """PyTorch's answers to this and the other inputs. The first look at them takes a dozen inferences."""
        with redirect_stdout(sys.stderr):
            return answers_of(self.model, self.input, self.reference)

    @property
    def tolerance(self) -> float:
        """Largest absolute difference from ``reference`` that rounding explains (answers.py)."""
        return self.answers.tolerance


@doing("importing the model")
def import_model(model: Model) -> Imported:
    """Relax module and reference of a model. Raises ImportFailed, BadInput for weights that are no numbers."""
    from ..graph.frontend import relax_of, signature_of  # they import PyTorch

    with redirect_stdout(sys.stderr):  # where a forward() that prints belongs: standard output may be JSON
        module = relax_of(model)
        signature = signature_of(module)
        refuse_undeployable(signature, "the model")
        reference = model(reference_input(model.input_shape, REFERENCE_SEED))
    if not np.isfinite(reference).all():
        raise BadInput(
            f"{model.name} answers NaN or infinity in {model.engine}",
            "its weights overflow, or a batch norm's variance is negative",
            "check the checkpoint",
        )
    return Imported(model, module, signature, reference)
