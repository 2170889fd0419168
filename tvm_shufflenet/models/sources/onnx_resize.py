"""Resize, Upsample and GridSample for onnx's reference evaluator, in float32 as onnxruntime counts."""

from __future__ import annotations

import math

import numpy as np
from onnx.reference.op_run import OpRun

ROUNDINGS = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


class Resize(OpRun):
    """Axis by axis: every output element is a weighted sum along the axis."""

    def _run(self, data, *operands, **_attributes):
        given = {attribute.name: getattr(self, attribute.name) for attribute in self.onnx_node.attribute}
        opset = self.run_params["opsets"][self.onnx_node.domain]
        region, scales, sizes = _operands(given, opset, operands)
        axes = [axis % data.ndim for axis in given.get("axes") or range(data.ndim)]
        shape = [data.shape[axis] for axis in axes]
        if sizes is not None:
            sizes, scales = _policy(given.get("keep_aspect_ratio_policy", "stretch"), [int(n) for n in sizes], shape)
        else:
            sizes = [math.floor(np.float32(n) * np.float32(s)) for n, s in zip(shape, scales, strict=True)]
        result, outside = data, np.zeros((1,) * data.ndim, bool)
        for i, axis in enumerate(axes):
            part = None if region is None else (float(region[i]), float(region[i + len(axes)]))
            weights, out = _weights(given, opset, shape[i], sizes[i], np.float32(scales[i]), part)
            if out is not None:
                outside = outside | out.reshape([-1 if other == axis else 1 for other in range(data.ndim)])
            if weights is not None:
                result = np.moveaxis(np.tensordot(weights, result.astype(np.float64), (1, axis)), 0, axis)
        if outside.any():
            result = np.where(outside, given.get("extrapolation_value", 0.0), result)
        return (result.astype(data.dtype),)


class Upsample(Resize):
    """Resize before opset 10, with its scales as an attribute or as the second operand."""


def _operands(given: dict, opset: int, operands: tuple):
    """Region, scales and sizes, None where there are none."""
    if "scales" in given:
        return None, given["scales"], None
    if opset < 11:
        return None, operands[0], None
    region, scales, sizes = (*operands, None, None, None)[:3]
    cropped = given.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    has_scales = scales is not None and len(scales) > 0
    return region if cropped else None, scales if has_scales else None, None if has_scales else sizes


def _policy(policy: str, sizes: list[int], shape: list[int]) -> tuple[list[int], list[float]]:
    """The sizes that ``keep_aspect_ratio_policy`` makes of those asked for, and the scales."""
    scales = [size / n for size, n in zip(sizes, shape, strict=True)]
    if policy == "stretch":
        return sizes, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [math.floor(scale * n + 0.5) for n in shape], [scale] * len(shape)


def _weights(given: dict, opset: int, before: int, after: int, scale: np.float32, part):
    """(after, before) float64, None for an axis left alone, and which elements lie outside, None where none may."""
    mode = given.get("mode", "nearest")
    transformation = given.get("coordinate_transformation_mode", "half_pixel" if opset >= 11 else "asymmetric")
    if before == after and scale == 1 and part in (None, (0.0, 1.0)):
        return None, None
    if given.get("antialias") or (mode == "nearest" and transformation == "half_pixel_symmetric"):
        # onnxruntime's own reading of the former is not the specification's; the latter hangs on the last bit.
        raise NotImplementedError(f"Resize {mode} with antialias or {transformation}")
    places = _places(transformation, before, after, scale, part)
    outside = (places < 0) | (places > before - 1) if part is not None else None
    if mode == "nearest":
        if opset < 11:
            nearest = np.ceil(places) if scale < 1 else np.trunc(places)
        else:
            nearest = ROUNDINGS[given.get("nearest_mode", "round_prefer_floor")](places)
        return np.eye(before)[np.clip(nearest, 0, before - 1).astype(int)], outside
    reach = 1 if mode == "linear" else 2
    first, count = np.floor(places - reach).astype(int), 2 * reach + 2
    taps = first[:, None] + np.arange(count)
    distance = np.abs(taps - places[:, None].astype(np.float64))
    values = np.maximum(0, 1 - distance)
    if mode == "cubic":
        values = _cubic(distance, given.get("cubic_coeff_a", -0.75))
    if given.get("exclude_outside"):
        values = np.where((taps < 0) | (taps >= before), 0, values)
    values /= values.sum(1, keepdims=True)
    weights = np.zeros((after, before))
    np.add.at(weights, (np.arange(after)[:, None], np.clip(taps, 0, before - 1)), values)
    return weights, outside


def _places(transformation: str, before: int, after: int, scale: np.float32, part) -> np.ndarray:
    """Where in the input each output element lies, float32."""
    at, half = np.arange(after, dtype=np.float32), np.float32(0.5)
    if transformation == "asymmetric":
        return at / scale
    if transformation == "align_corners":
        return at * np.float32(before - 1) / np.float32(after - 1) if after > 1 else np.zeros_like(at)
    if transformation == "tf_crop_and_resize":
        start, end = part
        if after == 1:
            return np.full_like(at, 0.5 * (start + end) * (before - 1))
        return np.float32(start * (before - 1)) + at * np.float32((end - start) * (before - 1) / (after - 1))
    if transformation == "pytorch_half_pixel" and after == 1:
        return np.zeros_like(at)
    places = (at + half) / scale - half
    if transformation == "half_pixel_symmetric":
        places += np.float32(before / 2 * (1 - after / (float(scale) * before)))
    elif transformation not in ("half_pixel", "pytorch_half_pixel"):
        raise NotImplementedError(f"coordinate transformation {transformation}")
    return places


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


class GridSample(OpRun):
    """PyTorch's, from which the operator is taken; opset 20 calls the modes otherwise."""

    def _run(self, data, grid, **_attributes):
        import torch

        given = {attribute.name: getattr(self, attribute.name) for attribute in self.onnx_node.attribute}
        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(given.get("mode"), given.get("mode", "bilinear"))
        sampled = torch.nn.functional.grid_sample(
            torch.tensor(data), torch.tensor(grid), mode, given.get("padding_mode", "zeros"),
            bool(given.get("align_corners", 0)),
        )  # fmt: skip
        return (sampled.numpy(),)
