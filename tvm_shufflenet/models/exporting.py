"""``torch.export`` of a module, and what is said where it refuses one."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stderr

import torch
from torch import nn

from ..errors import ImportFailed, lines_of
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
