"""A network as files, in every form that some peer's converter takes."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..workflow import Imported

INPUT, REFERENCE = "input.npy", "reference.npy"


@dataclass(frozen=True)
class Handover:
    """``folder`` holds the network as ``model.pt2`` (exported), ``model.pt`` (traced) and, where it can be pickled,
    ``model.pickle``; its input, and PyTorch's answer, which every output is checked against."""

    folder: Path
    reference: np.ndarray
    tolerance: float

    @property
    def input(self) -> Path:
        return self.folder / INPUT


def write_handover(imported: Imported, folder: Path) -> Handover:
    import torch

    model = imported.model
    np.save(folder / INPUT, imported.input)
    np.save(folder / REFERENCE, imported.reference)
    torch.export.save(model.exported(), folder / "model.pt2")
    module = model.module if model.module is not None else model.program.module()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and all that pnnx takes
        torch.jit.trace(module, torch.from_numpy(imported.input), check_trace=False).save(str(folder / "model.pt"))
    if model.module is not None:
        # A network of the user's own file may not be found again by its name: then the exported program has to do.
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            torch.save(model.module, folder / "model.pickle")
    return Handover(folder, imported.reference, imported.tolerance)
