"""An imported model: Relax and PyTorch's outputs, from which every job starts."""

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
from ..precision import FLOAT32, Precision
from ..signature import Signature, Tensors, refuse_undeployable
from ..support.activity import doing
from ..verification.answers import Answers, answers_of
from ..verification.probes import reference_inputs

REFERENCE_SEED = 0


@dataclass(frozen=True)
class Imported:
    """A model as folded Relax, with PyTorch's outputs for the reference inputs.

    ``precision`` is what it is to compute in; what it takes and returns, and PyTorch's answers, are float32.
    """

    model: Model
    module: tvm.IRModule
    signature: Signature
    reference: Tensors
    precision: Precision = FLOAT32

    @property
    def inputs(self) -> Tensors:
        return reference_inputs(self.signature.inputs, REFERENCE_SEED)

    def fused(self, target: Target) -> Fused:
        """The network as operators for ``target``; fused once for each. Raises BadInput for a target that does not
        compute in its precision."""
        target.refuse(self.precision)
        if target not in self._fused:
            self._fused[target] = fuse(self.module, target, self.precision)
        return self._fused[target]

    @cached_property
    def _fused(self) -> dict[Target, Fused]:
        return {}

    @cached_property
    def answers(self) -> Answers:
        """PyTorch's answers to these and the other inputs. The first look at them takes a dozen inferences."""
        with redirect_stdout(sys.stderr):
            return answers_of(self.model, self.signature, self.inputs, self.reference, self.precision)


@doing("importing the model")
def import_model(model: Model, precision: Precision = FLOAT32) -> Imported:
    """Relax module and reference of a model that is to compute in ``precision``.

    Raises ImportFailed, BadInput for weights that are no numbers.
    """
    from ..graph.frontend import relax_of, signature_of  # they import PyTorch

    with redirect_stdout(sys.stderr):  # where a forward() that prints belongs: standard output may be JSON
        module = relax_of(model)
        signature = signature_of(module)
        refuse_undeployable(signature, "the model")
        outputs = model(*reference_inputs(signature.inputs, REFERENCE_SEED).values())
    reference = dict(zip(signature.output_names, outputs, strict=True))
    if not all(np.isfinite(output).all() for output in outputs):
        raise BadInput(
            f"{model.name} answers NaN or infinity in {model.engine}",
            "its weights overflow, or a batch norm's variance is negative",
            "check the checkpoint",
        )
    return Imported(model, module, signature, reference, precision)
