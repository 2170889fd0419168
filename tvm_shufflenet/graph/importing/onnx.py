"""ONNX as Relax, by TVM's importer."""

from __future__ import annotations

import contextlib
import io
import warnings

import tvm
from tvm.relax.frontend.onnx import from_onnx

from ...errors import ImportFailed
from ...models.sources.onnx_files import OnnxModel, reason_of
from ...models.sources.onnx_forms import refuse_misread


def import_onnx(model: OnnxModel) -> tvm.IRModule:
    """Weights are constants, nothing is folded. Raises ImportFailed."""
    refuse_misread(model.proto, model.name)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):  # it prints what it raises anyway
            warnings.simplefilter("ignore")
            return from_onnx(model.proto, keep_params_in_input=False)
    except Exception as exc:
        operator = said.getvalue().partition(", with inputs")[0].rpartition(" ")[2]
        raise ImportFailed(
            f"TVM cannot import {model.name}: {f'{operator}: ' if operator else ''}{reason_of(exc)}",
            "an operator that TVM's importer does not know in this form",
            "replace that operator in the model, or export it with another opset",
        ) from exc
