"""Writes a network to files, in each form that some peer's converter reads."""

from __future__ import annotations

import contextlib
import pickle
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from ..errors import lines_of
from ..models.sources.onnx_files import OnnxModel
from ..verification.answers import Answer
from ..workflow.imported import Imported

SIGNATURE = "signature.json"
NOT_TRACED = "not-traced.txt"
# Other engines approximate exponentials, and multiply by transforms that lose some digits (Winograd's): that is their
# choice. What this finds is a conversion or a kernel that computes something else.
PEERS_SHARE = 1e-4  # of the largest output


@dataclass(frozen=True)
class Handover:
    """``folder`` holds the network as ``model.pt2`` (exported), ``model.pt`` (traced) and, where it can be pickled,
    ``model.pickle``; of an ONNX file, ``model.onnx`` alone. Beside them its signature and its inputs, ``input0.npy``
    and so on; ``not-traced.txt`` says why there is no ``model.pt``. Outputs are checked against PyTorch's answer: our
    own by the tolerances of ``ours``, those of peers by those of ``peers``."""

    folder: Path
    ours: Answer
    peers: Answer
    inputs: tuple[Path, ...]

    @property
    def tolerance(self) -> float:
        """The largest of a peer's outputs."""
        return max(self.peers.tolerances.values())


def write_handover(imported: Imported, folder: Path) -> Handover:
    """Write the network in every form it has. A form that it lacks fails the peers that need it, not the contest."""
    (folder / SIGNATURE).write_bytes(msgspec.json.encode(imported.signature))
    inputs = tuple(folder / f"input{index}.npy" for index in range(len(imported.inputs)))
    for path, data in zip(inputs, imported.inputs.values(), strict=True):
        np.save(path, data)
    if isinstance(imported.model, OnnxModel):
        (folder / "model.onnx").write_bytes(imported.model.proto.SerializeToString())
    else:
        _write_torch(imported, folder)
    ours, scales = imported.answers.reference, imported.answers.scales
    allowed = {name: max(tolerance, PEERS_SHARE * scales[name]) for name, tolerance in ours.tolerances.items()}
    return Handover(folder, ours, replace(ours, tolerances=allowed), inputs)


def _write_torch(imported: Imported, folder: Path) -> None:
    import torch

    model = imported.model
    torch.export.save(model.exported(), folder / "model.pt2")
    module = model.module if model.module is not None else model.program.module()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated, and all that pnnx takes
            given = tuple(map(torch.from_numpy, imported.inputs.values()))
            torch.jit.trace(module, given, check_trace=False).save(str(folder / "model.pt"))
    except Exception as exc:  # whatever the network's own code raises
        (folder / NOT_TRACED).write_text(f"torch.jit.trace: {lines_of(exc)[0]}")
    if model.module is not None:
        # A network of the user's own file may not be found again by its name: then the exported program has to do.
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            torch.save(model.module, folder / "model.pickle")
