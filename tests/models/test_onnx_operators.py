"""Single ONNX operators: the reference answers against PyTorch's, TVM's import of them, and forms that are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from tvm_shufflenet.errors import BadInput, ImportFailed
from tvm_shufflenet.graph.frontend import relax_of
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.sources.onnx_engines import EVALUATOR, engine_for
from tvm_shufflenet.models.sources.onnx_forms import refuse_misread

RANDOM = np.random.default_rng(0)
SHAPE = (2, 6, 13, 10)
IMAGE = RANDOM.standard_normal(SHAPE, dtype=np.float32)
X = torch.from_numpy(IMAGE)


def draw(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def model(operator: str, opset: int, *operands, outputs: int = 1, **attributes) -> onnx.ModelProto:
    """One node of ``operator`` on an image; ``operands`` are its constants, None for one left out."""
    names = ["" if value is None else f"w{i}" for i, value in enumerate(operands)]
    node = helper.make_node(operator, ["x", *names], ["y", *(f"z{i}" for i in range(outputs - 1))], **attributes)
    weights = [numpy_helper.from_array(v, n) for n, v in zip(names, operands, strict=True) if v is not None]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    graph = helper.make_graph(
        [node], "graph", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, 4 * [None])], weights
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


W, GROUPED, DEPTHWISE, BIAS = draw(6, 4, 3, 3), draw(6, 2, 3, 3), draw(6, 1, 4, 4), draw(6)
FLAT = X.reshape(2, -1)
BY_TWO, NONE = np.float32([1, 1, 2, 2]), np.float32([])


def transposed(weight, bias=None, **options):
    return F.conv_transpose2d(X, torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias), **options)


def resized(scale, **options):
    return F.interpolate(X, scale_factor=scale, **options)


# (operator, opset, constants, attributes) and PyTorch's value.
VALUES = {
    "Softmax, flat": (("Softmax", 11, (), {}), F.softmax(FLAT, 1).reshape(SHAPE)),
    "Softmax, flat from axis 2": (
        ("Softmax", 12, (), {"axis": 2}),
        F.softmax(X.reshape(12, -1), 1).reshape(SHAPE),
    ),
    "Softmax": (("Softmax", 13, (), {"axis": 1}), F.softmax(X, 1)),
    "Softmax of the first axis": (("Softmax", 13, (), {"axis": 0}), F.softmax(X, 0)),
    "LogSoftmax, flat": (("LogSoftmax", 9, (), {}), F.log_softmax(FLAT, 1).reshape(SHAPE)),
    "LogSoftmax": (("LogSoftmax", 13, (), {}), F.log_softmax(X, -1)),
    "Hardmax, flat": (("Hardmax", 11, (), {}), F.one_hot(FLAT.argmax(1), FLAT.shape[1]).float().reshape(SHAPE)),
    "LRN": (
        ("LRN", 13, (), {"size": 5, "alpha": 0.3, "beta": 0.6, "bias": 1.5}),
        F.local_response_norm(X, 5, 0.3, 0.6, 1.5),
    ),
    "LRN, its defaults": (("LRN", 7, (), {"size": 5}), F.local_response_norm(X, 5, 1e-4, 0.75, 1.0)),
    "LpNormalization": (("LpNormalization", 13, (), {"axis": 1, "p": 1}), F.normalize(X, 1, 1)),
    "ConvTranspose": (("ConvTranspose", 11, (W,), {"strides": [2, 2]}), transposed(W, stride=2)),
    "ConvTranspose, grouped, output padding": (
        (
            "ConvTranspose", 11, (GROUPED, BIAS),
            {"group": 3, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        ),
        transposed(GROUPED, BIAS, stride=2, padding=1, output_padding=1, groups=3),
    ),
    "ConvTranspose, depthwise, output padding": (
        (
            "ConvTranspose", 17, (DEPTHWISE, BIAS),
            {"group": 6, "strides": [3, 2], "pads": [1, 2, 1, 2], "output_padding": [2, 1]},
        ),
        transposed(DEPTHWISE, BIAS, stride=(3, 2), padding=(1, 2), output_padding=(2, 1), groups=6),
    ),
    "ConvTranspose, dilated": (
        ("ConvTranspose", 11, (GROUPED,), {"group": 3, "strides": [2, 2], "dilations": [2, 2]}),
        transposed(GROUPED, stride=2, dilation=2, groups=3),
    ),
    "ConvTranspose, unequal pads": (
        ("ConvTranspose", 11, (W,), {"strides": [2, 2], "pads": [0, 1, 2, 1]}),
        transposed(W, stride=2)[:, :, :-2, 1:-1],
    ),
    "Pad, negative": (
        ("Pad", 13, (np.array([0, 0, -1, 2, 0, 0, 3, -1]), np.float32(2.5)), {}),
        F.pad(X, (2, -1, -1, 3), value=2.5),
    ),
    "Pad, negative attribute": (
        ("Pad", 9, (), {"pads": [0, 0, -2, -1, 0, 0, -3, -4]}),
        F.pad(X, (-1, -4, -2, -3)),
    ),
    "Pad, negative, reflected": (
        ("Pad", 11, (np.array([0, 0, -1, 2, 0, 0, -2, 3]),), {"mode": "reflect"}),
        F.pad(X[:, :, 1:-2], (2, 3, 0, 0), "reflect"),
    ),
    "MaxPool, ceil": (
        ("MaxPool", 12, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        F.max_pool2d(X, 3, 2, 1, ceil_mode=True),
    ),
    "MaxPool, dilated": (
        ("MaxPool", 12, (), {"kernel_shape": [3, 2], "dilations": [2, 3]}),
        F.max_pool2d(X, (3, 2), 1, 0, (2, 3)),
    ),
    "MaxPool, unequal": (
        ("MaxPool", 12, (), {"kernel_shape": [3, 3], "pads": [0, 2, 1, 0]}),
        F.max_pool2d(F.pad(X, (2, 0, 0, 1), value=-torch.inf), 3, 1),
    ),
    "AveragePool, ceil": (
        ("AveragePool", 11, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        F.avg_pool2d(X, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    "AveragePool, ceil, padding counts": (
        (
            "AveragePool", 19, (),
            {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1, "count_include_pad": 1},
        ),
        F.avg_pool2d(X, 2, 3, ceil_mode=True),
    ),
    "AveragePool, padding counts": (
        (
            "AveragePool", 7, (),
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        ),
        F.avg_pool2d(X, 3, 2, 1),
    ),
    "LpPool": (("LpPool", 11, (), {"kernel_shape": [3, 3], "p": 2}), F.lp_pool2d(X.abs(), 2, 3, 1)),
    "Resize, nearest": (
        ("Resize", 11, (NONE, BY_TWO), {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        resized(2),
    ),
    "Resize, bilinear": (("Resize", 13, (NONE, BY_TWO), {"mode": "linear"}), resized(2, mode="bilinear")),
    "Resize, bilinear, to a size": (
        ("Resize", 13, (NONE, None, np.array([2, 6, 20, 7])), {"mode": "linear"}),
        F.interpolate(X, (20, 7), mode="bilinear"),
    ),
    "Resize, aligned corners": (
        (
            "Resize", 13, (NONE, None, np.array([2, 6, 20, 7])),
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        ),
        F.interpolate(X, (20, 7), mode="bilinear", align_corners=True),
    ),
    "Resize, bicubic": (
        ("Resize", 13, (NONE, BY_TWO), {"mode": "cubic", "cubic_coeff_a": -0.75}),
        resized(2, mode="bicubic"),
    ),
}  # fmt: skip
IMPORTED = [name for name in VALUES if name != "LpNormalization"]


@pytest.mark.parametrize("name", VALUES)
def test_the_evaluator_computes_what_pytorch_computes(name):
    (operator, opset, operands, attributes), expected = VALUES[name]
    found = EVALUATOR.evaluate(model(operator, opset, *operands, **attributes), {"x": IMAGE}, ["y"])["y"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", IMPORTED)
def test_tvm_imports_what_the_reference_is(name, tmp_path):
    """None of these is refused, and what becomes of them is compiled for this machine as it is."""
    import tvm
    from tvm import relax

    (operator, opset, operands, attributes), expected = VALUES[name]
    onnx.save(model(operator, opset, *operands, **attributes), tmp_path / "model.onnx")
    module = relax_of(find_model(str(tmp_path / "model.onnx")))
    with tvm.target.Target("llvm"):
        built = relax.VirtualMachine(relax.build(module, "llvm"), tvm.cpu())
    found = built["main"](tvm.runtime.tensor(IMAGE))
    found = found if hasattr(found, "numpy") else found[0]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("signed", [True, False], ids=["int8", "uint8"])
def test_quantization_of_opset_13_goes_there_and_back(signed):
    kind = np.int8 if signed else np.uint8
    scale, zero = np.abs(draw(6)) * 0.1 + 0.01, np.full(6, 3, kind)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    weights = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "graph", [value("x", 1, SHAPE)], [value("y", 1, SHAPE)], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    found = EVALUATOR.evaluate(proto, {"x": IMAGE}, ["q", "y"])
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    zeros = torch.from_numpy(zero).int()
    expected = torch.fake_quantize_per_channel_affine(X, torch.from_numpy(scale), zeros, 1, low, high)
    assert found["q"].dtype == kind
    np.testing.assert_allclose(found["y"], expected.numpy(), rtol=1e-6)


REFUSED = {
    "MaxPool": ("MaxPool", 12, (), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "ConvTranspose": ("ConvTranspose", 11, (W,), {"strides": [2, 2], "output_shape": [26, 20]}),
    "Pad": ("Pad", 19, (np.array([0, 0, -1, 2, 0, 0, 2, -1]),), {"mode": "wrap"}),
    "Upsample, attribute": ("Upsample", 7, (), {"scales": [1.0, 1.0, 2.0, 2.0]}),
    "Upsample": ("Upsample", 9, (BY_TWO,), {"mode": "linear"}),
    "Resize, opset 10": ("Resize", 10, (BY_TWO,), {}),
    "Resize, fractional": ("Resize", 13, (NONE, np.float32([1, 1, 1.5, 1.25])), {"mode": "linear"}),
    "Resize, rounding": ("Resize", 13, (NONE, BY_TWO), {"nearest_mode": "round_prefer_ceil"}),
    "Resize, antialias": (
        "Resize", 18, (NONE, None, np.array([2, 6, 7, 5])), {"mode": "linear", "antialias": 1},
    ),
    "Resize, axes": ("Resize", 18, (NONE, np.float32([2, 2])), {"axes": [2, 3]}),
    "TopK": ("TopK", 10, (np.array([3]),), {"axis": 1}),
    "ReduceL1": ("ReduceL1", 18, (), {"noop_with_empty_axes": 1}),
    "Slice": ("Slice", 7, (), {"starts": [1], "ends": [5], "axes": [1]}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_forms_that_tvm_reads_otherwise_are_refused_by_operator(name):
    operator, opset, operands, attributes = REFUSED[name]
    proto = model(operator, opset, *operands, outputs=1 + (operator == "TopK"), **attributes)
    with pytest.raises(ImportFailed, match=f"does not take {operator} y of net as it is meant: .+; next: "):
        refuse_misread(proto, "net")


def test_what_no_engine_computes_is_said_in_words(tmp_path):
    """An operator that TVM imports and the evaluator refuses: nothing would verify the library."""
    proto = model("Resize", 19, NONE, BY_TWO, coordinate_transformation_mode="half_pixel_symmetric")
    onnx.save(proto, tmp_path / "model.onnx")
    if engine_for(proto) is not EVALUATOR:
        pytest.skip("onnxruntime computes it")
    with pytest.raises(
        ImportFailed, match=r"reference evaluator cannot compute model: .*; next: pip install onnxruntime"
    ):
        find_model(str(tmp_path / "model.onnx"))(IMAGE)


def test_onnxruntime_is_preferred_and_agrees(tmp_path):
    pytest.importorskip("onnxruntime")
    for (operator, opset, operands, attributes), expected in VALUES.values():
        onnx.save(model(operator, opset, *operands, **attributes), tmp_path / "model.onnx")
        loaded = find_model(str(tmp_path / "model.onnx"))
        assert loaded.engine == "onnxruntime"
        np.testing.assert_allclose(loaded(IMAGE), expected.numpy(), rtol=1e-4, atol=1e-4)


# Extents that are none


def unknown_extents(value: int, opset: int = 13) -> onnx.ModelProto:
    """As paddle2onnx writes a model: with the same in place of the batch in every shape that it mentions."""
    tensor = helper.make_tensor_value_info
    shape = [value, 3, None, None]
    branch = helper.make_graph(
        [helper.make_node("Relu", ["c"], ["b"])], "branch", [], [tensor("b", TensorProto.FLOAT, [value, 8, None, None])]
    )
    branch.value_info.append(tensor("c", TensorProto.FLOAT, [value, 8, 3, 3]))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    weights = [numpy_helper.from_array(draw(8, 3, 3, 3), "w"), numpy_helper.from_array(np.array(True), "yes")]
    outputs = [tensor("y", TensorProto.FLOAT, [value, 8, value, value])]
    graph = helper.make_graph(nodes, "net", [tensor("x", TensorProto.FLOAT, shape)], outputs, weights)
    graph.value_info.append(tensor("c", TensorProto.FLOAT, [value, 8, 7, 7]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("value", [-1, 0, -7])
def test_extents_below_one_are_fixed_by_the_input_shape(value, tmp_path):
    onnx.save(unknown_extents(value), tmp_path / "model.onnx")
    path = str(tmp_path / "model.onnx")
    with pytest.raises(ImportFailed, match=r"dynamic shape: \(\?, 3, \?, \?\); .*next: give --input-shape"):
        find_model(path)
    with pytest.raises(BadInput, match=r"takes an input of shape \(\?, 3, \?, \?\), not \(1, 4, 9, 9\)"):
        find_model(path, input_shape=(1, 4, 9, 9))
    loaded = find_model(path, input_shape=(2, 3, 9, 8))
    assert loaded(draw(2, 3, 9, 8))[0].shape == (2, 8, 9, 8)
    loaded = loaded.proto.graph
    assert [dim.dim_value for dim in loaded.input[0].type.tensor_type.shape.dim] == [2, 3, 9, 8]
    assert not loaded.value_info and "dim_value: -" not in str(loaded)
