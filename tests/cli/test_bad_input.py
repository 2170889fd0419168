"""Models that cannot be deployed: each refused by the command line with exit 2 and one message that says why."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.models import builder, find_model, names
from tvm_shufflenet.support import tracebacks

SMALL = "shufflenet_v1_g3_x0_25"
FACTORIES = '''
import torch
from torch import nn
from torch.nn import functional as F
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit

class Function(nn.Module):
    """A network that is one function of its convolution's output."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 1)
        self.function = function

    def forward(self, data):
        return self.function(self.conv(data))

def good():
    return Function(F.relu)

class Unknown(nn.Module):
    def forward(self, data):
        once = torch.special.bessel_j0(data)
        twice = torch.special.bessel_j0(once)
        return twice + torch.lgamma(data)

def conv_groups():
    return nn.Conv2d(10, 24, 1, groups=3)

def unit_groups():
    return ShuffleUnit(48, 50, 3, 2, 3)

def shuffle_groups():
    return Function(nn.ChannelShuffle(3))

def dropout():
    return Function(F.dropout)

def random():
    return Function(lambda data: data + torch.rand_like(data))

def branch():
    return Function(lambda data: data if data.sum() > 0 else -data)

def data_shape():
    return Function(lambda data: data.nonzero().float())

def arg_max():
    return Function(lambda data: data.argmax(1))

def two_outputs():
    return Function(lambda data: (data, data + 1))

def double():
    return good().double()

class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, data):
        self.calls.add_(1)
        return data * self.calls

class Two(nn.Module):
    def forward(self, left, right):
        return left + right

def spoilt():
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        made[0].weight[1, 2, 0, 0] = float("nan")
        made[1].running_var[3] = float("nan")
        made[1].bias[0] = float("inf")
    return made

def overflows():
    return Function(lambda data: (data * 1e38) * 1e38)

def raises():
    try:
        {}["last spring"]
    except KeyError as exc:
        raise ValueError("no such checkpoint") from exc

def leaves():
    raise SystemExit("usage: train.py")

def wants(width, depth=3):
    return nn.Conv2d(3, width, depth)

number = 7
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models")
    (path / "mine.py").write_text(FACTORIES)
    return path


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """A model file's folder joins sys.path for good; not beyond its test."""
    monkeypatch.setattr(sys, "path", sys.path[:])


@pytest.fixture
def refused(capfd, tmp_path):
    """Compile a model that must be refused: exit 2, one short message, nothing written. Returns the message."""

    def refused(*words: object) -> str:
        capfd.readouterr()
        command = ["compile", "--target", "local", "--untuned", "-o", tmp_path / "package", "--model", *words]
        code = cli.main([str(word) for word in command])
        out, error = capfd.readouterr()
        # TVM's C++ may warn of an earlier import that failed, once Python forgets it; the command itself drops that.
        error = "".join(line for line in error.splitlines(True) if "BlockBuilder destroyed" not in line)
        assert (code, "Traceback" in error) == (2, False), error
        assert error.startswith("tvm-shufflenet: ") and len(error) < 1200, error
        assert not out or out.startswith("model "), out
        assert not (tmp_path / "package").exists()
        return error

    return refused


def with_line_number(word: str) -> str:
    """``mine.py:{some code}`` with the number of the line that has this code."""
    return re.sub(r"{(.*)}", lambda found: str(line_of(found[1])), word)


def line_of(code: str) -> int:
    return next(number for number, line in enumerate(FACTORIES.splitlines(), 1) if code in line)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (
            "Unknown",
            ["no counterpart of aten.special_bessel_j0 (", "mine.py:{once =}, ", "mine.py:{twice =})", "lgamma ("],
        ),
        ("conv_groups", ["in_channels must be divisible by groups", "Conv2d(in_channels=10,", "groups=3)", "mine.py"]),
        ("unit_groups", ["residual branch's 2 channels are not divisible by 3 groups", "ShuffleUnit(48, 50, 3, 2, 3)"]),
        (
            "shuffle_groups",
            ["torch.export refused", "channels must be divisible by groups", "10 channels and 3 groups"],
        ),
        ("dropout", ["training mode", "aten.dropout (", "mine.py:{self.function(}", "model.eval()"]),
        ("random", ["draws random numbers", "aten.rand_like ("]),
        ("branch", ["torch.export refused the model at", "mine.py:{data.sum()}", "control flow depends on data"]),
        ("data_shape", ["dynamic shape"]),
        ("arg_max", ["returns int64", "only float32"]),
        ("two_outputs", ["returns 2 outputs"]),
        ("double", ["torch.export refused", "double"]),
        ("Counter", ["changes its own state", "calls"]),
        ("Two", ["takes 2 inputs: left, right"]),
        ("spoilt", ["holds NaN or infinity in 0.weight, 1.bias, 1.running_var"]),
        ("overflows", ["answers NaN or infinity"]),
        ("raises", ["last spring", "The above exception", "ValueError: no such checkpoint", "in raises"]),
        ("leaves", ["raised", "SystemExit: usage: train.py"]),
        ("wants", ["without arguments", "'width'"]),
        ("rasies", ["has no 'rasies'", "raises"]),
        ("number", ["is a int, no function"]),
    ],
)
def test_a_factory_s_model(refused, folder, factory, words):
    error = refused(f"{folder}/mine.py:{factory}", "--input-shape", "1,3,8,8")
    for word in words:
        assert with_line_number(word) in error
    assert "importlib" not in error and "torch/" not in error and "factories.py" not in error


def test_a_file_that_does_not_parse_or_names_no_factory(refused, folder):
    (folder / "bad.py").write_text("from torch import nn\n\ndef good(:\n    pass\n")
    error = refused(f"{folder}/bad.py:good")
    assert "SyntaxError" in error and "bad.py" in error and "line 3" in error and "def good(:" in error
    assert "tvm_shufflenet_model_bad" not in sys.modules
    assert "names no factory" in refused(f"{folder}/bad.py")
    assert "--classes is for networks of the zoo" in refused(f"{folder}/mine.py:good", "--classes", "3")


def test_an_image_too_small_for_the_network(refused, folder):
    (folder / "deep.py").write_text("from torch import nn\n\ndef deep():\n    return nn.Conv2d(3, 4, 7)\n")
    error = refused(f"{folder}/deep.py:deep", "--input-shape", "1,3,4,4")
    assert "Kernel size can't be greater than actual input size" in error and "(1, 3, 4, 4)" in error
    assert "does not run on input (1, 4, 8, 8)" in refused(f"{folder}/deep.py:deep", "--input-shape", "1,4,8,8")


@pytest.mark.parametrize("shape", ["3,8,8", "1,3,0,8", "1,3,-8,8", "1,3,8,8,8", "1,3,8.5,8", "a"])
def test_an_input_shape_that_is_none(capfd, shape):
    with pytest.raises(SystemExit) as left:
        cli.main(["compile", "--target", "local", "--untuned", "-o", "x", f"--input-shape={shape}"])
    assert left.value.code == 2 and "write four positive numbers" in capfd.readouterr().err


def test_a_model_s_file_may_print_and_leaves_the_search_path_in_order(folder, capfd):
    """Standard output belongs to --json; a neighbour called as a library's module must not stand in for it later."""
    (folder / "helper.py").write_text("LAYERS = 4\n")
    (folder / "loud.py").write_text(
        "print('loading')\nfrom helper import LAYERS\nfrom torch import nn\n\n"
        "def make():\n    print('making')\n    return nn.Conv2d(3, LAYERS, 1)\n"
    )
    before = sys.path[:]
    assert find_model(f"{folder}/loud.py:make").module.out_channels == 4
    assert sys.path == [*before, str(folder)]
    out, error = capfd.readouterr()
    assert not out and "loading" in error and "making" in error


class Net(nn.Module):
    """Convolution, batch norm, dropout, two classes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Linear(4, 2)

    def forward(self, data):
        return self.fc(self.drop(F.relu(self.norm(self.conv(data)))).mean((2, 3)))


def exported(module: nn.Module, path: Path, *data: torch.Tensor, **dynamic) -> Path:
    torch.export.save(torch.export.export(module, data or (torch.zeros(2, 3, 8, 8),), **dynamic), path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return exported(Net().eval(), tmp_path_factory.mktemp("exported") / "net.pt2")


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory) -> Path:
    """Any batch, height 4 or more, width 4 to 64."""
    dim = torch.export.Dim
    shapes = {"data": {0: dim("batch", min=1), 2: dim("height", min=4), 3: dim("width", min=4, max=64)}}
    return exported(Net().eval(), tmp_path_factory.mktemp("dynamic") / "net.pt2", dynamic_shapes=shapes)


def edited(source: Path, target: Path, **changes) -> Path:
    """A copy of an archive in which each file whose name ends in a key (``_`` for ``.``) became ``change(content)``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            for end, change in changes.items():
                if name.replace(".", "_").endswith(end):
                    content = change(content)
            new.writestr(name, content)
    return target


def of_torch_9(content: bytes) -> bytes:
    program = json.loads(content)
    program |= {"torch_version": "9.8.7", "schema_version": {"major": 99, "minor": 1}}
    return json.dumps(program).encode()


class Trap:
    """What an attacker pickles: loading it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestExportedFile:
    def test_of_another_torch(self, refused, whole, tmp_path):
        error = refused(edited(whole, tmp_path / "other.pt2", model_json=of_torch_9))
        assert "written by torch 9.8.7 (schema 99.1), this is torch" in error and torch.__version__ in error
        assert "torch.export.save(" in error
        archive = edited(whole, tmp_path / "archive.pt2", archive_version=lambda _: b"77")
        assert "archive version 77" in refused(archive)

    def test_of_an_old_torch(self, refused, tmp_path):
        with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
            archive.writestr("version", "7.1")
            archive.writestr("serialized_exported_program.json", "{}")
        assert "written by a torch before 2.8 (schema 7.1)" in refused(tmp_path / "old.pt2")

    def test_that_is_something_else(self, refused, whole, tmp_path):
        content = whole.read_bytes()
        net = Net().eval()
        torch.save(net.state_dict(), tmp_path / "checkpoint.pt2")
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 8, 8)), str(tmp_path / "script.pt2"))
        (tmp_path / "empty.pt2").write_bytes(b"")
        (tmp_path / "text.pt2").write_text("not a network")
        (tmp_path / "pickle.pt2").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
        (tmp_path / "cut.pt2").write_bytes(content[: len(content) // 2])
        with zipfile.ZipFile(tmp_path / "inductor.pt2", "w") as archive:
            archive.writestr("net/data/aotinductor/model/wrapper.so", b"\x7fELF")
        with zipfile.ZipFile(tmp_path / "photos.pt2", "w") as archive:
            archive.writestr("beach.png", b"")
        for name, words in {
            "checkpoint": "a checkpoint of torch.save",
            "script": "a TorchScript archive",
            "empty": "it is empty",
            "text": "no file of torch.export.save",
            "pickle": "a pickle",
            "cut": "cut short",
            "inductor": "AOTInductor",
            "photos": "cannot load",
        }.items():
            error = refused(tmp_path / f"{name}.pt2")
            assert f"cannot load {tmp_path}/{name}.pt2" in error and words in error, name
        assert "there is no file" in refused(tmp_path / "absent.pt2")

    def test_that_brings_code(self, refused, whole, tmp_path):
        trap = io.BytesIO()
        torch.save((Trap(tmp_path / "sprung"),), trap)
        path = edited(whole, tmp_path / "trap.pt2", **{"sample_inputs/model_pt": lambda _: trap.getvalue()})
        assert "could run code" in refused(path)
        assert not (tmp_path / "sprung").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ

    def test_in_training_mode(self, refused, tmp_path):
        error = refused(exported(Net().train(), tmp_path / "train.pt2"))
        assert (
            "training mode: aten.batch_norm (" in error and "aten.dropout (" in error and "test_bad_input.py:" in error
        )
        program = torch.export.export(Net().train(), (torch.zeros(2, 3, 8, 8),)).run_decompositions()
        torch.export.save(program, tmp_path / "core.pt2")
        assert "training mode: aten._native_batch_norm_legit" in refused(tmp_path / "core.pt2")

    def test_of_dynamic_shape(self, refused, dynamic):
        error = refused(dynamic)
        assert "dynamic shape: (1 or more, 3, 4 or more, 4 to 64)" in error and "--input-shape" in error
        for shape in ("1,3,16,65", "1,4,16,16", "1,3,3,16"):
            assert "takes inputs of shape (1 or more, 3, 4 or more, 4 to 64)" in refused(
                dynamic, "--input-shape", shape
            )

    def test_of_dynamic_shape_is_fixed(self, dynamic):
        model = find_model(str(dynamic), input_shape=(3, 3, 9, 17))
        data = torch.randn(3, 3, 9, 17)
        expected = torch.export.load(dynamic).module()(data)
        torch.testing.assert_close(torch.from_numpy(model(data.numpy())[0]), expected)
        assert all(
            isinstance(dim, int)
            for node in model.program.graph.nodes
            for dim in getattr(node.meta.get("val"), "shape", ())
        )

    def test_with_other_inputs(self, refused, whole, tmp_path):
        assert "was exported for input (2, 3, 8, 8), not (1, 3, 8, 8)" in refused(whole, "--input-shape", "1,3,8,8")
        two = exported(Two(), tmp_path / "two.pt2", torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
        assert "takes 2 inputs" in refused(two)
        flat = exported(nn.Linear(3, 4), tmp_path / "flat.pt2", torch.zeros(1, 3))
        assert "takes a tensor of shape (1, 3)" in refused(flat)
        whole_numbers = exported(nn.Identity(), tmp_path / "int.pt2", torch.zeros(1, 3, 8, 8, dtype=torch.int64))
        assert "takes int64" in refused(whole_numbers)

    def test_with_flags_that_do_not_apply(self, refused, whole):
        assert "--weights does not apply" in refused(whole, "--weights", "net.pth")
        assert "--classes is for networks of the zoo" in refused(whole, "--classes", "3")

    def test_with_weights_that_are_no_numbers(self, refused, tmp_path):
        net = Net().eval()
        with torch.no_grad():
            net.fc.weight[1, 1] = float("nan")
        assert "holds NaN or infinity in fc.weight" in refused(exported(net, tmp_path / "nan.pt2"))


class Two(nn.Module):
    def forward(self, left, right):
        return left + right


def test_masks_may_be_infinite_and_unused_buffers_anything():
    from tvm_shufflenet.models.sources.examine import examine

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
            self.register_buffer("unused", torch.tensor([float("nan")]))

        def forward(self, data):
            return torch.softmax(data + self.mask, -1)

    examine(torch.export.export(Masked().eval(), (torch.zeros(1, 3, 4, 2),)))


def test_statistics_of_the_input_are_no_training_mode():
    from tvm_shufflenet.models.sources.examine import examine

    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    examine(torch.export.export(module.eval(), (torch.zeros(1, 3, 8, 8),)))


def test_libraries_of_another_machine_are_no_user_s_files():
    stack = (
        'File "/home/ann/net.py", line 12, in forward\n    return self.norm(data)\n'
        '  File "/home/ann/env/lib/python3.12/site-packages/torch/nn/modules/batchnorm.py", line 210, in forward\n'
    )
    assert tracebacks.recorded_at(stack) == "/home/ann/net.py:12"
    assert tracebacks.recorded_at(None) == tracebacks.recorded_at("nothing") == ""


class TestCheckpoint:
    def test_of_another_width(self, refused, tmp_path):
        torch.save(builder("shufflenet_v1_g3_x0_5")(classes=10).state_dict(), tmp_path / "half.pth")
        error = refused(SMALL, "--weights", tmp_path / "half.pth")
        assert "misshapen: units.0.compress.weight (30, 12, 1, 1) for (15, 12, 1, 1)" in error
        assert "it fits --model shufflenet_v1_g3_x0_5" in error and " more;" in error

    def test_of_another_network(self, refused, tmp_path):
        torch.save(builder("shufflenet_v2_x0_5")().state_dict(), tmp_path / "v2.pth")
        assert "it fits --model shufflenet_v2_x0_5\n" in refused(SMALL, "--weights", tmp_path / "v2.pth")
        torch.save(Net().state_dict(), tmp_path / "own.pth")
        error = refused(SMALL, "--weights", tmp_path / "own.pth")
        assert "missing: stem.weight" in error and "unexpected: conv.weight" in error and "it fits" not in error

    def test_of_other_classes_than_told(self, refused, tmp_path):
        torch.save(builder(SMALL)(classes=10).state_dict(), tmp_path / "ten.pth")
        error = refused(SMALL, "--weights", tmp_path / "ten.pth", "--classes", "7")
        assert "has 10 classes, --classes says 7" in error

    def test_with_nan(self, refused, tmp_path):
        state = builder(SMALL)().state_dict()
        state["units.4.expand.weight"][0, 0] = float("nan")
        torch.save(state, tmp_path / "nan.pth")
        assert "holds NaN in units.4.expand.weight" in refused(SMALL, "--weights", tmp_path / "nan.pth")

    def test_that_is_none(self, refused, tmp_path):
        (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
        assert "no checkpoint that can be loaded safely" in refused(SMALL, "--weights", tmp_path / "trap.pth")
        assert not (tmp_path / "sprung").exists()
        assert "there is no file" in refused(SMALL, "--weights", tmp_path / "absent.pth")


@pytest.mark.parametrize("name", [name for name in names() if name[-4:] not in ("_1_5", "_2_0")])
def test_every_network_of_the_zoo_has_as_many_classes_as_told(name):
    with torch.device("meta"):
        assert builder(name)(classes=7).eval()(torch.empty(1, 3, 224, 224)).shape == (1, 7)
