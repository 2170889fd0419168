"""A model that can be exported and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..precision import FLOAT32, Precision

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


@dataclass(frozen=True)
class Model:
    """A PyTorch model ready to export: ``module`` in eval mode, or an already exported ``program``.

    ``notes`` are what was decided for the user, a line each.
    """

    name: str
    input_shape: tuple[int, ...]
    module: nn.Module | None = None
    program: torch.export.ExportedProgram | None = None
    notes: tuple[str, ...] = ()
    engine = "PyTorch"  # whose answers are the reference

    def exported(self) -> torch.export.ExportedProgram:
        """Raises ImportFailed."""
        from .exporting import export

        return self.program or export(self.module, self.input_shape)

    def weights(self) -> dict[str, np.ndarray]:
        """The weights of each layer, (outputs, inputs, ...), by the layer's name in the model."""
        found = self.program.state_dict if self.module is None else self.module.state_dict()
        named = {name.removesuffix(".weight"): each for name, each in found.items() if name.endswith(".weight")}
        return {name: each.detach().float().numpy() for name, each in named.items() if each.dim() > 1}

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """PyTorch's own outputs, in the order in which the network returns them."""
        import torch

        with torch.no_grad():
            outputs = self._runnable()(*map(torch.tensor, inputs))  # copies: a model may compute in place
        return _arrays(outputs)

    def in_float64(self, *inputs: np.ndarray, precision: Precision = FLOAT32) -> tuple[np.ndarray, ...] | None:
        """The same in float64, with each operator off by the rounding of ``precision`` (float64.py).

        None where the network is fixed to float32.
        """
        from .float64 import run_in_float64

        try:
            outputs = _arrays(run_in_float64(self._runnable(), *inputs, precision=precision))
        except Exception:  # whatever its own code raises
            return None
        return outputs if all(each.dtype == "float64" for each in outputs) else None

    def _runnable(self) -> nn.Module:
        return self.module if self.module is not None else self.program.module()


def _arrays(outputs: object) -> tuple[np.ndarray, ...]:
    """The tensors that a network returns, bare or in containers."""
    import torch.utils._pytree as pytree

    return tuple(each.numpy() for each in pytree.tree_leaves(outputs))
