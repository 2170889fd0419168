"""Single ONNX operators over attributes and opsets: the reference evaluator and TVM beside onnxruntime.

    python benchmarks/onnx_operators.py [--only Resize,Pad] [--share 0.2]

What differs belongs into models/sources: onnx_operators.py (the evaluator is wrong) or onnx_forms.py (TVM's importer
is). Run it after an update of onnx or TVM. All 2600 models take a quarter of an hour of one core; ``--share`` takes a
random part of them. onnxruntime is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import random
import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvm_shufflenet.errors import DeployError
from tvm_shufflenet.models.sources.onnx_engines import EVALUATOR, ONNXRUNTIME
from tvm_shufflenet.models.sources.onnx_forms import refuse_misread

RANDOM = np.random.default_rng(0)
TOLERANCE = 1e-4
NONE = np.float32([])


def draw(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


IMAGE = draw(2, 6, 7, 9)
Case = tuple[str, int, tuple, dict]  # operator, opset, constants (None for one left out), attributes


def flattening() -> Iterator[Case]:
    for operator, opset in itertools.product(("Softmax", "LogSoftmax", "Hardmax"), (1, 9, 11, 12, 13, 17, 21)):
        yield operator, opset, (), {}
        for axis in (0, 1, 2, 3, *((-1, -2) if opset >= 11 else ())):
            yield operator, opset, (), {"axis": axis}


def normalizing() -> Iterator[Case]:
    for opset, size in itertools.product((7, 13), (1, 3, 5, 7)):
        yield "LRN", opset, (), {"size": size, "alpha": 0.3, "bias": 1.5}
    for opset in (7, 9, 13, 15):
        yield "BatchNormalization", opset, (draw(6), draw(6), draw(6), abs(draw(6)) + 0.1), {"epsilon": 0.1}
        yield "InstanceNormalization", opset, (draw(6), draw(6)), {}
        for order in (1, 2):
            yield "LpNormalization", opset, (), {"axis": 1, "p": order}


def convolving() -> Iterator[Case]:
    geometry = itertools.product((7, 11, 17), (1, 2, 3), ((3, 3), (2, 2), (3, 5)), ((1, 1), (2, 2), (2, 3)))
    for opset, groups, kernel, strides in geometry:
        for pads, more, bias in itertools.product(((0, 0, 0, 0), (0, 1, 1, 0), (1, 0, 2, 1)), (None, (1, 1)), (0, 1)):
            if more and min(strides) < 2:
                continue
            given = {"group": groups, "strides": strides, "pads": pads} | ({"output_padding": more} if more else {})
            yield "ConvTranspose", opset, (draw(6, 4, *kernel), *([draw(4 * groups)] if bias else [])), given
    for opset, groups, mode in itertools.product((7, 11), (1, 2), ("SAME_UPPER", "SAME_LOWER", "VALID")):
        yield "ConvTranspose", opset, (draw(6, 4, 3, 3),), {"strides": (2, 2), "group": groups, "auto_pad": mode}
        yield "Conv", opset, (draw(6, 6 // groups, 3, 3),), {"strides": (2, 2), "group": groups, "auto_pad": mode}
    yield "ConvTranspose", 11, (draw(6, 4, 3, 3),), {"strides": (2, 2), "output_shape": (14, 18)}
    yield "ConvTranspose", 11, (draw(6, 4, 3, 3),), {"strides": (2, 2), "pads": (-1, -1, -1, -1)}


def pooling() -> Iterator[Case]:
    shapes = itertools.product((7, 10, 12, 19, 22), ((2, 2), (3, 3), (3, 2)), ((1, 1), (2, 2), (3, 3)))
    for opset, kernel, strides in shapes:
        for pads, ceil, counts in itertools.product(((0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1)), (0, 1), (0, 1)):
            if max(pads) >= min(kernel) or (ceil and opset < 10):
                continue
            given = {"kernel_shape": kernel, "strides": strides, "pads": pads} | ({"ceil_mode": 1} if ceil else {})
            yield "AveragePool", opset, (), given | ({"count_include_pad": 1} if counts else {})
            if not counts:
                yield "MaxPool", opset, (), given
        for operator, mode in itertools.product(("MaxPool", "AveragePool"), ("SAME_UPPER", "SAME_LOWER", "VALID")):
            yield operator, opset, (), {"kernel_shape": kernel, "strides": strides, "auto_pad": mode}
        yield "LpPool", max(opset, 11), (), {"kernel_shape": kernel, "strides": strides, "p": 2}


def padding() -> Iterator[Case]:
    widths = (
        (0, 0, 1, 2, 0, 0, 2, 1),
        (0, 0, -1, 0, 0, 0, 0, -2),
        (0, 0, -1, 2, 0, 0, 2, -1),
        (0, 1, 0, 0, 0, 0, 0, 0),
    )
    for mode, pads in itertools.product(("constant", "reflect", "edge", "wrap"), widths):
        for opset in (7, 9) if mode != "wrap" else ():
            yield "Pad", opset, (), {"mode": mode, "pads": pads}
        for opset in (11, 13, 18) if mode != "wrap" else (19,):
            yield "Pad", opset, (np.array(pads),), {"mode": mode}


def resizing() -> Iterator[Case]:
    scales = [np.float32(each) for each in ((1, 1, 2, 2), (1, 1, 1.5, 2), (1, 1, 0.5, 0.6), (1, 1, 2.3, 1))]
    transformations = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for scale, mode in itertools.product(scales, ("nearest", "linear")):
        yield "Upsample", 9, (scale,), {"mode": mode}
        yield "Resize", 10, (scale,), {"mode": mode}
    for scale, transformation, opset in itertools.product(scales, transformations, (11, 13, 18)):
        size = np.array([2, 6, int(7 * scale[2]), int(9 * scale[3])])
        roundings = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for mode, rounding in (*(("nearest", each) for each in roundings), ("linear", None), ("cubic", None)):
            given = {"mode": mode, "coordinate_transformation_mode": transformation}
            given |= {"nearest_mode": rounding} if rounding else {}
            yield "Resize", opset, (NONE, scale), given
            if opset > 11:
                yield "Resize", opset, (NONE, None, size), given
            if mode == "cubic":
                yield "Resize", opset, (NONE, scale), given | {"cubic_coeff_a": -0.5, "exclude_outside": 1}


def everything_else() -> Iterator[Case]:
    plain = (
        "Relu LeakyRelu Elu Selu HardSigmoid Softplus Softsign Sigmoid Tanh Exp Neg Abs Ceil Floor Flatten Transpose"
    )
    for operator, opset in itertools.product(plain.split(), (7, 13)):
        yield operator, opset, (), {}
    reductions = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp"
    for operator in reductions.split():
        yield operator, 11, (), {"axes": (2, 3)}
        yield operator, 18, (np.array([-1]),), {"keepdims": 0}
        yield operator, 18, (), {"noop_with_empty_axes": 1}
    for mode, border, corners in itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (0, 1)):
        grid = draw(2, 5, 4, 2).clip(-1.4, 1.4)
        yield "GridSample", 16, (grid,), {"mode": mode, "padding_mode": border, "align_corners": corners}
    for opset, high in itertools.product((11, 13), (np.float32(0.3), None)):
        yield "Clip", opset, (np.float32(-0.3), high), {}


def model(case: Case) -> onnx.ModelProto:
    operator, opset, operands, attributes = case
    names = ["" if value is None else f"w{i}" for i, value in enumerate(operands)]
    node = helper.make_node(operator, ["x", *names], ["y"], **attributes)
    weights = [numpy_helper.from_array(v, n) for n, v in zip(names, operands, strict=True) if v is not None]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "graph", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_tvm(proto: onnx.ModelProto) -> np.ndarray:
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    refuse_misread(proto, "it")
    with contextlib.redirect_stdout(io.StringIO()):
        module = relax.transform.DecomposeOpsForInference()(from_onnx(proto, keep_params_in_input=False))
    with tvm.target.Target("llvm"):
        machine = relax.VirtualMachine(relax.build(module, "llvm"), tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(IMAGE))
    return (found if hasattr(found, "numpy") else found[0]).numpy()


def difference(found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"shape {found.shape}, not {expected.shape}"
    error = np.abs(found - expected).max(initial=0)
    return "" if error <= TOLERANCE * max(1, np.abs(expected).max(initial=0)) else f"off by {error:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="operators, separated by commas")
    parser.add_argument("--share", type=float, default=1.0, help="of all models (1.0)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen, only = random.Random(0), options.only and options.only.split(",")
    counts: Counter[str] = Counter()
    kinds = (flattening, normalizing, convolving, pooling, padding, resizing, everything_else)
    for case in itertools.chain.from_iterable(kind() for kind in kinds):
        if (only and case[0] not in only) or chosen.random() > options.share:
            continue
        proto = model(case)
        try:
            expected = ONNXRUNTIME.evaluate(proto, {"x": IMAGE}, ["y"])["y"]
        except Exception:
            counts["not for onnxruntime"] += 1
            continue
        engines = {"evaluator": lambda proto: EVALUATOR.evaluate(proto, {"x": IMAGE}, ["y"])["y"], "TVM": by_tvm}
        for name, compute in engines.items():
            try:
                wrong = difference(compute(proto), expected)
            except DeployError:
                counts[f"{name}: refused"] += 1
                continue
            except Exception as exc:
                wrong = f"{type(exc).__name__}: {str(exc)[:100]}"
            counts[f"{name}: {'wrong' if wrong else 'right'}"] += 1
            if wrong:
                print(f"{name}: {case[0]} of opset {case[1]}, {case[3]}: {wrong}", flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
