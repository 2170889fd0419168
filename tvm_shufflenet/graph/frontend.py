"""A model becomes a Relax module in inference form: batch norms folded, constants folded."""

from __future__ import annotations

import warnings

import torch
import tvm
from tvm import relax
from tvm.relax import transform

from ..errors import ImportFailed, lines_of
from ..models.model import Model
from ..models.sources.examine import examine, refused_operator, unknown_operators
from ..models.sources.onnx_files import OnnxModel
from .importing.importer import Importer
from .passes.canonicalize_shuffles import CanonicalizeShuffles
from .passes.fold_batch_norm import FoldBatchNorm
from .passes.fold_empty import FoldEmpty


def relax_of(model: Model) -> tvm.IRModule:
    """A model as folded Relax, weights as constants. Raises ImportFailed."""
    if isinstance(model, OnnxModel):
        from .importing.onnx import import_onnx  # imports the package onnx, which not everybody has

        return fold(import_onnx(model))
    return to_relax(model.exported())


def to_relax(program: torch.export.ExportedProgram) -> tvm.IRModule:
    """The exported program as Relax, weights as constants, folded. Raises ImportFailed."""
    program, importer = examine(program), Importer()
    refusal = unknown_operators(program, importer.accepted, importer.computed(program))
    if refusal is not None:
        raise refusal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and TVM deprecate each other's habits here
            module = importer.from_exported_program(program, False, False, False, None)
    except Exception as exc:
        raise refused_operator(importer.node, lines_of(exc)[-1][:300]) from exc
    return fold(module)


def fold(module: tvm.IRModule) -> tvm.IRModule:
    """Batch norms into their convolutions, everything constant into constants, channel shuffles into one spelling."""
    passes = [
        FoldEmpty(),
        transform.CanonicalizeBindings(),
        FoldBatchNorm(),
        transform.DecomposeOpsForInference(),  # a batch norm without a convolution before it becomes arithmetic
        transform.CanonicalizeBindings(),
        transform.FoldConstant(),
        CanonicalizeShuffles(),  # once the indices of permutations are constants
    ]
    # Folding computes constants by compiling them for this machine, whatever the target is.
    with tvm.target.Target("llvm"):
        return tvm.transform.Sequential(passes)(module)


def check_single_tensor(module: tvm.IRModule) -> None:
    """One float32 tensor in, one tensor or tuple of one out, all shapes known. Raises ImportFailed."""
    main = module["main"]
    if len(main.params) != 1:
        raise ImportFailed(f"the model takes {len(main.params)} inputs", "only single-input networks are deployed here")
    _check_tensor(main.params[0].ty, "takes", "give --input-shape")
    outputs = main.ret_ty.fields if isinstance(main.ret_ty, tvm.ir.TupleType) else [main.ret_ty]
    if len(outputs) != 1:
        raise ImportFailed(f"the model answers {len(outputs)} outputs", "only single-output networks are deployed here")
    _check_tensor(outputs[0], "answers", "make the output's shape follow from the input's")


def _check_tensor(found: tvm.ir.Type, verb: str, next_step: str) -> None:
    if not isinstance(found, relax.TensorType) or str(found.dtype) != "float32":
        raise ImportFailed(f"the model {verb} {found}", "only float32 tensors are deployed here")
    if found.shape is None or not all(hasattr(dim, "value") for dim in found.shape):
        raise ImportFailed(f"the model {verb} a tensor of dynamic shape {found}", "", next_step)
