"""Calls ``torch.export`` on a module, and explains its refusals."""

from __future__ import annotations

import io
import logging
import math
import sys
from contextlib import redirect_stderr

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from ..errors import ImportFailed, lines_of
from ..signature import IMAGES, Signature, TensorSpec
from ..support.tracebacks import raised_at
from ..text import clean


def export(module: nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """``torch.export`` of a module in eval mode for one NCHW float32 input. Raises ImportFailed."""
    if module.training:
        raise ImportFailed(
            "the model is in training mode", "batch norms would use batch statistics", "call model.eval()"
        )
    try:
        return trace(module, input_shape)
    except Exception as exc:
        reason, place = lines_of(exc)[0], raised_at(exc)
        by_data = "data-dependent" in reason
        raise ImportFailed(
            f"torch.export refused the model{f' at {place}' if place else ''}: {reason[:300]}",
            "its control flow depends on data" if by_data else f"the model does not run on input {tuple(input_shape)}",
            "compute both ways and choose with torch.where"
            if by_data
            else "run it in PyTorch on a tensor of that shape, or give another --input-shape",
        ) from exc


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """``torch.export`` for one float32 input, whatever it raises, without what torch prints before it raises."""
    said, disabled = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with torch.no_grad(), redirect_stderr(said):
            program = torch.export.export(module, (torch.zeros(input_shape),))
    finally:
        logging.disable(disabled)
    sys.stderr.write(clean(said.getvalue()))
    return program


def signature_of(program: ExportedProgram) -> Signature:
    """What a program takes and returns; a dynamic dimension as the range that it was exported for."""
    graph = program.graph_signature
    inputs = [spec.arg.name for spec in graph.input_specs if spec.kind is InputKind.USER_INPUT]
    outputs = [spec.arg.name for spec in graph.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return Signature(
        tuple(_spec(program, name, values.get(name)) for name in inputs),
        tuple(_spec(program, name, values.get(name)) for name in outputs),
    )


def _spec(program: ExportedProgram, name: str, value: object) -> TensorSpec:
    if not isinstance(value, torch.Tensor):
        return TensorSpec(str(name), (), "no tensor")
    shape = tuple(dim if isinstance(dim, int) else _range_text(program, dim) for dim in value.shape)
    return TensorSpec(str(name), shape, str(value.dtype).removeprefix("torch."), IMAGES if len(shape) == 4 else None)


def dim_range(program: ExportedProgram, dim: object) -> tuple[int, float]:
    """Smallest and largest value of a dimension of the input."""
    if isinstance(dim, int):
        return dim, dim
    found = program.range_constraints.get(dim.node.expr)
    if found is None:
        return 1, math.inf
    low, high = float(found.lower), float(found.upper)  # torch's own infinity has no other way out
    return max(1, int(low)), high if math.isinf(high) else int(high)


def _range_text(program: ExportedProgram, dim: object) -> str:
    """``4 to 64``, ``4 or more``."""
    low, high = dim_range(program, dim)
    return str(low) if low == high else f"{low} or more" if high == math.inf else f"{low} to {high}"
