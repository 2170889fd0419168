"""The phases of a compile: what ``--dump-ir`` writes of them, and what it must not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm import relax

from tvm_shufflenet.graph.phases import PHASES, dumped, phase
from tvm_shufflenet.graph.pipeline import fold, fuse
from tvm_shufflenet.hardware.targets import find_target


@pytest.fixture
def module() -> tvm.IRModule:
    """One addition."""
    builder = relax.BlockBuilder()
    data = relax.Var("data", relax.TensorType((1, 3), "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            output = builder.emit_output(relax.op.add(data, data))
        builder.emit_func_output(output)
    return builder.get()


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_phase_is_written_as_it_ends(module, tmp_path):
    with dumped(tmp_path / "new" / "ir"):
        folded = fold(module)
        assert written(tmp_path / "new" / "ir") == ["01-imported.py", "02-folded.py"]
        fused = fuse(folded, find_target("local"))
    phases = ("imported", "folded", "converted", "fused", "legalized", "operators")
    names = [f"{number:02}-{name}.py" for number, name in enumerate(phases, 1)]
    assert written(tmp_path / "new" / "ir") == names
    text = (tmp_path / "new" / "ir" / "06-operators.py").read_text()
    assert text == fused.module.script(show_meta=False) + "\n"
    # Without constants it is a program that TVM reads.
    tvm.ir.assert_structural_equal(tvm.script.from_source(text), fused.module)


def test_only_what_lies_within_is_written(module, tmp_path):
    with dumped(tmp_path):
        pass
    with dumped(None):
        fold(module)
    fold(module)
    assert written(tmp_path) == []


def test_files_of_an_earlier_compile_go_and_others_stay(module, tmp_path):
    for name in ("04-fused.py", "mine.py"):
        (tmp_path / name).write_text("earlier")
    with dumped(tmp_path):
        fold(module)
    assert written(tmp_path) == ["01-imported.py", "02-folded.py", "mine.py"]


def test_a_folder_that_cannot_be_written_is_named(module, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), dumped(tmp_path / "file"):
        pytest.fail("it is refused before anything is done")
    with pytest.raises(OSError, match="01-imported"), dumped(tmp_path / "ir"):
        (tmp_path / "ir").rmdir()
        fold(module)


def test_other_errors_are_as_they_were(tmp_path):
    error = ValueError("not ours")
    with pytest.raises(ValueError) as caught, dumped(tmp_path):
        raise error
    assert caught.value is error


def test_a_phase_has_a_place_in_the_table():
    assert phase("fused").info.name == "fused"
    with pytest.raises(AssertionError):
        phase("unknown")
    assert len(PHASES) < 100, "numbers of two digits sort"
