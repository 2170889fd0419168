"""The text of instructions: LLVM's library and llvm-mc say the same."""

from __future__ import annotations

import random

import pytest

from tvm_shufflenet import toolchain
from tvm_shufflenet.devices import disassembly
from tvm_shufflenet.devices.disassembly import texts_of
from tvm_shufflenet.devices.pipeline import _run

LLVM_MC = toolchain.find_llvm_mc().path
VERSION = _run([toolchain.find_llvm_mca().path, "--version"])
FMLA, NOP, MOVE, NOTHING = 0x4F811000, 0xD503201F, 0xD2800000, 0xFFFFFFFF


def test_known_words():
    texts = texts_of([FMLA, NOP, MOVE, NOTHING], LLVM_MC, VERSION)
    assert [text and text.split()[0] for text in texts.values()] == ["fmla", "nop", "mov", None]


def test_the_library_says_what_llvm_mc_says():
    if disassembly._library(VERSION) is None:
        pytest.skip("these tools have LLVM in them")
    chance = random.Random(0)
    words = {chance.getrandbits(32) for _ in range(20_000)} | {FMLA, NOP, MOVE, NOTHING}
    by_process = disassembly.disassembled(LLVM_MC, words)
    plain = {word: text and text.partition("//")[0].strip() for word, text in by_process.items()}
    assert texts_of(words, LLVM_MC, VERSION) == plain


@pytest.mark.parametrize("version", ["", "LLVM version 0.9"])
def test_where_there_is_no_library_llvm_mc_is_asked(version):
    assert disassembly._library(version) is None
    assert texts_of([NOP, NOTHING], LLVM_MC, version) == {NOP: "nop", NOTHING: None}
