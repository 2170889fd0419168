"""A network as files, in every form that some peer's converter takes."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import lines_of
from ..models.sources.onnx_files import OnnxModel
from ..workflow.imported import Imported

INPUT, REFERENCE = "input.npy", "reference.npy"
NOT_TRACED = "not-traced.txt"
# Other engines approximate exponentials, and multiply by transforms that lose some digits (Winograd's): that is their
# choice. What this finds is a conversion or a kernel that computes something else.
PEERS_SHARE = 1e-4  # of the largest output


@dataclass(frozen=True)
class Handover:
    """``folder`` holds the network as ``model.pt2`` (exported), ``model.pt`` (traced) and, where it can be pickled,
    ``model.pickle``; of an ONNX file, ``model.onnx`` alone. Beside them its input, and PyTorch's answer, which every
    output is checked against, within ``tolerance``, our own within ``ours``; ``not-traced.txt`` says why there is no
    ``model.pt``."""

    folder: Path
    reference: np.ndarray
    tolerance: float
    ours: float  # what our own libraries may be off

    @property
    def input(self) -> Path:
        return self.folder / INPUT


def write_handover(imported: Imported, folder: Path) -> Handover:
    """Write the network in every form it has. A form that it lacks fails the peers that need it, not the contest."""
    np.save(folder / INPUT, imported.input)
    np.save(folder / REFERENCE, imported.reference)
    if isinstance(imported.model, OnnxModel):
        (folder / "model.onnx").write_bytes(imported.model.proto.SerializeToString())
    else:
        _write_torch(imported, folder)
    ours = imported.tolerance
    return Handover(folder, imported.reference, max(ours, PEERS_SHARE * imported.answers.scale), ours)


def _write_torch(imported: Imported, folder: Path) -> None:
    import torch

    model = imported.model
    torch.export.save(model.exported(), folder / "model.pt2")
    module = model.module if model.module is not None else model.program.module()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated, and all that pnnx takes
            torch.jit.trace(module, torch.from_numpy(imported.input), check_trace=False).save(str(folder / "model.pt"))
    except Exception as exc:  # whatever the network's own code raises
        (folder / NOT_TRACED).write_text(f"torch.jit.trace: {lines_of(exc)[0]}")
    if model.module is not None:
        # A network of the user's own file may not be found again by its name: then the exported program has to do.
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            torch.save(model.module, folder / "model.pickle")
