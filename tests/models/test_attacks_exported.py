"""Hostile .pt2 files: each tries to run code, to take memory or to hang where it is read, and is refused in a line."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.models import find_model
from tvm_shufflenet.models.sources.exported_expressions import NotArithmetic, check_expression, check_guard

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
SAMPLE = "data/sample_inputs/model.pt"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 4, 3, 2, 1), torch.arange(4.0).reshape(4, 1, 1)

    def forward(self, data):
        return torch.relu_(self.conv(data) + self.scale).reshape(data.shape[0], -1, data.shape[2] // 2)


class Without(nn.Module):
    """A submodule without gradients, a tensor under two names, results by name."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight

    def forward(self, data):
        with torch.no_grad():
            data = self.first(data)
        return {"result": self.second(data)}


def exported(module: nn.Module, path: Path, **dynamic) -> Path:
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), **dynamic), path)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    dim = torch.export.Dim
    shapes = {"data": {0: dim("batch", max=64), 2: dim.DYNAMIC}}
    return exported(Small(), tmp_path_factory.mktemp("exported") / "net.pt2", dynamic_shapes=shapes)


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """Compile a file that must be refused: exit 2, one short line, no trace of what it tried. Returns the line."""
    (tmp_path / "tuning_logs").mkdir()
    monkeypatch.chdir(tmp_path)

    def refused(path: Path) -> str:
        capfd.readouterr()
        shape = ["--input-shape", "2,3,8,8"]
        code = cli.main(["compile", "--target", "local", "--untuned", "-o", "out", "--model", str(path), *shape])
        out, error = capfd.readouterr()
        assert code == 2 and (not out or out.startswith("model ")), (code, out, error)
        assert error.count("\n") == 1 and error[:-1].isprintable() and len(error) < 1000, error
        assert not (tmp_path / "sprung").exists() and not (tmp_path / "out").exists()
        return error

    return refused


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], None], **options) -> Path:
    """An archive with other files: ``change`` takes them by name within the archive's folder."""
    with zipfile.ZipFile(source) as old:
        files = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w", **options) as new:
        for name, content in files.items():
            new.writestr(f"net/{name}", content)
    return target


def in_json(change: Callable[[dict], None], name: str = MODEL) -> Callable[[dict[str, bytes]], None]:
    """The change of a file that is JSON, parsed."""

    def changed(files: dict[str, bytes]) -> None:
        value = json.loads(files[name])
        change(value)
        files[name] = json.dumps(value).encode()

    return changed


TOUCH = "__import__('os').system('touch sprung')"


class Trap:
    def __reduce__(self):
        return os.system, ("touch sprung",)


def graph(program: dict) -> dict:
    return program["graph_module"]["graph"]


def node(program: dict, word: str) -> dict:
    return next(each for each in graph(program)["nodes"] if word in each["target"])


def calls(target: str, *arguments: dict) -> Callable[[dict], None]:
    """The network's first operator is ``target``."""

    def change(program: dict) -> None:
        node(program, "conv2d").update(
            target=target, inputs=[{"name": "", "arg": argument, "kind": 1} for argument in arguments]
        )

    return change


def renames(old: str, new: str) -> Callable[[dict], None]:
    """Every JSON string ``old`` of the program becomes ``new``."""

    def change(program: dict) -> None:
        text = json.dumps(program).replace(json.dumps(old), json.dumps(new))
        assert json.dumps(new) in text
        program.clear()
        program.update(json.loads(text))

    return change


def expression(text: str, *where: str) -> Callable[[dict], None]:
    """A size of the program is that expression."""

    def change(program: dict) -> None:
        if where:
            graph(program)[where[0]]["planted"] = {"as_expr": {"expr_str": text, "hint": None}}
        else:
            graph(program)["tensor_values"]["data"]["sizes"][0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return change


def guard(text: str) -> Callable[[dict], None]:
    return lambda program: program["guards_code"].append(text)


def signature(**fields) -> Callable[[dict], None]:
    return lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(fields)


def tree(kind: str, context: object) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": json.dumps(context), "children_spec": [leaf]}])


DEFAULT = {"default_factory_module": "os", "default_factory_name": "system", "dict_context": ["touch sprung"]}
ENUM = [{"__enum__": True, "fqn": "os:system", "name": "touch sprung"}]
WORD = {"as_string": "touch sprung"}
PROGRAMS: dict[str, tuple[Callable[[dict], None], str]] = {
    "size": (expression(TOUCH), "no arithmetic"),
    "size as a symbol's name": (expression(f'Symbol("s0\\"+{TOUCH}+\\"")'), "no arithmetic"),
    "size by attributes": (expression("s0.__class__.__base__.__subclasses__()"), "no arithmetic"),
    "size that is a lambda": (expression(f"(lambda: {TOUCH})()"), "no arithmetic"),
    "size of unbounded digits": (expression("Pow(Integer(10), Pow(Integer(10), Integer(10)))"), "no arithmetic"),
    "size nested deeply": (expression("Add(" * 5000 + "Integer(1)" + ")" * 5000), "no arithmetic"),
    "size of many signs": (expression("-" * 8000 + "1"), "no arithmetic"),
    "symbolic integer": (expression(TOUCH, "sym_int_values"), "no arithmetic"),
    "symbolic float": (expression(TOUCH, "sym_float_values"), "no arithmetic"),
    "symbolic truth": (expression(TOUCH, "sym_bool_values"), "no arithmetic"),
    "range of a symbol that is counted to": (
        lambda program: program["range_constraints"].update(u999999999={"min_val": 0, "max_val": 1}),
        "no arithmetic",
    ),
    "guard": (guard(f"{TOUCH} == 0"), "no arithmetic"),
    "guard that closes the assertion": (guard(f"True, ''); {TOUCH}; (1"), "no arithmetic"),
    "guard that ends the message": (guard(f"L['data'].size()[0] == 2 or 'a\"+{TOUCH}+\"' == ''"), "no arithmetic"),
    "guard of two lines": (guard(f"1 == 1\n{TOUCH}"), "no arithmetic"),
    "function of another module": (calls("torch.os.system", WORD), "no operator"),
    "function that downloads": (calls("torch.hub.load", WORD, WORD), "no operator"),
    "attribute getter": (calls("_operator.attrgetter", WORD), "no operator"),
    "method caller": (calls("_operator.methodcaller", WORD), "no operator"),
    "function of builtins": (calls("builtins.eval", WORD), "no operator"),
    "private name in a namespace": (calls("torch.ops.aten.__class__.__init__"), "does not reduce"),
    "operator that loads a library": (calls("torch.ops.load_library", WORD), "no operator"),
    "operator that writes a file": (calls("torch.ops.aten.save.default", WORD, WORD), "aten.save"),
    "operator that maps a file": (
        calls("torch.ops.aten.from_file.default", {"as_string": "sprung"}, {"as_bool": True}, {"as_int": 64}),
        "aten.from_file",
    ),
    "operator of another library": (calls("torch.ops.prim.Print.default", WORD), "no operator"),
    "operator of TorchScript": (calls("torch.ops.aten.format.default", WORD), "aten.format"),
    "operator that makes memory": (calls("torch.ops.aten.resize_.default", {"as_int": 2**60}), "aten.resize_"),
    "operator of an extension": (calls("#python:os.system", WORD), "no operator"),
    "kernel of Triton": (
        calls("torch.ops.higher_order.triton_kernel_wrapper_functional", WORD),
        "no operator",
    ),
    "operator as an argument": (
        calls("torch.ops.aten.relu.default", {"as_operator": "torch.os.system"}), "as_operator",
    ),
    "object of a class": (
        calls("torch.ops.aten.relu.default", {"as_custom_obj": {"name": "o", "class_fqn": "C"}}),
        "an object of a class",
    ),
    "power of integers": (calls("_operator.pow", {"as_int": 10}, {"as_int": 10**10}), "no operator"),
    "graph as an argument of any operator": (
        calls("torch.ops.aten.relu.default", {"as_graph": {"name": "g", "graph": {
            "inputs": [], "outputs": [], "nodes": [], "tensor_values": {}, "sym_int_values": {}, "sym_bool_values": {},
        }}}),
        "takes a graph",
    ),
    "name that is code": (renames("relu_", f"relu_ = {TOUCH}; y"), "models/model.json"),
    "name that ends its line": (renames("relu_", f"relu_\n    {TOUCH}\n    y"), "models/model.json"),
    "input's name": (signature(forward_arg_names=[f"data={TOUCH}"]), "forward_arg_names"),
    "parameter's name": (renames("conv.weight", f'conv"+{TOUCH}+".weight'), "models/model.json"),
    "parameter that is a method": (renames("conv.weight", "__class__.__init__"), "models/model.json"),
    "tree with a factory": (signature(out_spec=tree("collections.defaultdict", DEFAULT)), "takes or returns"),
    "tree with an enumeration": (signature(out_spec=tree("builtins.dict", ENUM)), "takes or returns"),
    "tree of a class": (signature(in_spec=tree("os.system", "touch sprung")), "takes or returns"),
    "tree nested deeply": (signature(in_spec="[1, " + '{"type": null, "children_spec": [' * 50_000), "nested"),
    "verifier of another name": (lambda program: program.update(verifiers=["os.system"]), "verifiers"),
    "tensor of another device": (
        lambda program: graph(program)["tensor_values"]["data"]["device"].update(type="cuda"), "exported on 'cuda'",
    ),
    "tensor of petabytes": (
        lambda program: graph(program)["tensor_values"]["data"].update(
            sizes=[{"as_int": 2**20}] * 4, strides=[{"as_int": 0}] * 4
        ),
        "GB",
    ),
    "tensor of negative size": (
        lambda program: graph(program)["tensor_values"]["data"]["sizes"].__setitem__(0, {"as_int": -1}), "negative",
    ),
    "number beyond 64 bits": (calls("torch.ops.aten.relu.default", {"as_int": 2**70}), "models/model.json"),
}  # fmt: skip


@pytest.mark.parametrize("attack", PROGRAMS)
def test_a_program_that_brings_code(refused, whole, tmp_path, attack):
    change, words = PROGRAMS[attack]
    error = refused(rewritten(whole, tmp_path / "net.pt2", in_json(change)))
    assert words in error and f"cannot load {tmp_path}/net.pt2" in error, error


def weights(**fields) -> Callable[[dict[str, bytes]], None]:
    """The payload of ``conv.weight`` has other fields, with ``tensor__`` those of its tensor."""

    def change(config: dict) -> None:
        payload = config["config"]["conv.weight"]
        for name, value in fields.items():
            part = payload["tensor_meta"] if name.startswith("tensor__") else payload
            part[name.removeprefix("tensor__")] = value

    return in_json(change, WEIGHTS)


def planted(**files: bytes) -> Callable[[dict[str, bytes]], None]:
    """Further files, or others: ``__`` stands for a slash."""
    return lambda found: found.update({name.replace("__", "/"): content for name, content in files.items()})


def sample(content: object, protocol: int = 2) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, pickle_protocol=protocol)
    return data.getvalue()


def both(*changes: Callable) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for each in changes:
            each(files)

    return change


SIZES = [{"as_int": 2**16}, {"as_int": 2**16}, {"as_int": 1}, {"as_int": 1}]
ARCHIVES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "library of AOTInductor beside a program": (
        planted(data__aotinductor__model__wrapper_so=b"\x7fELF"), "AOTInductor",
    ),
    "pickle as a weight": (
        both(weights(use_pickle=True), planted(data__weights__weight_0=sample(Trap()))), "could run code",
    ),
    "script object as a constant": (
        in_json(
            lambda config: config["config"].update(
                o={"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            ),
            "data/constants/model_constants_config.json",
        ),
        "model_constants_config.json",
    ),
    "opaque object as a constant": (
        both(
            planted(data__constants__opaque_obj_0=pickle.dumps(Trap())),
            in_json(
                lambda config: config["config"].update(
                    o={"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
                ),
                "data/constants/model_constants_config.json",
            ),
        ),
        "opaque_obj_0",
    ),
    "weights of an older format": (lambda files: files.update({"data/weights/model.pt": sample(Trap())}), "model.pt"),
    "constants of an older format": (
        lambda files: files.update({"data/constants/model.pt": sample(Trap())}), "model.pt",
    ),
    "sample inputs": (lambda files: files.update({SAMPLE: sample((Trap(),))}), "could run code"),
    "sample inputs of a later pickle": (lambda files: files.update({SAMPLE: sample((Trap(),), 4)}), "could run code"),
    "sample inputs that are a bare pickle": (lambda files: files.update({SAMPLE: pickle.dumps(Trap())}), "damaged"),
    "second program": (lambda files: files.update({"models/other.json": files[MODEL]}), "models/other.json"),
    "path upwards in a weight's name": (weights(path_name="../../../../etc/passwd"), "path_name"),
    "path upwards in a file's name": (planted(**{"data/weights/../../../sprung": b""}), "no part"),
    "weight that reads beyond its end": (weights(tensor__storage_offset={"as_int": 2**40}), "beyond the end"),
    "weight with far strides": (weights(tensor__strides=[{"as_int": 2**40}] * 4), "beyond the end"),
    "weight that repeats one element": (
        weights(tensor__sizes=[{"as_int": 2**15}] * 2, tensor__strides=[{"as_int": 0}] * 2), "GB",
    ),
    "weight without bytes": (
        both(weights(tensor__sizes=SIZES, tensor__strides=[{"as_int": 1}] * 4), planted(data__weights__weight_0=b"")),
        "GB",
    ),
    "weight that half of is there": (
        lambda files: files.update({"data/weights/weight_0": files["data/weights/weight_0"][:101]}), "whole number",
    ),
    "weight of two types": (
        in_json(
            lambda config: config["config"].update(
                other=json.loads(json.dumps(config["config"]["conv.weight"]).replace('"dtype": 7', '"dtype": 5'))
            ),
            WEIGHTS,
        ),
        "one type",
    ),
    "weight that is missing": (lambda files: files.pop("data/weights/weight_0"), "holds no data/weights/weight_0"),
    "program that is missing": (lambda files: files.pop(MODEL), "cannot load"),
    "JSON nested deeply": (lambda files: files.update({MODEL: b'{"a":' * 500_000}), "nested too deeply"),
    "JSON lists nested deeply": (lambda files: files.update({WEIGHTS: b'{"x":' + b"[" * 10**6}), "nested too deeply"),
    "JSON that is text": (lambda files: files.update({MODEL: b"\x1b[2J\xff"}), "no JSON"),
    "JSON of another kind": (lambda files: files.update({MODEL: b"[]"}), "models/model.json"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ARCHIVES)
def test_an_archive_that_brings_more_than_a_network(refused, whole, tmp_path, attack):
    change, words = ARCHIVES[attack]
    assert words in refused(rewritten(whole, tmp_path / "net.pt2", change))


def test_a_size_that_is_squared_again_and_again(refused, whole, tmp_path):
    def change(program: dict) -> None:
        nodes = graph(program)["nodes"]
        last = next(each for each in nodes if each["target"].endswith("sym_size.int"))["outputs"][0]["as_sym_int"]
        for number in range(60):
            made = {"as_name": f"square_{number}"}
            inputs = [{"name": name, "arg": {"as_sym_int": last}, "kind": 1} for name in "ab"]
            outputs = [{"as_sym_int": made}]
            nodes.append({"target": "_operator.mul", "inputs": inputs, "outputs": outputs, "metadata": {}})
            last = made

    assert "makes a size of" in refused(rewritten(whole, tmp_path / "net.pt2", in_json(change)))


def test_a_tensor_that_is_larger_than_the_file_says(refused, tmp_path):
    class Large(nn.Module):
        def forward(self, data):
            return data.repeat(1, 4, 2, 2).mean((2, 3))

    path = exported(Large(), tmp_path / "whole.pt2")

    def change(program: dict) -> None:
        node(program, "repeat")["inputs"][1]["arg"] = {"as_ints": [1, 2**20, 2**10, 2**10]}

    assert "makes a tensor of" in refused(rewritten(path, tmp_path / "net.pt2", in_json(change)))


class TestAZipFile:
    def test_that_is_a_bomb(self, refused, whole, tmp_path):
        path = rewritten(
            whole,
            tmp_path / "net.pt2",
            lambda files: files.update({"data/weights/weight_0": bytes(50 * 2**20)}),
            compression=zipfile.ZIP_DEFLATED,
        )
        assert path.stat().st_size < 2**20 and "compressed" in refused(path)

    def test_with_a_name_twice(self, refused, whole, tmp_path):
        path = rewritten(whole, tmp_path / "net.pt2", lambda files: None)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(f"net/{MODEL}", b"{}")
        assert "twice" in refused(path)

    def test_whose_entries_overlap(self, refused, whole, tmp_path):
        """Many entries of one content, as in bombs that need no compression."""
        path = rewritten(
            whole, tmp_path / "net.pt2", lambda files: files.update({"data/weights/weight_7": bytes(10**6)})
        )
        with zipfile.ZipFile(path, "a") as archive:
            large = archive.getinfo("net/data/weights/weight_7")
            for number in range(100, 140):
                other = zipfile.ZipInfo(f"net/data/weights/weight_{number}")
                for field in ("header_offset", "file_size", "compress_size", "CRC"):
                    setattr(other, field, getattr(large, field))
                archive.filelist.append(other)
                archive.NameToInfo[other.filename] = other
            archive._didModify = True
        assert "overlap" in refused(path)

    def test_whose_folders_differ(self, refused, whole, tmp_path):
        path = rewritten(whole, tmp_path / "net.pt2", lambda files: None)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other/data/version", b"3")
        assert "no part" in refused(path)

    def test_that_claims_more_than_it_holds(self, refused, whole, tmp_path):
        path = rewritten(whole, tmp_path / "net.pt2", lambda files: None)
        with zipfile.ZipFile(path, "a") as archive:
            for info in archive.filelist:
                if info.filename.endswith("weight_0"):
                    info.file_size = info.compress_size = 2**40
            archive._didModify = True
        assert "GB" in refused(path)


class TestWhatIsStillRead:
    def test_gradients_off_tensors_shared_results_named(self, tmp_path):
        module = Without()
        model = find_model(str(exported(module, tmp_path / "net.pt2")))
        data = torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(torch.from_numpy(model(data.numpy())[0]), module(data)["result"])

    def test_a_stack_is_kept_for_messages_without_what_a_terminal_obeys(self, whole, tmp_path):
        def change(program: dict) -> None:
            trace = f'File "net.py", line 7, in forward\n    x\n  File "a\x1b[2J", line 1, in f\n\r{TOUCH}'
            node(program, "conv2d")["metadata"]["stack_trace"] = trace

        model = find_model(str(rewritten(whole, tmp_path / "net.pt2", in_json(change))), input_shape=(2, 3, 8, 8))
        assert not any("\x1b" in (each.meta.get("stack_trace") or "") for each in model.program.graph.nodes)

    def test_what_a_user_put_beside_it_is_left_out(self, whole, tmp_path):
        path = rewritten(whole, tmp_path / "net.pt2", planted(**{"extra/notes.txt": b"trained on Tuesday"}))
        assert find_model(str(path), input_shape=(3, 3, 9, 8)).program is not None


@pytest.mark.parametrize(
    "text",
    [
        "Add(FloorDiv(Add(Symbol('s0', positive=True, integer=True), Integer(-1)), Integer(2)), Integer(1))",
        "Max(Integer(1), Mul(Integer(2), Symbol('s77', integer=True)))",
        "2*s0 + 1",
        "Rational(1, 2)",
        "Float('0.5', precision=53)",
        "Equality(Mod(Symbol('u3', integer=True), Integer(2)), Integer(0))",
        "true",
    ],
)
def test_arithmetic_on_sizes(text):
    check_expression(text)


def test_conditions_on_sizes():
    check_guard("((8*L['x'].size()[0]*(2 + 2*(((-1) + L['x'].size()[3]) // 2))) % (16 + L['args'][0].size()[2])) == 0")
    for text in ("L['x'].data_ptr()", "L['x'].size()[0]", "s0 == 1", "L", "L['x'].size()[0] == 1 # '"):
        if text == "L['x'].size()[0]":
            check_guard(text)
        else:
            with pytest.raises(NotArithmetic):
                check_guard(text)
