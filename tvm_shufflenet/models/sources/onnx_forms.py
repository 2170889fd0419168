"""Refuses forms of ONNX operators that TVM's importer miscomputes or fails on with a misleading error.

They are refused before it sees them, by operator and reason. Each was found by comparing the importer with onnxruntime
over operators, attributes and opsets: benchmarks/onnx_operators.py, which is what to run after an update of TVM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import ImportFailed

if TYPE_CHECKING:
    import onnx

NEWER_OPSET = 13


def refuse_misread(proto: onnx.ModelProto, name: str) -> None:
    """Raises ImportFailed for the first node of such a form in a model whose input has a known shape."""
    import onnx

    opset = max((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), default=1)
    graph = onnx.shape_inference.infer_shapes(proto).graph
    facts = _Facts(graph, opset)
    for node in graph.node:
        check = CHECKS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        reason = check(_Node(node, facts)) if check is not None else ""
        if reason:
            raise ImportFailed(
                f"TVM's importer does not take {node.op_type} {node.name or node.output[0]} of {name} as it is meant: "
                f"{reason}",
                "",
                f"export the model with opset {NEWER_OPSET}"
                if opset < NEWER_OPSET
                else "replace that operator in the model",
            )


class _Facts:
    """What is known of a graph's tensors: their shapes, and the values of constants."""

    def __init__(self, graph: onnx.GraphProto, opset: int):
        self.opset = opset
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.value_info, *graph.output)
        }


class _Node:
    def __init__(self, node: onnx.NodeProto, facts: _Facts):
        import onnx

        self.node, self.facts, self.opset = node, facts, facts.opset
        self.given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def text(self, attribute: str, default: str = "") -> str:
        value = self.given.get(attribute, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, index: int) -> list[float] | None:
        """The elements of an operand, None where it is left out or no constant."""
        from onnx import numpy_helper

        name = self.node.input[index] if index < len(self.node.input) else ""
        tensor = self.facts.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor).reshape(-1).tolist()

    def shape(self) -> list[int]:
        """Of the first operand; empty where it is not known."""
        shape = self.facts.shapes.get(self.node.input[0], [])
        return shape if all(shape) else []


def _max_pool(node: _Node) -> str:
    shape, strides = node.shape()[2:], node.given.get("strides", [])
    whole = shape and all(extent % stride == 0 for extent, stride in zip(shape, strides, strict=False))
    return "auto_pad SAME_LOWER loses a last window" if node.text("auto_pad") == "SAME_LOWER" and not whole else ""


def _conv_transpose(node: _Node) -> str:
    return "it ignores output_shape" if "output_shape" in node.given else ""


def _pad(node: _Node) -> str:
    if node.text("mode") != "wrap":
        return ""
    pads = node.constant(1)
    return "it wraps what negative pads cut off" if pads is None or min(pads, default=0) < 0 else ""


def _upsample(node: _Node) -> str:
    return "it rounds otherwise, or takes no scales"


def _resize(node: _Node) -> str:
    if node.opset < 11:
        return "it takes no scales before opset 11"
    if node.given.get("axes") or node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "it ignores axes and keep_aspect_ratio_policy"
    if node.given.get("antialias"):
        return "it ignores antialias"
    transformation = node.text("coordinate_transformation_mode", "half_pixel")
    if transformation == "half_pixel_symmetric":
        return "half_pixel_symmetric is unknown to it"
    if node.text("mode", "nearest") == "nearest" and node.text("nearest_mode") == "round_prefer_ceil":
        return "it rounds round_prefer_ceil otherwise"
    scales, shape = node.constant(2), node.shape()
    if not scales or transformation in ("align_corners", "tf_crop_and_resize"):
        return ""
    if not shape or any(
        abs(extent * scale - round(extent * scale)) > 1e-4 for extent, scale in zip(shape, scales, strict=False)
    ):
        return "scales that give no whole extent are rounded to others"
    return ""


def _reduce(node: _Node) -> str:
    return "it ignores noop_with_empty_axes" if node.given.get("noop_with_empty_axes") else ""


def _top_k(node: _Node) -> str:
    return "at opset 10 it takes one element" if node.opset == 10 else ""


def _slice(node: _Node) -> str:
    return "before opset 10 it takes no starts" if node.opset < 10 else ""


CHECKS: dict[str, Callable[[_Node], str]] = {
    "MaxPool": _max_pool,
    "ConvTranspose": _conv_transpose,
    "Pad": _pad,
    "Upsample": _upsample,
    "Resize": _resize,
    "TopK": _top_k,
    "Slice": _slice,
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), _reduce),
}
