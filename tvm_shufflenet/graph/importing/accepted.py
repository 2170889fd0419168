"""Operators that TVM's own converters read rightly, with the optional arguments that they honour."""

from __future__ import annotations

ACCEPTED: dict[str, tuple[str, ...]] = {
    "_native_batch_norm_legit_no_training.default": (),
    "abs.default": (),
    "bucketize.Tensor": ("out_int32", "right"),
    "convolution.default": (),
    "neg.default": (),
    "pixel_shuffle.default": (),
    "relu.default": (),
    "unsqueeze.default": (),
}
