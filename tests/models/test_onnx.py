"""ONNX files: what exporters write, fixed, folded and canonicalised to what PyTorch's own import gives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from helpers.tensors import only
from tvm_shufflenet.devices import find_device
from tvm_shufflenet.devices.network import Network
from tvm_shufflenet.errors import BadInput, ImportFailed
from tvm_shufflenet.graph import pipeline
from tvm_shufflenet.graph.frontend import relax_of
from tvm_shufflenet.graph.pipeline import fuse, stock
from tvm_shufflenet.hardware.targets import find_target
from tvm_shufflenet.library.build import build
from tvm_shufflenet.library.scheduling import schedule_tuned, schedule_untuned
from tvm_shufflenet.models import Model, find_model, randomise_batch_norms
from tvm_shufflenet.models.sources.onnx_files import fold_shapes
from tvm_shufflenet.models.zoo import shufflenet_v1, shufflenet_v2
from tvm_shufflenet.tuning.records.store import RecordStore
from tvm_shufflenet.verification.networks import check
from tvm_shufflenet.workflow.imported import import_model

LOCAL = find_target("local")
SHAPE = (1, 3, 32, 32)
ENGINE = "onnxruntime" if importlib.util.find_spec("onnxruntime") else "onnx's reference evaluator"
ROUNDING = 1e-5
MOVES = ("permute", "take", "gather", "slice")


def names(module) -> list[str]:
    """What ``main`` calls, in order, without the numbers that tell our own functions apart."""
    values = [binding.value for block in module["main"].body.blocks for binding in block.bindings]
    operators = [value for value in values if hasattr(value, "op")]
    named = [str(v.args[0].name_hint) if v.op.name == "relax.call_tir" else v.op.name for v in operators]
    return [name if "." in name else name.rstrip("0123456789") for name in named]


def export(module: nn.Module, path: Path, shape=SHAPE, **options) -> Path:
    """Write ``module`` as the exporter for exported programs does, or the older one with ``dynamo=False``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own exporter
        torch.onnx.export(module.eval(), (torch.zeros(shape),), path, **{"dynamo": True, "verbose": False} | options)
    return path


TWO = (2, *SHAPE[1:])
EXPORTS = {
    "torch.export": {},
    "torch.export, as traced": {"optimize": False},
    "torch.export, any batch": {"shape": TWO, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
    "TorchScript": {"dynamo": False},
    "TorchScript, any shape": {
        "dynamo": False,
        "input_names": ["image"],
        "dynamic_axes": {"image": {0: "batch", 2: "height", 3: "width"}},
    },
    "TorchScript, batch norms kept": {
        "dynamo": False,
        "opset_version": 13,
        "do_constant_folding": False,
        "training": torch.onnx.TrainingMode.PRESERVE,
    },
}


class Small(nn.Sequential):
    """The units of both papers and what is around them."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            shufflenet_v1.ShuffleUnit(12, 48, 3, 2, 1),
            shufflenet_v1.ShuffleUnit(48, 48, 3, 1, 3),
            shufflenet_v2.ShuffleUnit(48, 64, 2),
            shufflenet_v2.ShuffleUnit(64, 64, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
        randomise_batch_norms(self)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Model("small", SHAPE, Small().eval())


@pytest.mark.parametrize("how", EXPORTS)
def test_an_onnx_file_becomes_what_the_torch_model_becomes(small, tmp_path, how):
    path = export(small.module, tmp_path / "network.onnx", **EXPORTS[how])
    model = find_model(str(path), input_shape=SHAPE)
    assert (model.name, model.input_shape, model.engine) == ("network", SHAPE, ENGINE)
    imported = import_model(model)
    (answer,) = small(only(imported.inputs))
    np.testing.assert_allclose(only(imported.reference), answer, rtol=0, atol=ROUNDING)
    expected = names(pipeline.fuse(relax_of(small), LOCAL).module)
    assert names(pipeline.fuse(imported.module, LOCAL).module) == expected


def halves(x):
    """MEGVII's shuffle and split."""
    batch, channels, height, width = x.data.size()
    x = x.reshape(batch * channels // 2, 2, height * width).permute(1, 0, 2)
    return x.reshape(2, -1, channels // 2, height, width)


class Spellings(nn.Module):
    """Shuffles as users write them, each behind a convolution, with a batch norm to fold; MEGVII's at the end."""

    def __init__(self, own_operator: bool):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(12, 12, 1, groups=3) for _ in range(5))
        self.norm, self.last = nn.BatchNorm2d(12), nn.Conv2d(6, 6, 3, padding=1)
        self.own_operator = own_operator
        self.register_buffer("order", torch.arange(12).reshape(3, 4).T.reshape(-1))
        randomise_batch_norms(self)

    def forward(self, x):
        batch, channels, height, width = x.data.size()
        x = F.relu(self.norm(self.convs[0](x))).view(batch, 3, channels // 3, height, width)
        x = x.transpose(1, 2).contiguous().view(batch, -1, height, width)
        x = F.relu(self.convs[1](x))
        x = F.channel_shuffle(x, 3) if self.own_operator else torch.cat([x[:, first::4] for first in range(4)], 1)
        x = self.convs[2](x)[:, self.order]
        x = F.relu(self.convs[3](x)).reshape(batch, 3, 4, height * width).permute(0, 2, 1, 3).reshape(x.shape)
        kept, changed = halves(F.relu(self.convs[4](x)))
        return torch.cat([kept, self.last(changed)], 1)


@pytest.mark.parametrize("how", EXPORTS)
def test_exported_shuffles_are_recognised(tmp_path, how):
    torch.manual_seed(0)
    # The older exporter does not know nn.ChannelShuffle.
    module, shape = Spellings(own_operator=how.startswith("torch.export")), (1, 12, 6, 5)
    options = {**EXPORTS[how], "shape": (EXPORTS[how].get("shape", shape)[0], *shape[1:])}
    model = find_model(str(export(module, tmp_path / "spellings.onnx", **options)), input_shape=shape)
    imported = import_model(model)
    with torch.no_grad():
        expected = module(torch.from_numpy(only(imported.inputs))).numpy()
    np.testing.assert_allclose(only(imported.reference), expected, rtol=0, atol=ROUNDING)
    moves = [name for name in names(imported.module) if any(move in name for move in MOVES)]
    assert moves == 5 * ["relax.permute_dims"]


def test_a_library_from_an_onnx_file_computes_its_answer(small, tmp_path):
    imported = import_model(find_model(str(export(small.module, tmp_path / "network.onnx"))))
    store = RecordStore(tmp_path / "records", LOCAL.tvm())
    build(schedule_tuned(fuse(imported.module, LOCAL), store.database()), tmp_path / "templates.so")
    build(schedule_untuned(stock(imported.module, LOCAL)), tmp_path / "untuned.so")
    with find_device("local", LOCAL) as device:
        for library in ("templates.so", "untuned.so"):
            with Network(device, tmp_path / library, imported.signature) as network:
                check(network, imported.answers, library)


# Files as other tools write them


def graph_of(nodes, inputs, outputs, weights=(), opset=17) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tensor(name: str, *shape, kind=TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def relu(*shape, kind=TensorProto.FLOAT) -> onnx.ModelProto:
    return graph_of([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", *shape, kind=kind)], [tensor("y", *shape)])


def saved(proto: onnx.ModelProto, folder: Path) -> str:
    onnx.save(proto, folder / "model.onnx")
    return str(folder / "model.onnx")


def test_weights_may_be_listed_as_inputs(tmp_path):
    weight = np.full((4, 3, 1, 1), 2, np.float32)
    inputs = [tensor("x", 1, 3, 4, 4), tensor("w", 4, 3, 1, 1)]
    proto = graph_of([helper.make_node("Conv", ["x", "w"], ["y"])], inputs, [tensor("y", 1, 4, 4, 4)], [("w", weight)])
    model = find_model(saved(proto, tmp_path))
    imported = import_model(model)
    assert len(imported.module["main"].params) == 1
    np.testing.assert_allclose(only(imported.reference)[:, 0], 2 * only(imported.inputs).sum(1), rtol=1e-5)


def test_arithmetic_on_shapes_becomes_weights():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["front"]),
        helper.make_node("Concat", ["front", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("RandomNormalLike", ["flat"], ["noise"]),
        helper.make_node("Add", ["flat", "noise"], ["y"]),
    ]
    weights = [("zero", np.array([0])), ("two", np.array([2])), ("minus", np.array([-1]))]
    proto = graph_of(nodes, [tensor("x", 2, 3, 4, 4)], [tensor("y", 2, 3, 16)], weights)
    fold_shapes(proto, (2, 3, 4, 4))
    assert [node.op_type for node in proto.graph.node] == ["Reshape", "RandomNormalLike", "Add"]
    (target,) = (each for each in proto.graph.initializer if each.name == "target")
    assert numpy_helper.to_array(target).tolist() == [2, 3, -1]


def test_batch_norms_of_every_opset_are_inference(tmp_path):
    """Before opset 14, onnx's own evaluator mixes statistics of the batch into the given ones."""
    random = np.random.default_rng(0)
    weights = [(name, random.uniform(0.5, 2, 3).astype(np.float32)) for name in ("scale", "bias", "mean", "var")]
    node = helper.make_node("BatchNormalization", ["x", *(name for name, _ in weights)], ["y"], epsilon=0.1)
    for opset in (9, 13, 17):
        proto = graph_of([node], [tensor("x", 1, 3, 4, 4)], [tensor("y", 1, 3, 4, 4)], weights, opset)
        model = find_model(saved(proto, tmp_path))
        data = random.standard_normal(model.input_shape, dtype=np.float32)
        scale, bias, mean, variance = (value[:, None, None] for _, value in weights)
        expected = scale * (data - mean) / np.sqrt(variance + 0.1) + bias
        np.testing.assert_allclose(model(data)[0], expected, rtol=1e-5, atol=1e-6)


def test_dynamic_dimensions_take_the_input_shape(tmp_path):
    path = saved(relu("n", 3, "h", "w"), tmp_path)
    assert find_model(path, input_shape=(2, 3, 5, 7)).input_shape == (2, 3, 5, 7)
    with pytest.raises(ImportFailed, match=r"dynamic shape: \(n, 3, h, w\); .*next: give --input-shape"):
        find_model(path)
    with pytest.raises(BadInput, match=r"takes an input of shape \(n, 3, h, w\), not \(1, 4, 5, 7\)"):
        find_model(path, input_shape=(1, 4, 5, 7))


def training(opset=17) -> onnx.ModelProto:
    weights = [(name, np.ones(3, np.float32)) for name in ("scale", "bias", "mean", "var")]
    inputs, outputs = ["x", *(name for name, _ in weights)], ["y", "new_mean", "new_var"]
    node = helper.make_node("BatchNormalization", inputs, outputs, training_mode=1)
    return graph_of([node], [tensor("x", 1, 3, 4, 4)], [tensor("y", 1, 3, 4, 4)], weights)


def two_inputs() -> onnx.ModelProto:
    values = [tensor(name, 1, 3, 4, 4) for name in "xyz"]
    return graph_of([helper.make_node("Add", ["x", "y"], ["z"])], values[:2], values[2:])


def two_outputs() -> onnx.ModelProto:
    values = [tensor(name, 1, 3, 4, 4) for name in "xyz"]
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    return graph_of(nodes, values[:1], values[1:])


def unknown() -> onnx.ModelProto:
    return graph_of([helper.make_node("Det", ["x"], ["y"])], [tensor("x", 1, 3, 4, 4)], [tensor("y", 1, 3)])


def half_known() -> onnx.ModelProto:
    """An operator that TVM imports, in a form that it does not."""
    pool = helper.make_node("MaxPool", ["x"], ["y", "where"], kernel_shape=[2, 2])
    cast = helper.make_node("Cast", ["where"], ["z"], to=TensorProto.FLOAT)
    return graph_of([pool, cast], [tensor("x", 1, 3, 4, 4)], [tensor("z", 1, 3, 3, 3)])


def not_a_number() -> onnx.ModelProto:
    weight = np.full((4, 3, 1, 1), np.nan, np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    return graph_of([node], [tensor("x", 1, 3, 4, 4)], [tensor("y", 1, 4, 4, 4)], [("w", weight)])


REFUSED = {
    "training": (training, "is in training mode: BatchNormalization"),
    "two inputs": (two_inputs, "takes 2 inputs: x, y"),
    "two outputs": (two_outputs, "returns 2 outputs: y, z"),
    "integers": (lambda: relu(1, 3, 4, 4, kind=TensorProto.INT32), "takes int32, only float32"),
    "rank": (lambda: relu(1, 3, 4), r"takes a tensor of shape \(1, 3, 4\)"),
    "unknown operator": (unknown, "TVM cannot import model: .*Det"),
    "unknown form": (half_known, "TVM cannot import model"),
    "NaN": (not_a_number, f"answers NaN or infinity in {ENGINE}"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_deployed_is_refused(tmp_path, capfd, name):
    make, message = REFUSED[name]
    with pytest.raises(BadInput, match=message):
        import_model(find_model(saved(make(), tmp_path)))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x08"], ids=["empty", "text", "cut short"])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ImportFailed, match=r"cannot load .*bad\.onnx"):
        find_model(str(tmp_path / "bad.onnx"))


def test_other_files_and_options_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"there is no file .*absent\.onnx"):
        find_model(str(tmp_path / "absent.onnx"))
    with pytest.raises(BadInput, match="--weights does not apply"):
        find_model(saved(relu(1, 3, 4, 4), tmp_path), weights=tmp_path / "weights.pth")
    with pytest.raises(BadInput, match="--classes"):
        find_model(saved(relu(1, 3, 4, 4), tmp_path), classes=10)


def test_weights_beside_the_file_that_are_gone(tmp_path):
    weight = np.ones((64, 3, 1, 1), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    proto = graph_of([node], [tensor("x", 1, 3, 4, 4)], [tensor("y", 1, 64, 4, 4)], [("w", weight)])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    import_model(find_model(str(path)))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ImportFailed, match=r"cannot load .*model\.onnx"):
        find_model(str(path))


def test_without_the_package_the_extra_is_named(tmp_path):
    """In a process of its own, where onnx cannot be imported."""
    code = "import sys; sys.modules['onnx'] = None; from tvm_shufflenet.cli import entry; entry()"
    model = saved(relu(1, 3, 4, 4), tmp_path)
    words = ["compile", "--model", model, "--target", "local", "--untuned", "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and "pip install 'tvm-shufflenet[onnx]'" in done.stderr
