"""Computes the reference outputs of an ONNX model: onnxruntime where installed, else onnx's reference evaluator.

The evaluator's operators that are known to be wrong are replaced, see onnx_operators.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...signature import Tensors

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Engine:
    """``evaluate`` takes a model, its inputs, and the names of tensors; returns those tensors."""

    name: str
    evaluate: Callable[[onnx.ModelProto, Tensors, Sequence[str]], dict[str, np.ndarray]]


def engine_for(proto: onnx.ModelProto) -> Engine:
    """onnxruntime, where it is installed and takes the model: it knows no operator of ours, and not every opset."""
    try:
        _session(proto)
    except Exception:  # not installed, or whatever it says about the model
        return EVALUATOR
    return ONNXRUNTIME


def input_names(graph: onnx.GraphProto) -> list[str]:
    """Without weights, which old exporters list among the inputs."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def _session(proto: onnx.ModelProto):
    """As the model is written: an optimization that is wrong must not decide what is right."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what is fatal; the rest it raises
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run_onnxruntime(proto: onnx.ModelProto, inputs: Tensors, names: Sequence[str]) -> dict[str, np.ndarray]:
    import onnx

    wanted = onnx.ModelProto()
    wanted.CopyFrom(proto)
    del wanted.graph.output[:]
    wanted.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)  # their types are inferred
    values = _session(wanted).run(list(names), dict(inputs))
    return dict(zip(names, values, strict=True))


def _run_evaluator(proto: onnx.ModelProto, inputs: Tensors, names: Sequence[str]) -> dict[str, np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    from .onnx_operators import CORRECTED

    evaluator = ReferenceEvaluator(proto, new_ops=CORRECTED)
    with np.errstate(all="ignore"):
        values = evaluator.run(None, dict(inputs), intermediate=True)
    return {name: np.asarray(values[name]) for name in names}


EVALUATOR = Engine("onnx's reference evaluator", _run_evaluator)
ONNXRUNTIME = Engine("onnxruntime", _run_onnxruntime)
