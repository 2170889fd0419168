"""Which of the importer's operators are accepted, and whose converter is used. A test compares the table with TVM.

``benchmarks/importer_audit.py`` runs the operators with their arguments away from the defaults and compares them with
PyTorch. An operator is here, or has a converter of our own, once its cases are right; any other is refused.
"""

from __future__ import annotations

# TVM's own converters that read an operator rightly, with the optional arguments that they honour. Another optional
# argument that is set is refused.
ACCEPTED: dict[str, tuple[str, ...]] = {
    "_native_batch_norm_legit_no_training.default": (),
    "abs.default": (),
    "convolution.default": (),
    "neg.default": (),
    "pixel_shuffle.default": (),
    "relu.default": (),
    "unsqueeze.default": (),
}

NUMBERS_ALONE = "of numbers alone: PyTorch computes it"
# TVM's converters that are not used, by the reason: their operators are refused if ever they occur.
UNUSED: dict[str, tuple[str, ...]] = {
    "torch.export decomposes it": (
        "_adaptive_avg_pool1d.default", "_sparse_addmm.default", "_sparse_mm.default", "affine_grid_generator.default",
        "arange.default", "arange.start", "batch_norm.default", "broadcast_to.default", "celu.default",
        "chunk.default", "concat.default", "conv1d.default", "conv2d.default", "conv3d.default",
        "conv_transpose1d.default", "conv_transpose2d.input", "cross_entropy_loss.default", "dropout.default",
        "einsum.default", "expand_as.default", "eye.default", "eye.m", "flatten.using_ints", "group_norm.default",
        "gru.input", "hardsigmoid.default", "hardswish.default", "instance_norm.default", "isin.Tensor_Tensor",
        "item.default", "layer_norm.default", "linear.default", "linspace.default", "log_softmax.int",
        "logaddexp.default", "lstm.input", "matmul.default", "max.other", "meshgrid.default", "meshgrid.indexing",
        "min.other", "narrow.default", "native_dropout.default", "new_ones.default", "new_zeros.default",
        "one_hot.default", "ones.default", "outer.default", "pad.default", "prelu.default", "relu6.default",
        "reshape_as.default", "rnn_tanh.input", "roll.default", "scaled_dot_product_attention.default",
        "selu.default", "softmax.int", "softsign.default", "square.default", "tile.default", "to.dtype",
        "to.dtype_layout", "to_sparse.default", "transpose.int", "type_as.default", "unflatten.int", "zeros.default",
    ),
    "torch.export makes none that write in place": (
        "add_.Tensor", "bitwise_or_.Scalar", "bitwise_or_.Tensor", "copy_.default", "detach_.default",
        "dropout_.default", "fill_.Scalar", "hardswish_.default", "hardtanh_.default", "index_put_.default",
        "leaky_relu_.default", "masked_fill_.Scalar", "mul_.Tensor", "relu6_.default", "relu_.default",
        "silu_.default", "zero_.default",
    ),
    NUMBERS_ALONE: (
        "arange.start_step", "empty.default", "empty.memory_format", "empty_permuted.default", "full.default",
        "hamming_window.default", "hamming_window.periodic", "hamming_window.periodic_alpha",
        "hamming_window.periodic_alpha_beta", "scalar_tensor.default",
    ),
    "it draws random numbers, or trains": (
        "_native_batch_norm_legit_functional.default", "bernoulli.p", "exponential.default", "randn.default",
        "randn_like.default",
    ),
    "arithmetic on shapes that the data decide": (
        "_assert_async.default", "_assert_async.msg", "_assert_scalar.default", "_local_scalar_dense.default", "add",
        "cond", "eq", "floordiv", "ge", "gt", "le", "lt", "masked_select.default", "mod", "mul", "ne", "neg", "sub",
        "sym_constrain_range_for_size.default", "sym_size.int",
    ),
    "TVM reads it otherwise: NaN, coordinates that are shifted twice": (
        "median.default", "median.dim", "roi_align.default",
    ),
}  # fmt: skip
