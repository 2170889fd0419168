"""Imports a model as a Relax module for inference: batch norms and constants folded."""

from __future__ import annotations

import warnings

import torch
import tvm
from tvm import relax

from ..errors import lines_of
from ..models.model import Model
from ..models.sources.examine import examine, refused_operator, unknown_operators
from ..models.sources.onnx_files import OnnxModel
from ..signature import IMAGES, Signature, TensorSpec
from .importing.importer import Importer
from .pipeline import fold


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


def signature_of(module: tvm.IRModule) -> Signature:
    """What ``main`` takes and returns. Its results have the names ``output0``, ``output1`` and so on."""
    main = module["main"]
    outputs = main.ret_ty.fields if isinstance(main.ret_ty, tvm.ir.TupleType) else [main.ret_ty]
    return Signature(
        tuple(_spec(str(param.name), param.ty) for param in main.params),
        tuple(_spec(f"output{index}", each) for index, each in enumerate(outputs)),
    )


def _spec(name: str, found: tvm.ir.Type) -> TensorSpec:
    if not isinstance(found, relax.TensorType):
        return TensorSpec(name, (), str(found))
    dims = ("?",) if found.shape is None else found.shape
    shape = tuple(int(dim.value) if hasattr(dim, "value") else str(dim) for dim in dims)
    return TensorSpec(name, shape, str(found.dtype), IMAGES if len(shape) == len(IMAGES) else None)
