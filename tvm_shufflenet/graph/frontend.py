"""A PyTorch module becomes a Relax module in inference form: batch norms folded, constants folded."""

from __future__ import annotations

import warnings

import torch
import tvm
from torch import nn
from tvm import relax
from tvm.relax import transform
from tvm.relax.frontend.torch import from_exported_program

from ..errors import ImportFailed
from .fold_batch_norm import FoldBatchNorm


def export(module: nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """``torch.export`` of a module in eval mode for one NCHW float32 input. Raises ImportFailed."""
    if module.training:
        raise ImportFailed(
            "the model is in training mode", "batch norms would use batch statistics", "call model.eval()"
        )
    try:
        with torch.no_grad():
            return torch.export.export(module, (torch.zeros(input_shape),))
    except Exception as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ImportFailed(
            f"torch.export refused the model: {reason[0][:300]}",
            f"the model does not run on input {tuple(input_shape)}, or its control flow depends on data",
            "run it in PyTorch on a tensor of that shape",
        ) from exc


def to_relax(program: torch.export.ExportedProgram) -> tvm.IRModule:
    """The exported program as Relax, weights as constants, folded. Raises ImportFailed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and TVM deprecate each other's habits here
            module = from_exported_program(program, keep_params_as_input=False)
    except Exception as exc:
        reason = str(exc).strip().splitlines() or [type(exc).__name__]
        raise ImportFailed(
            f"TVM cannot import the model: {reason[-1][:300]}",
            "an operator that TVM's importer does not know",
            "replace that operator in the model",
        ) from exc
    # Folding computes constants by compiling them for this machine, whatever the target is.
    with tvm.target.Target("llvm"):
        return fold(module)


def fold(module: tvm.IRModule) -> tvm.IRModule:
    """Batch norms into their convolutions, then everything constant into constants."""
    passes = [
        FoldBatchNorm(),
        transform.DecomposeOpsForInference(),  # a batch norm without a convolution before it becomes arithmetic
        transform.CanonicalizeBindings(),
        transform.FoldConstant(),
    ]
    return tvm.transform.Sequential(passes)(module)


def check_single_tensor(module: tvm.IRModule) -> None:
    """One float32 tensor in, one tensor or tuple of one out, all shapes known. Raises ImportFailed."""
    main = module["main"]
    if len(main.params) != 1:
        raise ImportFailed(f"the model takes {len(main.params)} inputs", "only single-input networks are deployed here")
    if not all(hasattr(dim, "value") for dim in relax.get_shape_of(main.params[0])):
        raise ImportFailed("the model's input shape is dynamic", "", "give --input-shape")
