"""The command line: what each command prints and writes, and how it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tvm_shufflenet.cli import main as cli
from tvm_shufflenet.devices.emulated import EmulatedDevice
from tvm_shufflenet.devices.local import LocalDevice
from tvm_shufflenet.graph.phases import PHASES
from tvm_shufflenet.hardware.boards import BOARDS
from tvm_shufflenet.hardware.targets import host_machine, targets
from tvm_shufflenet.support import interrupts, toolchain
from tvm_shufflenet.workflow import doctor

MISSING = [tool.name for tool in toolchain.all_tools() if tool.path is None]
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
SHIPPED = Path(__file__).parents[2] / "tuning_logs" / "cortex-a72"
SHAPE = (1, 3, 32, 32)
MODELS = """
import torch
from torch import nn
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleNetV1, ShuffleUnit

def network():
    torch.manual_seed(0)
    made = ShuffleNetV1(3, 0.25, classes=10)
    randomise_batch_norms(made)
    return made

def unit():
    torch.manual_seed(0)
    made = ShuffleUnit(48, 48, 3, 1, 3)
    randomise_batch_norms(made)
    return made

def raises():
    raise KeyError("no such layer")

def no_module():
    return 7
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def compiled(models, tmp_path_factory) -> Path:
    """A package of the whole network for arm64, and what ``compile`` said of it."""
    folder = tmp_path_factory.mktemp("packages")
    words = ["compile", "--model", f"{models}:network", "--input-shape", "1,3,32,32", "--target", "arm64"]
    with pytest.MonkeyPatch.context() as patch, open(folder / "said", "w") as said, contextlib.redirect_stdout(said):
        (folder / "tuning_logs").mkdir()  # this one is read, not the shipped one
        patch.chdir(folder)
        assert cli.main([*words, "-o", "package"]) == 0
    return folder / "package"


@pytest.fixture
def package(compiled, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(compiled, tmp_path / "package"))


@pytest.fixture
def run(capfd):
    """Run a command in this process: exit code, standard output, standard error; those of C++ code included."""

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as exc:  # argparse
            code = exc.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(run):
    """Run a command that must fail with ``code``: one short message, no traceback, nothing on standard output."""

    def refused(code: int, *words: object) -> str:
        found, out, error = run(*words)
        assert (found, "Traceback" in error) == (code, False), error
        assert len(error) < 1000 and len(error.strip().splitlines()) <= 3, error
        assert not out or out.startswith("device: ")
        return error

    return refused


def heavy_modules(*words: str, then: str = "") -> str:
    """Those that a command imports in a new process, which then does something more: none, for a command that must be
    quick.
    """
    source = f"""
        import contextlib, io, sys
        from tvm_shufflenet.cli import main as cli
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            cli.main({list(words)})
        {then}
        print([name for name in ("tvm", "tvm_ffi", "torch", "numpy", "xgboost") if name in sys.modules])
        """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True).stdout


class TestQuick:
    @pytest.mark.parametrize("words", [["--help"], ["tune", "--help"], ["targets"], ["tune", "--target", "nonsense"]])
    def test_nothing_heavy_is_imported(self, words):
        assert heavy_modules(*words) == "[]\n"

    def test_help_imports_no_layer_below(self):
        then = "print([name for name in sys.modules if re.match(r'tvm_shufflenet\\.(clock|devices|workflow)', name)])"
        assert heavy_modules("--help", then="import re; " + then) == "[]\n[]\n"

    def test_records_are_looked_after_without_torch(self):
        modules = heavy_modules("records", "list", str(SHIPPED))
        assert "tvm" in modules and "torch" not in modules

    def test_torch_can_be_had_afterwards(self, models):
        then = f"assert cli.main(['models', '{models}:network', '--json', '{os.devnull}']) == 0"
        assert "torch" in heavy_modules("records", "list", str(SHIPPED), then=then)

    def test_help_names_every_command(self, run):
        code, out, _ = run("--help")
        assert code == 0
        words = "models targets doctor tune compile run bench profile inspect compare reproduce deploy serve"
        for name in words.split():
            assert re.search(rf"^    {name}\s", out, re.MULTILINE)

    def test_the_installed_command(self):
        done = subprocess.run([Path(sys.executable).with_name("tvm-shufflenet"), "targets"], capture_output=True)
        assert done.returncode == 0 and b"raspberry-pi-4b" in done.stdout


class TestLists:
    def test_models(self, run):
        code, out, _ = run("models", "--json", "-")
        assert code == 0
        rows = {row["name"]: row for row in json.loads(out)["models"]}
        assert {f"shufflenet_v1_g{g}_x1_0" for g in (1, 2, 3, 4, 8)} <= set(rows)
        row = rows["shufflenet_v1_g3_x1_0"]
        assert row["input_shape"] == [1, 3, 224, 224]
        assert 136e6 < row["multiply_adds"] < 139e6 and row["paper_multiply_adds"] == 137e6
        assert row["paper"] == "ShuffleNet v1 (arXiv:1707.01083), Table 1"
        assert 1e6 < row["parameters"] < 3e6
        assert rows["shufflenet_v1_g8_x2_0"]["paper"] is None
        assert heavy_modules("models") == "[]\n", "what has been counted is kept"

    def test_some_models_and_a_file(self, run, models):
        code, out, _ = run("models", f"{models}:network", "squeezenet", "--json", "-")
        rows = json.loads(out)["models"]
        assert code == 0 and [row["name"] for row in rows] == ["squeezenet", "tiny_network"]
        assert rows[0]["input_shape"] == rows[1]["input_shape"] == [1, 3, 224, 224]
        assert 0 < rows[1]["multiply_adds"] < rows[0]["multiply_adds"] and rows[1]["paper"] is None

    def test_a_model_that_is_not_in_the_zoo(self, run):
        code, out, error = run("models", "squeezenet", "sqeezenet")
        assert (code, out) == (2, "") and "squeezenet" in error

    def test_targets(self, run, tmp_path):
        code, out, _ = run("targets", "--json", tmp_path / "targets.json")
        facts = json.loads((tmp_path / "targets.json").read_text())
        assert code == 0 and facts["schema"] == 1
        wanted = {"arm64", "android-arm64", "x86-64", "local"}
        wanted |= {f"cortex-a{n}" for n in (53, 55, 72, 76)} | {f"raspberry-pi-{n}" for n in ("3b", "4b", "5")}
        assert {target["name"] for target in facts["targets"]} >= wanted
        assert all(target["name"] in out for target in facts["targets"])
        assert {core["name"] for core in facts["cores"]} == set(BOARDS)

    @pytest.mark.parametrize(
        "words",
        [
            ("targets", "--json", "/nowhere/targets.json"),
            ("targets", "--json", "."),
            ("targets", "--json", ""),
            ("targets", "--json", "/"),
            ("compare", "--target", "local", "--html", ".."),
            ("run", "nothing", "--output", "."),
        ],
    )
    def test_a_file_that_cannot_be_written_is_named_at_once(self, run, words):
        code, out, error = run(*words)
        assert (code, out) == (2, "") and f"cannot write '{words[-1]}'" in error

    def test_one_that_cannot_be_written_after_all_is_named_too(self, run):
        code, _, error = run("targets", "--json", "x" * 5000)
        assert code == 2 and "cannot write xxx" in error


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("words", "nearest"),
        [
            (["tune", "--target", "cortex-a27"], "cortex-a72"),
            (["tune", "--target", "raspberry-pi-4"], "raspberry-pi-4b"),
            (["compile", "-o", "x", "--target", "arm46"], "arm64"),
            (["compare", "--target", "arm64", "--model", "shufflenet_v1_g3_x1"], "shufflenet_v1_g3_x1_0"),
            (["tune", "--target", "arm64", "--device", "emulated:cortex-a7"], "cortex-a7"),
            (["tune", "--target", "arm64", "--device", "locale"], "local"),
            (["compare", "--target", "arm64", "--device", "emulatd"], "emulated"),
            (["doctor", "--device", "emulated:a72"], "cortex-a72"),
        ],
    )
    def test_the_nearest_names_are_given(self, run, words, nearest):
        code, _, error = run(*words)
        assert code == 2 and "Traceback" not in error
        assert error.startswith("tvm-shufflenet: unknown ") and nearest in error.split("nearest:")[1]
        assert error.count("\n") == 1 and len(error) < 300

    @pytest.mark.parametrize(
        "address",
        [
            "rpc:",
            "rpc://",
            "rpc://host",
            "rpc://:9090",
            "rpc://host:",
            "rpc://host:port",
            "rpc://host:0",
            "rpc://host:65536",
            "rpc://host:²",
            "rpc://host:-1",
            "rpc:/host:9090",
            "rpc://host:9090/key",
            "tracker://host:9190",
            "tracker://host:9190/",
            "tracker:///key",
        ],
    )
    def test_a_malformed_address(self, refused, address):
        error = refused(2, "tune", "--target", "arm64", "--device", address)
        assert "is not a device address" in error and "HOST:PORT" in error

    def test_a_device_for_another_target(self, refused):
        other = "x86-64" if host_machine() == "aarch64" else "arm64"
        assert "do not match" in refused(2, "tune", "--target", other, "--device", "local")

    @pytest.mark.parametrize("command", ["tune", "compare"])
    def test_more_threads_than_the_emulated_board_has_cores(self, refused, command):
        assert "has 4 cores" in refused(2, command, "--target", "arm64", "--threads", "5")

    @pytest.mark.parametrize(
        "words",
        [
            ["tune"],
            ["nonsense"],
            [],
            ["tune", "--target", "arm64", "--trials", "0"],
            ["tune", "--target", "arm64", "--strategy", "grid"],
            ["compare", "--target", "arm64", "--input-shape", "3,224,224"],
            ["compile", "--target", "arm64", "-o", "x", "--untuned", "--records", "y"],
        ],
    )
    def test_bad_words_are_exit_2(self, run, words):
        code, _, error = run(*words)
        assert code == 2 and "usage:" in error

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("{folder}/tiny.py:raises", "no such layer"),
            ("{folder}/tiny.py:no_module", "returned int"),
            ("{folder}/tiny.py:absent", "absent"),
            ("{folder}/absent.py:network", "there is no file"),
            ("{folder}/absent.pt2", "there is no file"),
            ("{folder}/bad.pt2", "cannot load"),
        ],
    )
    def test_a_model_that_cannot_be_had(self, run, models, model, message):
        (models.parent / "bad.pt2").write_text("no archive")
        code, _, error = run("compare", "--target", "arm64", "--model", model.format(folder=models.parent))
        assert code == 2 and message in error and error.startswith("tvm-shufflenet: ")


# variable, value that means missing, the tool's name, part of its install command
TOOLS = [
    ("TVM_SHUFFLENET_QEMU", "/nowhere/qemu", "qemu-aarch64", "qemu-user"),
    ("TVM_SHUFFLENET_LLVM_MCA", "/nowhere/llvm-mca", "llvm-mca", "llvm-22"),
    ("TVM_SHUFFLENET_LLVM_MC", "/nowhere/llvm-mc", "llvm-mc", "llvm-22"),
    ("TVM_SHUFFLENET_SYSROOT", "/nowhere", "arm64 sysroot", "libc6-arm64-cross"),
    ("TVM_SHUFFLENET_ZIG", "/nowhere/zig", "zig", "pip install ziglang"),
]


class TestMissingTools:
    @pytest.mark.parametrize("command", ["tune", "compare"])
    @pytest.mark.parametrize(("variable", "value", "name", "install"), TOOLS, ids=[tool[2] for tool in TOOLS])
    def test_the_emulated_device_names_what_it_lacks(
        self, refused, monkeypatch, models, command, variable, value, name, install
    ):
        monkeypatch.setenv(variable, value)
        error = refused(3, command, "--target", "arm64", "--model", f"{models}:unit")
        assert f"{name} is missing" in error and install in error

    def test_programs_that_are_not_on_path(self, refused, monkeypatch, models, tmp_path):
        for variable, *_ in TOOLS:
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        error = refused(3, "compare", "--target", "arm64", "--model", f"{models}:unit")
        assert "qemu-aarch64 is missing" in error and "apt-get install -y --no-install-recommends qemu-user" in error

    def test_compiling_needs_zig(self, refused, monkeypatch, models, tmp_path):
        monkeypatch.setenv("TVM_SHUFFLENET_ZIG", "/nowhere/zig")
        words = ["--model", f"{models}:unit", "--input-shape", "1,48,8,8", "--target", "arm64", "--untuned"]
        assert "pip install ziglang" in refused(3, "compile", *words, "-o", tmp_path / "package")
        assert not (tmp_path / "package").exists()

    def test_doctor_lists_them_all(self, run, monkeypatch, tmp_path):
        for variable, value, *_ in TOOLS:
            monkeypatch.setenv(variable, value)
        code, out, error = run("doctor", "--json", tmp_path / "doctor.json")
        facts = {found["name"]: found for found in json.loads((tmp_path / "doctor.json").read_text())["findings"]}
        assert code == 3 and error.count("\n") == 1
        for _, _, name, install in TOOLS:
            assert not facts[name]["ok"] and install in facts[name]["install"]
            assert any(name in line and install in line for line in out.splitlines() if line.startswith("missing"))
        assert facts["torch"]["ok"]

    @needs_tools
    def test_doctor_is_content_when_nothing_is_missing(self, run):
        code, out, error = run("doctor", "--device", "emulated", "--json", "-")
        findings = json.loads(out)["findings"]
        assert code == 0 and all(found["ok"] and found["found"] for found in findings if found["required"])
        assert {"apache-tvm", "zig", "qemu-aarch64", "llvm-mca", "emulated"} <= {found["name"] for found in findings}
        assert error.count("ok ") == sum(found["ok"] for found in findings)

    @needs_tools
    def test_doctor_does_without_what_only_deploying_needs(self, run, monkeypatch):
        monkeypatch.setattr(doctor, "find_adb", lambda: replace(toolchain.find_adb(), path=None))
        code, out, _ = run("doctor")
        assert code == 0 and "optional adb (reaches a phone to deploy to); install: " in out

    def test_doctor_tells_of_a_device_that_does_not_answer(self, run):
        code, out, _ = run("doctor", "--device", "rpc://127.0.0.1:1")
        assert code == (3 if MISSING else 4) and "failed   rpc://127.0.0.1:1: no session" in out


@needs_tools
class TestDumpedPhases:
    WORDS = ("--input-shape", "1,48,8,8", "--target", "local")

    @pytest.mark.slow
    def test_each_shows_what_it_did(self, run, models, tmp_path):
        ir, unit = tmp_path / "ir", ("--model", f"{models}:unit", *self.WORDS)
        assert run("compile", *unit, "--format", "both", "--dump-ir", ir, "-o", tmp_path / "both")[0] == 0
        found = {path.stem[3:]: path.read_text() for path in sorted(ir.iterdir())}
        assert list(found) == [name for name in PHASES if name != "alternated"], "local has no modelled core"
        assert "R.nn.batch_norm" in found["imported"] and "R.nn.batch_norm" not in found["folded"]
        assert "R.nn.conv2d" in found["folded"] and "R.nn.conv2d" not in found["fused"]
        assert found["operators"] != found["scheduled"]
        assert "R.memory.alloc_storage" in found["planned"] and "R.memory.alloc_storage" not in found["kernels"]
        assert "T.sblock" in found["planned"] and "T.sblock" not in found["lowered"] + found["standalone"]

        # Watching changes no code; and what an earlier compile wrote is gone.
        assert run("compile", *unit, "-o", tmp_path / "vm")[0] == 0
        library = "tiny_unit.so"
        assert (tmp_path / "vm" / library).read_bytes() == (tmp_path / "both" / library).read_bytes()
        assert run("compile", *unit, "--untuned", "--dump-ir", ir, "-o", tmp_path / "untuned")[0] == 0
        left_out = ("converted", "fused", "scheduled", "alternated", "standalone")
        assert [path.stem[3:] for path in sorted(ir.iterdir())] == [each for each in PHASES if each not in left_out]

    def test_a_folder_that_is_a_file(self, run, models, tmp_path):
        (tmp_path / "file").touch()
        words = ("--model", f"{models}:unit", *self.WORDS, "--untuned", "-o", tmp_path / "package")
        code, _, error = run("compile", *words, "--dump-ir", tmp_path / "file")
        assert code == 2 and f"cannot use {tmp_path}/file" in error and len(error.splitlines()) == 1
        assert not (tmp_path / "package").exists()


class TestPackage:
    def test_compile(self, compiled):
        assert "scheduled by records" in (compiled.parent / "said").read_text()
        manifest = json.loads((compiled / "manifest.json").read_text())
        assert (manifest["model"], manifest["target"], manifest["machine"]) == ("tiny_network", "arm64", "aarch64")
        assert [each["shape"] for each in (*manifest["inputs"], *manifest["outputs"])] == [list(SHAPE), [1, 10]]
        assert manifest["tvm"] == toolchain.TVM_VERSION and manifest["ffi"] == toolchain.FFI_VERSION
        assert {operator["schedule"] for operator in manifest["operators"]} == {"template"}
        others = {name for name in manifest["hashes"] if not name.startswith("licences/")}
        assert others == {"tiny_network.so", "answers0.npy", "sbom.cdx.json"}
        assert "zig" in manifest["linker"][0]
        assert sorted(path.name for path in compiled.parent.iterdir()) == ["package", "said", "tuning_logs"]

    def test_run(self, run, compiled, tmp_path):
        code, out, _ = run("run", compiled, "--top", "3", "--output", tmp_path / "out.npy")
        assert code == 0 and out.startswith("device: emulated:cortex-a72 (modelled clock")
        assert out.count("class ") == 3
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.load(compiled / "answers0.npy")[0], atol=1e-4)

    @pytest.mark.parametrize("name", ["input.npy", "input.png"])
    def test_run_on_an_input(self, run, compiled, tmp_path, name):
        random, path = np.random.default_rng(1), tmp_path / name
        if name.endswith("npy"):
            np.save(path, random.standard_normal(SHAPE, dtype="float32"))
        else:
            Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype="uint8")).save(path)
        code, out, _ = run("run", compiled, "--input", path, "--output", tmp_path / "out.npy")
        output = np.load(tmp_path / "out.npy")
        assert code == 0 and output.shape == (1, 10) and np.isfinite(output).all()
        assert f"class {output.argmax()}: {output.max():.4f}" in out
        assert not np.allclose(output, np.load(compiled / "answers0.npy")[0], atol=1e-4)

    def test_run_refuses_inputs(self, refused, compiled, tmp_path):
        def saved(array: np.ndarray) -> Path:
            np.save(tmp_path / "bad.npy", array)
            return tmp_path / "bad.npy"

        assert "(1, 3, 16, 16)" in refused(2, "run", compiled, "--input", saved(np.zeros((1, 3, 16, 16), "float32")))
        assert "float64" in refused(2, "run", compiled, "--input", saved(np.zeros(SHAPE)))
        assert "no file" in refused(2, "run", compiled, "--input", tmp_path / "absent.npy")
        (tmp_path / "bad.png").write_bytes(b"\x89PNG")
        assert "no image" in refused(2, "run", compiled, "--input", tmp_path / "bad.png")

    def test_bench(self, run, package):
        code, out, error = run("bench", package, "--json", "-")
        facts = json.loads(out)
        assert code == 0 and error.startswith("device: emulated:cortex-a72 (modelled clock")
        assert {"schema", "model", "target", "device", "threads", "latency_us", "cold_us", "peak_memory_bytes"} <= set(
            facts
        )
        assert set(facts["latency_us"]) >= {"median", "min", "p90", "p99", "samples"}
        assert (facts["schema"], facts["model"], facts["target"], facts["threads"]) == (1, "tiny_network", "arm64", 1)
        assert facts["device"]["kind"] == facts["latency_us"]["kind"] == "modelled"
        assert facts["max_abs_err"] <= facts["tolerance"] and facts["peak_memory_bytes"] > 100_000
        (timing,) = json.loads((package / "manifest.json").read_text())["timings"]
        assert timing["latency_us"] == facts["latency_us"] and timing["device"] == facts["device"]

    def test_a_served_core_tells_what_its_times_are_made_of(self, run, package, tmp_path):
        """To bench and profile of another process, as one that is started here does."""
        facts = {}
        with EmulatedDevice(BOARDS["cortex-a72"], secret=b"", served=True) as served:
            for where in (f"rpc://{served.address}", "emulated:cortex-a72"):
                for command in ("bench", "profile"):
                    path = tmp_path / f"{command}.json"
                    assert run(command, package, "--device", where, "--json", path)[0] == 0
                    facts[where, command] = json.loads(path.read_text())
            for command in ("bench", "profile"):
                there, here = (found for (_, name), found in facts.items() if name == command)
                assert there["device"] == here["device"] and there.keys() == here.keys()
            assert there["sum_us"] == pytest.approx(here["sum_us"], rel=0.02) and there["operators"]
            assert facts[f"rpc://{served.address}", "bench"]["unmodelled"]["instructions"] >= 0

    def test_a_wrong_result_has_no_latency(self, run, package, tmp_path):
        np.save(package / "answers0.npy", np.load(package / "answers0.npy") + 1)
        _forge(package, "answers0.npy")
        code, _, error = run("bench", package, "--json", tmp_path / "bench.json")
        assert code == 5 and "is off by 1 from PyTorch" in error
        assert not (tmp_path / "bench.json").exists()
        assert (
            "timings" not in (package / "manifest.json").read_text()
            or not json.loads((package / "manifest.json").read_text())["timings"]
        )

    @pytest.mark.skipif(host_machine() == "aarch64", reason="this machine runs arm64 code")
    @pytest.mark.parametrize("command", ["run", "bench", "profile"])
    def test_another_architecture_is_refused_before_upload(self, refused, compiled, command, monkeypatch):
        monkeypatch.setattr(LocalDevice, "start", lambda self: pytest.fail("the device was started"))
        error = refused(2, command, compiled, "--device", "local")
        assert "built for aarch64, local is x86_64" in error and "compile it for the device's target" in error

    def test_more_threads_than_the_emulated_board_has_cores(self, refused, compiled):
        device = ("--device", "emulated:rk3399")
        assert "has 2 cores" in refused(2, "bench", compiled, *device, "--threads", "3")

    def test_profile(self, run, package):
        code, out, error = run("profile", package, "--asm", "--json", "-")
        facts = json.loads(out)
        assert code == 0 and error.startswith("device: emulated:cortex-a72 (modelled clock")
        assert max(map(len, error.split("\n\n")[0].splitlines())) <= 80
        assert (facts["schema"], facts["kind"], facts["target"]) == (1, "modelled", "arm64")
        calls = {row["name"]: row["calls"] for row in facts["operators"]}
        manifest = json.loads((package / "manifest.json").read_text())
        assert calls == {operator["name"]: operator["occurrences"] for operator in manifest["operators"]}
        assert facts["sum_us"] == pytest.approx(facts["latency_us"]["median"], abs=1e-3)
        assert f"hottest loop of {facts['operators'][0]['name']}: " in error and " fmla v" in error
        assert "every operator is scheduled by a template or a record" in error

    def test_profile_without_a_terminal_is_plain_text(self, run, package, tmp_path):
        code, out, error = run("profile", package, "--json", tmp_path / "profile.json")
        assert (code, error) == (0, "") and "\x1b" not in out and "bound by" in out and "hottest loop" not in out
        assert json.loads((tmp_path / "profile.json").read_text())["assembly"] == []

    def test_profile_refuses(self, refused, package, tmp_path):
        assert "nearest: pointwise" in refused(2, "profile", package, "--asm-of", "pointwse")
        assert "has 4 cores" in refused(2, "profile", package, "--threads", "5")
        np.save(package / "answers0.npy", np.load(package / "answers0.npy") + 1)
        _forge(package, "answers0.npy")
        assert "is off by 1 from PyTorch" in refused(5, "profile", package, "--json", tmp_path / "profile.json")
        assert not (tmp_path / "profile.json").exists()
        path = package / "manifest.json"
        manifest = json.loads(path.read_text())
        for operator in manifest["operators"]:
            del operator["arguments"], operator["multiply_adds"]
        path.write_text(json.dumps(manifest))
        assert "an earlier version compiled it" in refused(2, "profile", package)


def _forge(package: Path, name: str) -> None:
    """Make the manifest agree with a changed file."""
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    from tvm_shufflenet.packages.package import sha256

    manifest["hashes"][name] = sha256(package / name)
    path.write_text(json.dumps(manifest))


@needs_tools
class TestDamagedPackage:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("manifest.json", None, "is not a package"),
            ("manifest.json", b'{"schema": 1}', "cannot be read"),
            ("tiny_network.so", None, "lacks tiny_network.so"),
            ("tiny_network.so", b"\x7fELF", "has changed"),
        ],
    )
    def test_it_is_exit_2(self, refused, package, name, content, message):
        path = package / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        for command in ("run", "bench", "profile"):
            assert message in refused(2, command, package)

    def test_a_library_of_another_machine(self, refused, package):
        library = package / "tiny_network.so"
        content = bytearray(library.read_bytes())
        content[18] = 62  # ELF's number for x86-64
        library.write_bytes(content)
        _forge(package, library.name)
        assert "is built for x86_64, its manifest says aarch64" in refused(2, "run", package)

    def test_no_folder(self, refused, tmp_path):
        assert "is not a package" in refused(2, "run", tmp_path / "absent")

    def test_compile_does_not_overwrite_what_is_no_package(self, run, models, tmp_path):
        (tmp_path / "thesis").write_text("chapter 1")
        words = ["--model", f"{models}:unit", "--input-shape", "1,48,8,8", "--target", "arm64", "--untuned"]
        code, _, error = run("compile", *words, "-o", tmp_path)
        assert code == 2 and "exists and is no package" in error
        assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


@pytest.fixture(scope="module")
def words(models) -> list[str]:
    return ["--model", f"{models}:unit", "--input-shape", "1,48,8,8", "--target", "arm64"]


@pytest.fixture(scope="module")
def recorded(words, tmp_path_factory) -> tuple[Path, dict]:
    """Records of a short tuning run, and the JSON it wrote."""
    folder = tmp_path_factory.mktemp("tuned")
    more = ["--trials", "3", "--records", folder / "records", "--json", folder / "tune.json"]
    with open(folder / "said", "w") as said, contextlib.redirect_stdout(said):
        assert cli.main(["tune", *words, *map(str, more)]) == 0
    return folder / "records", json.loads((folder / "tune.json").read_text())


@pytest.mark.slow
@needs_tools
class TestRecords:
    def test_tune(self, recorded):
        records, facts = recorded
        said = (records.parent / "said").read_text()
        assert said.startswith("device: emulated:cortex-a72 (modelled clock, ")
        assert "\n3/3 trials, 0 failed" in said
        _check_comparison(facts)
        assert (facts["strategy"], facts["wall_s"] > 0) == ("template", True)
        assert {"requested": 3, "measured": 3, "failed": 0}.items() <= facts["trials"].items()
        assert len((records / "trials.jsonl").read_text().splitlines()) == 3

    def test_compare(self, run, words, recorded):
        code, out, error = run("compare", *words, "--records", recorded[0], "--json", "-")
        assert code == 0 and error.startswith("device: emulated:cortex-a72 (modelled clock, ")
        assert "modelled latencies" in error and "speedup" in error
        facts = json.loads(out)
        _check_comparison(facts)
        tuned = recorded[1]["latency_us"]["tuned"]["median"]
        assert facts["latency_us"]["tuned"]["median"] == pytest.approx(tuned, rel=0.02)

    def test_compare_on_a_served_core_has_a_report(self, run, words, recorded, tmp_path):
        with EmulatedDevice(BOARDS["cortex-a72"], secret=b"", served=True) as served:
            more = ("--records", recorded[0], "--html", tmp_path / "report.html")
            code, _, error = run("compare", *words, *more, "--device", f"rpc://{served.address}")
        assert code == 0, error
        assert "pointwise" in (tmp_path / "report.html").read_text()

    def test_a_truncated_file(self, run, words, recorded, tmp_path):
        folder = Path(shutil.copytree(recorded[0], tmp_path / "records"))
        records, journal = folder / "database_tuning_record.json", folder / "trials.jsonl"
        records.write_bytes(records.read_bytes()[:-200])
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"{}\n" + b"".join(lines))
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        code, out, _ = run("compile", *words, "--records", folder, "-o", tmp_path / "package")
        assert code == 0 and (tmp_path / "package" / "manifest.json").exists()
        assert f"skipped {folder}/database_tuning_record.json, line 3: not JSON, perhaps cut short" in out
        assert f"skipped {folder}/trials.jsonl, line 1: " in out and out.count("skipped") == 2
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_a_folder_that_is_not_there(self, refused, words, tmp_path):
        for command in (["compare"], ["compile", "-o", tmp_path / "package"]):
            error = refused(2, *command, *words, "--records", tmp_path / "absent")
            assert "there is no folder" in error and "tvm-shufflenet tune" in error
        assert not list(tmp_path.iterdir())

    def test_records_of_another_target(self, refused, words, recorded, tmp_path):
        words = [word if word != "arm64" else "cortex-a53" for word in words]
        error = refused(2, "compile", *words, "--records", recorded[0], "-o", tmp_path / "package")
        assert "not for this target" in error

    def test_a_folder_that_cannot_be_written(self, refused, words, tmp_path):
        (tmp_path / "records").write_text("a file")
        assert "records" in refused(2, "tune", *words, "--trials", "1", "--records", tmp_path / "records")


def _check_comparison(facts: dict) -> None:
    """The keys of the contract, and nothing modelled that calls itself measured."""
    keys = {"schema", "model", "target", "device", "latency_us", "speedup", "max_abs_err", "tolerance", "peers"}
    assert keys <= set(facts) and (facts["schema"], facts["model"], facts["target"]) == (1, "tiny_unit", "arm64")
    assert facts["device"] == {
        "name": "emulated:cortex-a72",
        "kind": "modelled",
        "model_error_percent": BOARDS[targets()["arm64"].board].model_error_percent,
    }
    for latency in (facts["latency_us"]["untuned"], facts["latency_us"]["tuned"]):
        assert {"median", "min", "p90", "samples"} <= set(latency) and latency["kind"] == "modelled"
        assert 0 < latency["min"] <= latency["median"] <= latency["p90"] and latency["samples"] >= 1
    ratio = facts["latency_us"]["untuned"]["median"] / facts["latency_us"]["tuned"]["median"]
    assert facts["speedup"] == pytest.approx(ratio)
    assert 0 <= facts["max_abs_err"] <= facts["tolerance"] and facts["peers"] == []


class TestInterrupts:
    def test_whatever_an_interrupt_becomes_it_leaves_as_one(self):
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise RuntimeError("a callback failed") from None

    def test_swallowed_at_the_end_it_still_counts(self):
        swallowed = contextlib.suppress(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible(), swallowed:
            signal.raise_signal(signal.SIGTERM)

    def test_a_module_is_imported_whole(self, tmp_path, monkeypatch):
        """Raised anywhere in the import of torch, it may find C++ that aborts the process."""
        lines = ["import signal", "for _ in range(3):", "    signal.raise_signal(signal.SIGINT)", "whole = True"]
        (tmp_path / "of_its_own.py").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
            import of_its_own

            threading.Event().wait(5)
            pytest.fail("it never came")
        assert of_its_own.whole

    def test_an_import_that_takes_too_long_is_ended(self, tmp_path):
        (tmp_path / "endless.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
        source = f"""
            import sys
            sys.path.insert(0, {str(tmp_path)!r})
            from tvm_shufflenet.support import interrupts
            with interrupts.interruptible():
                import endless
            """
        process = _python(source)
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
        assert process.returncode == 130 and error == interrupts.MESSAGE + "\n"

    def test_other_errors_pass_and_handlers_come_back(self):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(ValueError, match="no"), interrupts.interruptible():
            raise ValueError("no")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_swallowed_for_long_the_process_and_its_children_end(self):
        source = """
            import subprocess, time
            from tvm_shufflenet.support import interrupts
            interrupts.GRACE_S = 0.2
            with interrupts.interruptible():
                child = subprocess.Popen(["sleep", "60"])
                while True:
                    try:
                        print(child.pid, flush=True)
                        time.sleep(60)
                    except KeyboardInterrupt:
                        pass
            """
        process = _python(source)
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
        assert process.returncode == 130 and error == interrupts.MESSAGE + "\n"
        psutil.wait_procs([child], timeout=5)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

    def test_a_signal_that_was_ignored_stays_ignored(self):
        source = """
            import signal
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            from tvm_shufflenet.support import interrupts
            with interrupts.interruptible():
                signal.raise_signal(signal.SIGINT)
                print("still here")
            """
        assert _python(source).communicate(timeout=10)[0] == "still here\n"


def _python(source: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
