"""A network that computes in float16: compiled, verified, run and timed, and refused where the core cannot."""

from __future__ import annotations

import json
import subprocess

import msgspec
import pytest

from helpers.tuning_runs import MISSING
from tvm_shufflenet.cli.main import main
from tvm_shufflenet.packages.manifest import MANIFEST, read_manifest
from tvm_shufflenet.support import toolchain

NETWORK = """
import torch
from torch import nn
from tvm_shufflenet.models import randomise_batch_norms
from tvm_shufflenet.models.zoo.shufflenet_v1 import ShuffleUnit

def network():
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    made = nn.Sequential(stem, ShuffleUnit(24, 48, 3, 2, 3), ShuffleUnit(48, 48, 3, 1, 3), head)
    randomise_batch_norms(made)
    return made
"""
needs_tools = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> list[str]:
    file = tmp_path_factory.mktemp("model") / "small.py"
    file.write_text(NETWORK)
    return ["--model", f"{file}:network", "--input-shape", "1,3,28,28"]


@pytest.fixture(scope="module")
def packages(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    for precision in ("float16", "float32"):
        words = ["compile", "--target", "cortex-a76", *model, "--precision", precision, "-o", str(folder / precision)]
        assert main(words) == 0
    return folder


@needs_tools
def test_a_package_says_what_it_computes_in_and_was_verified(packages):
    half, single = (read_manifest(packages / name) for name in ("float16", "float32"))
    assert (half.precision, single.precision) == ("float16", "float32")
    assert "float32, computed in float16" in half.plan and "computed in" not in single.plan
    assert half.signature == single.signature, "what it takes and returns stays float32"
    assert half.verified.by == "emulated:cortex-a76" and half.verified.operators == len(half.operators)
    assert single.tolerance < half.tolerance / 20
    assert 1.8 * half.weight_bytes < single.weight_bytes and half.activation_bytes < single.activation_bytes


@needs_tools
def test_it_is_right_and_timed(packages, tmp_path, capfd):
    assert main(["bench", str(packages / "float16"), "--json", str(tmp_path / "bench.json")]) == 0
    facts = json.loads((tmp_path / "bench.json").read_text())
    assert facts["precision"] == "float16" and facts["latency_us"]["median"] > 0
    assert 1e-5 < facts["max_abs_err"] <= facts["tolerance"]


@needs_tools
def test_a_core_without_it_runs_no_package_of_it(packages, capfd):
    assert main(["bench", str(packages / "float16"), "--device", "emulated:cortex-a53"]) in (2, 4)
    error = capfd.readouterr().err
    assert "fullfp16" in error and "latency" not in error


@pytest.mark.parametrize("command", ["compile", "tune", "compare"])
def test_a_target_without_it_is_refused(command, model, tmp_path, capfd):
    output = ["-o", str(tmp_path / "package")] if command == "compile" else []
    assert main([command, "--target", "arm64", *model, "--precision", "float16", *output]) == 2
    error = capfd.readouterr().err
    assert "arm64 does not compute in float16" in error and "cortex-a76" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "package").exists()


def test_a_precision_that_there_is_not(model, capfd):
    with pytest.raises(SystemExit, match="2"):
        main(["tune", "--target", "cortex-a76", *model, "--precision", "float8"])
    assert "float8" in capfd.readouterr().err


@needs_tools
def test_a_manifest_of_an_unknown_precision_is_refused(packages, tmp_path, capfd):
    facts = msgspec.json.decode((packages / "float16" / MANIFEST).read_bytes()) | {"precision": "float8"}
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(msgspec.json.encode(facts))
    assert main(["bench", str(folder)]) == 2
    assert "precision" in capfd.readouterr().err


@needs_tools
def test_without_a_runtime_it_is_right_too_and_refuses_a_core_without_it(model, tmp_path):
    package = tmp_path / "package"
    words = ["compile", "--target", "cortex-a76", *model, "--precision", "float16", "--format", "standalone"]
    assert main([*words, "-o", str(package)]) == 0
    (bench,) = package.glob("*_bench")
    able, unable = (
        subprocess.run([toolchain.find_qemu().path, "-cpu", cpu, bench], capture_output=True, text=True, timeout=120)
        for cpu in ("neoverse-n1", "cortex-a53")
    )
    assert able.returncode == 0 and "right for" in able.stdout, able.stdout + able.stderr
    assert unable.returncode not in (0, -4) and "cannot execute" in unable.stderr, unable.stderr
