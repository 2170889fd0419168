"""Replacements for operators that onnx's reference evaluator computes wrongly, slowly or not at all.

Each was compared with onnxruntime over its attributes and opsets (benchmarks/onnx_operators.py). An operator's defaults
are those of the model's opset: the evaluator fills in those of the newest one.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from onnx.reference.op_run import OpRun

from .onnx_resize import GridSample, Resize, Upsample

QUANTIZED_LIMITS = {np.dtype(kind): (np.iinfo(kind).min, np.iinfo(kind).max) for kind in ("i1", "u1", "i2", "u2")}


class _Operator(OpRun):
    """``self.given``: the attributes that the node has, by name."""

    def run(self, *operands, **options):
        self.given = {attribute.name: getattr(self, attribute.name) for attribute in self.onnx_node.attribute}
        return super().run(*operands, **options)

    @property
    def opset(self) -> int:
        return self.run_params["opsets"][self.onnx_node.domain]


# Softmax, LogSoftmax, Hardmax: before opset 13 over all axes from ``axis`` on, as one


class _Softmax(_Operator):
    def _run(self, data, axis=None):
        if self.opset >= 13:
            return (self.over(data, self.given.get("axis", -1)),)
        rows = math.prod(data.shape[: self.given.get("axis", 1) % data.ndim])
        return (self.over(data.reshape(rows, -1), 1).reshape(data.shape),)

    @staticmethod
    def over(data: np.ndarray, axis: int) -> np.ndarray:
        raise NotImplementedError


class Softmax(_Softmax):
    @staticmethod
    def over(data, axis):
        exponentials = np.exp(data - data.max(axis, keepdims=True))
        return exponentials / exponentials.sum(axis, keepdims=True)


class LogSoftmax(_Softmax):
    @staticmethod
    def over(data, axis):
        shifted = data - data.max(axis, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


class Hardmax(_Softmax):
    @staticmethod
    def over(data, axis):
        result = np.zeros_like(data)
        np.put_along_axis(result, data.argmax(axis, keepdims=True), 1, axis)
        return result


# Normalizations


class BatchNormalization(_Operator):
    """As in inference. Before opset 14, onnx's own mixes statistics of the batch into the given ones."""

    def _run(self, data, scale, bias, mean, variance, epsilon=1e-5, **_training):
        factor = scale / np.sqrt(variance + epsilon)
        per_channel = (-1, *(1,) * (data.ndim - 2))
        result = data * factor.reshape(per_channel) + (bias - mean * factor).reshape(per_channel)
        return (result.astype(data.dtype),)


class LRN(_Operator):
    """Over ``size`` channels around each; onnx's own counts images in place of channels."""

    def _run(self, data, alpha=None, beta=None, bias=None, size=None):
        around = [(0, 0)] * data.ndim
        around[1] = ((size - 1) // 2, size // 2)
        squares = np.pad(np.square(data, dtype=np.float64), around)
        sums = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(-1)
        return ((data / (bias + alpha / size * sums) ** beta).astype(data.dtype),)


class LpNormalization(_Operator):
    def _run(self, data, axis=None, p=None):
        axis, order = self.given.get("axis", -1), self.given.get("p", 2)
        norm = np.linalg.norm(data, order, axis, keepdims=True)
        return (np.divide(data, norm, out=np.zeros_like(data), where=norm != 0),)


# Padding and pooling


class Pad(_Operator):
    """Negative pads cut off, before the others are added."""

    def _run(self, data, *operands, **_attributes):
        if self.opset < 11:
            pads, value = self.given.get("pads", self.given.get("paddings")), self.given.get("value", 0)
            axes = range(data.ndim)
        else:
            pads, value, axes = (*operands, None, None)[:3]
            value = 0 if value is None else np.asarray(value).reshape(-1)[0]
            axes = range(data.ndim) if axes is None else [int(axis) % data.ndim for axis in axes]
        widths = [(0, 0)] * data.ndim
        count = len(axes)
        for axis, before, after in zip(axes, pads[:count], pads[count:], strict=True):
            widths[axis] = (int(before), int(after))
        kept = data[tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(data.shape, widths, strict=True))]
        added = [(max(0, before), max(0, after)) for before, after in widths]
        mode = self.given.get("mode", "constant")
        return (np.pad(kept, added, mode, **({"constant_values": value} if mode == "constant" else {})),)


class _Pool(_Operator):
    """Windows over the spatial axes; what lies outside is NaN, and ``inside`` is reduced over what is not."""

    def windows(self, data: np.ndarray, outside: float) -> np.ndarray:
        """(N, C, *output, *kernel): zeros, or values that do not count, where a window leaves the image."""
        kernel, rank = list(self.given["kernel_shape"]), data.ndim - 2
        strides = self.given.get("strides") or [1] * rank
        dilations = self.given.get("dilations") or [1] * rank
        extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
        counts, pads = self._counts_and_pads(data.shape[2:], extents, strides)
        padded = np.pad(data, [(0, 0), (0, 0), *pads], constant_values=outside)
        beyond = [
            max(0, (count - 1) * stride + extent - size)
            for count, stride, extent, size in zip(counts, strides, extents, padded.shape[2:], strict=True)
        ]
        padded = np.pad(padded, [(0, 0), (0, 0), *((0, more) for more in beyond)], constant_values=np.nan)
        views = np.lib.stride_tricks.sliding_window_view(padded, extents, tuple(range(2, data.ndim)))
        places = [slice(0, (count - 1) * stride + 1, stride) for count, stride in zip(counts, strides, strict=True)]
        return views[(slice(None), slice(None), *places, *(slice(None, None, step) for step in dilations))]

    def _counts_and_pads(self, sizes, extents, strides) -> tuple[list[int], list[tuple[int, int]]]:
        """The number of windows and the padding of each spatial axis."""
        pads = self.given.get("pads") or [0] * 2 * len(sizes)
        automatic, round_up = self.given.get("auto_pad", "NOTSET"), bool(self.given.get("ceil_mode"))
        counts, widths = [], []
        for axis, (size, extent, stride) in enumerate(zip(sizes, extents, strides, strict=True)):
            before, after = pads[axis], pads[axis + len(sizes)]
            if automatic in ("SAME_UPPER", "SAME_LOWER"):
                count = -(-size // stride)
                total = max(0, (count - 1) * stride + extent - size)
                before, after = total // 2, total - total // 2
                if automatic == "SAME_LOWER":
                    before, after = after, before
            else:
                if automatic == "VALID":
                    before = after = 0
                span = size + before + after - extent
                count = (-(-span // stride) if round_up else span // stride) + 1
                if round_up and (count - 1) * stride >= size + before:  # it would begin behind the image
                    count -= 1
            counts.append(count)
            widths.append((before, after))
        return counts, widths


def _last(data: np.ndarray) -> tuple[int, ...]:
    """The axes of the kernel."""
    rank = (data.ndim - 2) // 2
    return tuple(range(2 + rank, 2 + 2 * rank))


class MaxPool(_Pool):
    def _run(self, data, **_attributes):
        if len(self.output) > 1:
            raise NotImplementedError("the indices of MaxPool are not computed here")
        floats = data if data.dtype.kind == "f" else data.astype(np.float64)
        windows = self.windows(floats, np.nan)
        highest = np.where(np.isnan(windows), -np.inf, windows).max(_last(windows))
        return (highest.astype(data.dtype),)


class AveragePool(_Pool):
    """Padding counts as zeros, or not at all; what ceil_mode needs beyond it never counts."""

    def _run(self, data, **_attributes):
        windows = self.windows(data, 0 if self.given.get("count_include_pad") else np.nan)
        return (np.nanmean(windows, _last(windows), dtype=np.float64).astype(data.dtype),)


class LpPool(_Pool):
    def _run(self, data, **_attributes):
        windows, order = self.windows(data, 0), self.given.get("p", 2)
        return (
            (np.nansum(np.abs(windows.astype(np.float64)) ** order, _last(windows)) ** (1 / order)).astype(data.dtype),
        )


class GlobalLpPool(_Operator):
    def _run(self, data, **_attributes):
        order, axes = self.given.get("p", 2), tuple(range(2, data.ndim))
        sums = (np.abs(data.astype(np.float64)) ** order).sum(axes, keepdims=True)
        return ((sums ** (1 / order)).astype(data.dtype),)


# Transposed convolution


class ConvTranspose(_Operator):
    """Every product at its place in the uncut output, of which padding cuts off and output padding keeps more."""

    def _run(self, data, weight, bias=None, **_attributes):
        rank, groups = data.ndim - 2, self.given.get("group", 1)
        strides, dilations = self.given.get("strides") or [1] * rank, self.given.get("dilations") or [1] * rank
        extents = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
        whole = [(n - 1) * s + extent for n, s, extent in zip(data.shape[2:], strides, extents, strict=True)]
        starts, sizes = self._cut(data.shape[2:], whole, strides)
        outputs = weight.shape[1] * groups
        full = np.zeros((data.shape[0], outputs, *whole), np.float64)
        inputs = data.reshape(data.shape[0], groups, -1, *data.shape[2:])
        kernel = weight.reshape(groups, -1, *weight.shape[1:])
        for tap in itertools.product(*map(range, weight.shape[2:])):
            values = np.einsum("ngc...,gco->ngo...", inputs, kernel[(slice(None),) * 3 + tap], optimize=True)
            places = tuple(
                slice(k * dilation, k * dilation + (n - 1) * stride + 1, stride)
                for k, dilation, n, stride in zip(tap, dilations, data.shape[2:], strides, strict=True)
            )
            full[(slice(None), slice(None), *places)] += values.reshape(data.shape[0], outputs, *data.shape[2:])
        ends = [start + size - n for start, size, n in zip(starts, sizes, whole, strict=True)]
        widths = [(max(0, -start), max(0, end)) for start, end in zip(starts, ends, strict=True)]
        kept = tuple(slice(max(0, start), n + min(0, end)) for start, end, n in zip(starts, ends, whole, strict=True))
        result = np.pad(full[(slice(None), slice(None), *kept)], [(0, 0), (0, 0), *widths])
        if bias is not None:
            result += bias.reshape(-1, *(1,) * rank)
        return (result.astype(data.dtype),)

    def _cut(self, inputs, whole, strides) -> tuple[list[int], list[int]]:
        """Where the output begins in the uncut one, and its size, for each spatial axis."""
        rank = len(inputs)
        pads, more = self.given.get("pads") or [0] * 2 * rank, self.given.get("output_padding") or [0] * rank
        automatic, sizes = self.given.get("auto_pad", "NOTSET"), self.given.get("output_shape")
        same = automatic in ("SAME_UPPER", "SAME_LOWER")
        if not sizes and not same:
            if automatic == "VALID":
                pads = [0] * 2 * rank
            starts = list(pads[:rank])
            return starts, [n + more[i] - pads[i] - pads[rank + i] for i, n in enumerate(whole)]
        sizes = list(sizes)[-rank:] if sizes else [n * stride for n, stride in zip(inputs, strides, strict=True)]
        cut = [max(0, n + extra - size) for n, extra, size in zip(whole, more, sizes, strict=True)]
        return [total // 2 if automatic == "SAME_UPPER" else total - total // 2 for total in cut], sizes


# Quantization, of which the evaluator has some opsets only


class QuantizeLinear(_Operator):
    def _run(self, data, scale, zero=None, **_attributes):
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        if kind not in QUANTIZED_LIMITS or self.given.get("block_size"):
            raise NotImplementedError(f"quantization to {kind}, or in blocks, is not computed here")
        scale, zero = (self._along_axis(part, data) for part in (scale, np.zeros((), kind) if zero is None else zero))
        low, high = QUANTIZED_LIMITS[kind]
        return (np.clip(np.rint(data / scale) + zero.astype(np.int64), low, high).astype(kind),)

    def _along_axis(self, part, data):
        shape = [1] * data.ndim
        if part.size != 1:
            shape[self.given.get("axis", 1)] = -1
        return part.reshape(shape)


class DequantizeLinear(QuantizeLinear):
    def _run(self, data, scale, zero=None, **_attributes):
        if data.dtype not in (*QUANTIZED_LIMITS, np.dtype(np.int32)) or self.given.get("block_size"):
            raise NotImplementedError(f"dequantization of {data.dtype}, or of blocks, is not computed here")
        zero = np.zeros((), data.dtype) if zero is None else zero
        difference = data.astype(np.int64) - self._along_axis(zero, data)
        return (difference.astype(scale.dtype) * self._along_axis(scale, data),)


CORRECTED = [
    Softmax, LogSoftmax, Hardmax, BatchNormalization, LRN, LpNormalization, Pad, MaxPool, AveragePool, LpPool,
    GlobalLpPool, ConvTranspose, QuantizeLinear, DequantizeLinear, Resize, Upsample, GridSample,
]  # fmt: skip
