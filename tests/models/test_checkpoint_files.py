"""Where training loops keep a network in a checkpoint, what wrappers do to its names, and files of safetensors."""

from __future__ import annotations

import json
import struct
from argparse import Namespace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.checkpoints.load import load_weights, read_checkpoint
from tvm_shufflenet.models.checkpoints.safetensors_files import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Net(nn.Module):
    """Parts at two depths, one of them called as a wrapper calls what it wraps."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)


def network(seed: int) -> Net:
    torch.manual_seed(seed)
    net = Net()
    with torch.no_grad():
        net.stem[1].running_mean.uniform_()
    return net


def prefixed(prefix: str, seed: int = 1) -> dict:
    return {prefix + name: value for name, value in network(seed).state_dict().items()}


def loaded(module: nn.Module, path) -> str:
    return load_weights(module, read_checkpoint(path))


def same(module: nn.Module, seed: int) -> bool:
    return all(torch.equal(value, module.state_dict()[name]) for name, value in network(seed).state_dict().items())


def averaged() -> dict:
    """PyTorch's own moving average, which counts beside the tensors."""
    return AveragedModel(network(1)).state_dict()


def momentum() -> dict:
    net = network(2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net.head(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


KEPT = {
    "as it is": lambda: prefixed(""),
    "state_dict": lambda: {"state_dict": prefixed(""), "epoch": 3},
    "model_state_dict": lambda: {"model_state_dict": prefixed(""), "optimizer_state_dict": momentum()},
    "net": lambda: {"net": prefixed(""), "acc": 0.7},
    "network": lambda: {"network": prefixed("")},
    "a key that nobody knows": lambda: {"generator_weights": prefixed(""), "step": torch.tensor(4)},
    "nested": lambda: {"state": {"model": {"state_dict": prefixed("module.")}}, "optimizer": momentum()},
    "DataParallel": lambda: prefixed("module."),
    "DataParallel twice": lambda: {"model": prefixed("module.module.")},
    "torch.compile": lambda: prefixed("_orig_mod."),
    "torch.compile around DataParallel": lambda: prefixed("_orig_mod.module."),
    "DataParallel around torch.compile": lambda: {"net": prefixed("module._orig_mod.")},
    "Lightning": lambda: {"state_dict": prefixed("model."), "loops": {}, "hparams": Namespace(width=1.0)},
    "Lightning, compiled": lambda: {"state_dict": prefixed("net._orig_mod.")},
    "a part compiled": lambda: {
        name.replace("stem.", "stem._orig_mod."): value for name, value in prefixed("module.").items()
    },
    "AveragedModel": averaged,
    "ema among others": lambda: {"model": prefixed("module.", 2), "ema": prefixed("module.")},
    "timm": lambda: {"state_dict": prefixed("", 2), "state_dict_ema": prefixed("module."), "args": Namespace(lr=0.1)},
    "last weights first in the file": lambda: {"a": {"model": prefixed("", 2)}, "z": {"model_ema": prefixed("")}},
}


@pytest.mark.parametrize("kept", KEPT)
def test_a_network_is_found_wherever_a_training_loop_keeps_it(kept, tmp_path):
    torch.save(KEPT[kept](), tmp_path / "theirs.pth")
    net = network(9)
    note = loaded(net, tmp_path / "theirs.pth")
    assert same(net, 1)
    assert bool(note) == (kept in ("ema among others", "timm", "last weights first in the file"))


def test_what_was_chosen_among_several_is_said(tmp_path):
    torch.save({"model": prefixed("", 2), "ema": {"module": prefixed("")}}, tmp_path / "both.pth")
    assert loaded(network(9), tmp_path / "both.pth") == (
        f"weights: ema.module of {tmp_path}/both.pth, not model: averaged weights come first"
    )
    torch.save({"net": prefixed("", 2), "state_dict": prefixed("")}, tmp_path / "two.pth")
    note = loaded(network(9), tmp_path / "two.pth")
    assert note == f"weights: state_dict of {tmp_path}/two.pth, not net: the first that fits"
    source = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n"
    (tmp_path / "made.py").write_text(source)
    state = nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict()
    torch.save({"ema": state, "model": dict(state)}, tmp_path / "made.pth")
    model = find_model(f"{tmp_path}/made.py:make", weights=tmp_path / "made.pth")
    assert model.notes == (f"weights: ema of {tmp_path}/made.pth, not model: averaged weights come first",)


def test_averages_that_lack_tensors_are_not_chosen(tmp_path):
    """Some averages have no statistics of batch norms: half a network is none."""
    average = {name: value for name, value in prefixed("", 2).items() if "running" not in name}
    torch.save({"model": prefixed(""), "ema": average}, tmp_path / "both.pth")
    net = network(9)
    assert loaded(net, tmp_path / "both.pth") == "" and same(net, 1)


def test_a_network_s_own_names_are_left_alone(tmp_path):
    """A network whose only part is called as a wrapper calls it."""
    outer = nn.ModuleDict({"model": nn.ModuleDict({"module": network(1)})})
    for saved in (outer.state_dict(), {"model": prefixed("module.model.module.")}):
        torch.save(saved, tmp_path / "own.pth")
        other = nn.ModuleDict({"model": nn.ModuleDict({"module": network(9)})})
        assert loaded(other, tmp_path / "own.pth") == ""
        assert same(other["model"]["module"], 1)


def test_a_checkpoint_that_refers_to_itself_ends(tmp_path):
    endless: dict = {"model": prefixed("x.")}
    endless["model"]["again"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(BadInput, match="does not fit the model: 8 missing"):
        loaded(network(9), tmp_path / "endless.pth")
    deep: dict = prefixed("")
    for _ in range(200):
        deep = {"model": deep}
    torch.save(deep, tmp_path / "deep.pth")
    with pytest.raises(BadInput, match="does not fit the model"):
        loaded(network(9), tmp_path / "deep.pth")


def test_two_networks_in_one_dict_are_told_apart_by_their_prefix(tmp_path):
    """As ema_pytorch saves them; averages have no key of their own there, and the order is that of PREFIXES."""
    both = prefixed("online_model.", 2) | prefixed("ema_model.") | {"step": torch.tensor(7)}
    torch.save({"state_dict": both}, tmp_path / "both.pth")
    net = network(9)
    loaded(net, tmp_path / "both.pth")
    assert same(net, 1)


# safetensors


def pack(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors(tensors: dict[str, torch.Tensor], pad: int = 0) -> bytes:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        header[name] = {
            "dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)],
        }  # fmt: skip
        data += raw
    return pack(json.dumps(header).encode() + b" " * pad, data)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin"])
def test_safetensors_load_as_what_torch_saves(name, tmp_path):
    (tmp_path / name).write_bytes(safetensors(prefixed("model._orig_mod."), pad=5))
    net = network(9)
    assert loaded(net, tmp_path / name) == "" and same(net, 1)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_keeps_its_values(dtype, tmp_path):
    tensors = {"a": torch.tensor([[0, 1, 3], [5, 7, 1]]).to(dtype), "b": torch.ones((), dtype=dtype)}
    tensors["none"] = torch.empty((0, 4), dtype=dtype)
    (tmp_path / "x.safetensors").write_bytes(safetensors(tensors))
    (state,) = read_checkpoint(tmp_path / "x.safetensors").states
    assert state.tensors.keys() == tensors.keys()
    for key, value in tensors.items():
        assert state.tensors[key].dtype == dtype and torch.equal(state.tensors[key], value)


def entry(begin: int = 0, end: int = 8, shape=(2,), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
HOSTILE = {
    "empty": b"",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header too large": struct.pack("<Q", 11_000_000) + b"{" + b" " * 10_999_998 + b"}",
    "no JSON": pack(b"{nothing}"),
    "a list": pack(b"[]"),
    "no UTF-8": pack(b'{"\xff":{}}'),
    "nested a million deep": pack(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "a name twice": pack(TWICE, bytes(4)),
    "a number of a million digits": pack(b'{"a":{"dtype":"F32","shape":[' + b"9" * 1_000_000 + b"]}}"),
    "an entry that is none": pack({"a": 5}),
    "an entry without offsets": pack({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "unknown dtype": pack({"a": entry(dtype="C64")}, bytes(8)),
    "a dtype that is none": pack({"a": entry(dtype=["F32"])}, bytes(8)),
    "negative extent": pack({"a": entry(shape=[-1, -2])}, bytes(8)),
    "extent that is no integer": pack({"a": entry(shape=[2.0])}, bytes(8)),
    "extent that is a truth": pack({"a": entry(end=4, shape=[True])}, bytes(4)),
    "shape that overflows": pack({"a": entry(end=0, shape=[0, 2**40, 2**40])}),
    "size and offsets contradict": pack({"a": entry(end=4)}, bytes(4)),
    "negative offset": pack({"a": entry(-8, 0)}, bytes(8)),
    "offsets backwards": pack({"a": entry(8, 0)}, bytes(8)),
    "offset behind the end": pack({"a": entry()}, bytes(4)),
    "overlap": pack({"a": entry(), "b": entry(4, 12)}, bytes(12)),
    "gap": pack({"a": entry(), "b": entry(12, 20)}, bytes(20)),
    "bytes behind the last": pack({"a": entry()}, bytes(9)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_safetensors_that_contradict_themselves_are_refused(kind, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(BadInput, match=r"bad\.safetensors is no safetensors file") as refused:
        read_checkpoint(path)
    assert len(str(refused.value)) < 600


def test_values_beyond_float32_are_refused(tmp_path):
    """They would become infinity in the network, whose weights are float32."""
    tensors = prefixed("") | {"head.bias": torch.full((5,), 1e300, dtype=torch.float64)}
    (tmp_path / "x.safetensors").write_bytes(safetensors(tensors))
    with pytest.raises(BadInput, match=r"holds infinity in head\.bias"):
        loaded(network(9), tmp_path / "x.safetensors")
