"""A network from an ONNX file. There is no PyTorch module here: onnx_engines.py computes the reference answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BadInput, ImportFailed, ToolMissing, lines_of
from ...precision import FLOAT32, Precision
from ...signature import (
    IMAGES,
    Signature,
    TensorSpec,
    refuse_no_images,
    refuse_undeployable,
    refuse_unfixable,
    shape_text,
)
from ..model import Model
from .onnx_engines import EVALUATOR, Engine, engine_for, input_names

if TYPE_CHECKING:
    import onnx

# Operators whose value needs none of their operands' elements, those that need the first operand's alone, and those
# that have a new value each time.
FROM_SHAPES = ("Constant", "Shape", "Size")
FROM_FIRST = ("CastLike",)
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


@dataclass(frozen=True)
class OnnxModel(Model):
    """``proto`` takes one float32 tensor of ``input_shape`` and returns one tensor; all of its shapes are known."""

    proto: onnx.ModelProto | None = None

    @cached_property
    def _engine(self) -> Engine:
        return engine_for(self.proto)

    @property
    def engine(self) -> str:
        return self._engine.name

    def __call__(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The model's outputs. Raises ImportFailed where the engine cannot compute them."""
        try:
            return self._evaluate(self._engine, inputs)
        except Exception as exc:
            raise ImportFailed(
                f"{self.engine} cannot compute {self.name}: {reason_of(exc)}",
                "an operator that it does not know in this form, and so there is nothing to verify a library by",
                "pip install onnxruntime" if self.engine != "onnxruntime" else "export the model with another opset",
            ) from exc

    def weights(self) -> dict[str, np.ndarray]:
        """As of a PyTorch model, where the exporter has kept its names."""
        from onnx import numpy_helper

        named = {each.name: each for each in self.proto.graph.initializer if len(each.dims) > 1}
        return {
            name.removesuffix(".weight"): numpy_helper.to_array(each)
            for name, each in named.items()
            if name.endswith(".weight")
        }

    def _evaluate(self, engine: Engine, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        names = [each.name for each in self.proto.graph.output]
        found = engine.evaluate(self.proto, dict(zip(input_names(self.proto.graph), inputs, strict=True)), names)
        return tuple(found[name] for name in names)

    def in_float64(self, *inputs: np.ndarray, precision: Precision = FLOAT32) -> tuple[np.ndarray, ...] | None:
        """As NumPy has it: weights stay float32, and every operation with a float64 operand is one in float64.

        None for another precision than float32, whose rounding NumPy is not told of."""
        if precision is not FLOAT32:
            return None
        try:
            outputs = self._evaluate(EVALUATOR, [data.astype(np.float64) for data in inputs])
        except Exception:  # an operator that is fixed to float32
            return None
        return outputs if all(output.dtype == np.float64 for output in outputs) else None


def load_onnx(path: Path, input_shape: tuple[int, ...] | None) -> OnnxModel:
    """The model of an ONNX file, its dynamic dimensions fixed to ``input_shape``.

    Raises BadInput, ImportFailed, and ToolMissing where the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as exc:
        raise ToolMissing(f"reading {path} needs the package onnx", "", "pip install 'tvm-shufflenet[onnx]'") from exc
    if not path.is_file():
        raise BadInput(f"there is no file {path}", "", "write --model FILE.onnx")
    try:
        onnx.checker.check_model(path)
        proto = onnx.load(path)
    except Exception as exc:
        raise ImportFailed(
            f"cannot load {path}: {reason_of(exc)}",
            "no ONNX model, a damaged one, or its weights' file is not beside it",
            "export it again",
        ) from exc
    _check_inference(proto, path)
    shape = _fix_input(proto, path, input_shape)
    fold_shapes(proto, shape)
    return OnnxModel(path.stem, shape, proto=proto)


def reason_of(exc: Exception) -> str:
    return lines_of(exc)[0].rstrip()[:300]


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs without the weights, which old exporters list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def _check_inference(proto: onnx.ModelProto, path: Path) -> None:
    """Nothing that trains. Raises ImportFailed."""
    training = [node.op_type for node in proto.graph.node if _trains(node)]
    if training:
        raise ImportFailed(f"{path} is in training mode: {training[0]}", "", "export it after model.eval()")


def _trains(node: onnx.NodeProto) -> bool:
    """Whether a batch norm uses the statistics of its batch."""
    return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)


def signature_of(proto: onnx.ModelProto) -> Signature:
    """What a model takes and returns; a dynamic dimension (unknown, named, or below 1) as its name."""
    return Signature(tuple(map(_spec, _inputs(proto.graph))), tuple(map(_spec, proto.graph.output)))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim)
    dtype = "float32" if tensor.elem_type == TensorProto.FLOAT else TensorProto.DataType.Name(tensor.elem_type).lower()
    return TensorSpec(value.name, shape, dtype, IMAGES if len(shape) == 4 else None)


def _fix_input(proto: onnx.ModelProto, path: Path, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """Write ``wanted`` into the only input's dynamic dimensions. Returns its shape. Raises BadInput, ImportFailed."""
    signature = signature_of(proto)
    refuse_unfixable(signature, str(path))
    refuse_no_images(signature.inputs[0], str(path))
    (spec,), (value,) = signature.inputs, _inputs(proto.graph)
    if wanted is None and spec.is_dynamic:
        refuse_undeployable(signature, str(path))
    dims, tensor = spec.shape, value.type.tensor_type
    if wanted is not None and any(isinstance(dim, int) and dim != size for dim, size in zip(dims, wanted, strict=True)):
        raise BadInput(
            f"{path} takes an input of shape {shape_text(spec)}, not {wanted}", "", "give another --input-shape"
        )
    shape = tuple(wanted or dims)
    for dim, size in zip(tensor.shape.dim, shape, strict=True):
        dim.dim_value = size
    for graph in _graphs(proto.graph):
        _forget_shapes(graph)
    return shape


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and those inside its nodes: branches and bodies of loops."""
    pending = [graph]
    while pending:
        graph = pending.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            pending += [attribute.g] if attribute.HasField("g") else attribute.graphs


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop what was inferred before the input's shape was known, and extents that are none: exporters write -1 or 0 for
    an extent that they do not know."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 1:
                dim.ClearField("dim_value")


def fold_shapes(proto: onnx.ModelProto, input_shape: tuple[int, ...]) -> None:
    """What depends on shapes and weights alone becomes a weight, in place: of an exporter's arithmetic on shapes TVM
    makes dynamic tensors, or refuses it. Raises ImportFailed where the model does not run.
    """
    from onnx import numpy_helper

    graph = proto.graph
    known, rest = {tensor.name for tensor in graph.initializer}, []
    for node in graph.node:
        if _is_known(node, known):
            known |= set(node.output)
        else:
            rest.append(node)
    if all(node.op_type == "Constant" for node in graph.node if known.issuperset(node.output)):
        return
    weights = {tensor.name for tensor in graph.initializer}
    read = {name for node in rest for name in node.input} | {value.name for value in graph.output}
    folded = sorted(read & known - weights)
    try:
        zeros = {name: np.zeros(input_shape, np.float32) for name in input_names(graph)}
        values = engine_for(proto).evaluate(proto, zeros, folded)
    except Exception as exc:
        raise ImportFailed(
            f"the model does not run on input {input_shape}: {reason_of(exc)}", "", "give another --input-shape"
        ) from exc
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in folded)
    del graph.node[:]
    graph.node.extend(rest)


def _is_known(node: onnx.NodeProto, known: set[str]) -> bool:
    """Whether a node's outputs follow from ``known`` tensors, and from shapes."""
    if node.op_type in FROM_SHAPES:
        return True
    branches = any(attribute.HasField("g") for attribute in node.attribute)  # they read what is not listed as input
    operands = {name for name in node.input[: 1 if node.op_type in FROM_FIRST else None] if name}
    return bool(operands) and operands <= known and not branches and node.op_type not in RANDOM
