"""Class names from the files that people keep them in."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from tvm_shufflenet.errors import BadInput
from tvm_shufflenet.packages.labels import read_labels
from tvm_shufflenet.report.tables import print_classes

NAMES = ["tench", "goldfish [red]", "white shark, man-eater"]
FILES = {
    "lines": "tench\ngoldfish [red]\nwhite shark, man-eater\n",
    "windows": "\ufefftench\r\ngoldfish [red]\r\nwhite shark, man-eater\r\n",
    "no last newline": "tench\n  goldfish [red]  \nwhite shark, man-eater",
    "list": json.dumps(NAMES),
    "dict": json.dumps({str(i): name for i, name in reversed([*enumerate(NAMES)])}),
    "imagenet_class_index.json": json.dumps({str(i): [f"n{i:08}", name] for i, name in enumerate(NAMES)}),
    "pairs": json.dumps([[f"n{i:08}", name] for i, name in enumerate(NAMES)]),
    "class_to_idx": json.dumps({name: i for i, name in enumerate(NAMES)}),
    "as Python prints it": str(dict(enumerate(NAMES))),
    "with a background": "background\n" + "\n".join(NAMES),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_the_common_forms(tmp_path, content):
    (tmp_path / "labels").write_bytes(content.encode())
    assert read_labels(tmp_path / "labels", 3) == NAMES


@pytest.mark.parametrize("content", ["one\ntwo\n", "one\ntwo\nthree\nfour\n", "", '["a"]', '{"0": "a", "1": "b"}'])
def test_another_number_of_labels_is_refused(tmp_path, content):
    (tmp_path / "labels").write_text(content)
    with pytest.raises(BadInput, match=r"labels, the network has 3 classes"):
        read_labels(tmp_path / "labels", 3)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00garbage",
        b"[1, 2, 3]",
        b'{"0": "a", "2": "b", "3": "c"}',
        b'{"a": "x", "b": "y", "c": "z"}',
        b'["a", "b", "c"',
        b"{" * 5000,
        b'[[], "a", "b"]',
    ],
)
def test_what_is_no_labels_file_is_refused(tmp_path, content):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(BadInput, match="cannot read labels") as refused:
        read_labels(tmp_path / "labels", 3)
    assert refused.value.exit_code == 2
    with pytest.raises(BadInput, match="cannot read labels"):
        read_labels(tmp_path / "absent", 3)


def printed(output: np.ndarray, *more) -> str:
    console = Console(file=StringIO(), width=200)
    print_classes(console, output, *more)
    return console.file.getvalue()


def test_the_best_of_each_image_are_printed_by_name():
    output = np.array([[0.5, 0.25, 1.0], [1.0, 0.5, 1.0]], dtype=np.float32)
    assert printed(output, 2, NAMES) == (
        "image 0: white shark, man-eater (class 2): 1.0000, tench (class 0): 0.5000\n"
        "image 1: tench (class 0): 1.0000, white shark, man-eater (class 2): 1.0000\n"
    )
    assert "goldfish [red] (class 1): 0.2500" in printed(output, 9, NAMES)
    assert printed(output.reshape(2, 3, 1, 1), 1) == "image 0: class 2: 1.0000\nimage 1: class 0: 1.0000\n"


def test_a_map_has_no_classes_to_print():
    assert printed(np.ones((1, 3, 4, 5), dtype=np.float32), 5) == "output 1x3x4x5, from 1.0000 to 1.0000\n"
