"""The text of instructions: LLVM's library and llvm-mc say the same."""

from __future__ import annotations

import random
import re
import subprocess

import pytest

from tvm_shufflenet.clock import disassembly
from tvm_shufflenet.clock.disassembly import QUICK_FORMS, quick, texts_of
from tvm_shufflenet.clock.mca import Mca
from tvm_shufflenet.hardware.cores import CORTEX_A72
from tvm_shufflenet.support import toolchain

LLVM_MC = toolchain.find_llvm_mc().path
VERSION = Mca(CORTEX_A72).version
FMLA, NOP, MOVE, NOTHING = 0x4F811000, 0xD503201F, 0xD2800000, 0xFFFFFFFF


def test_known_words():
    texts = texts_of([FMLA, NOP, MOVE, NOTHING], LLVM_MC, VERSION)
    assert [text and text.split()[0] for text in texts.values()] == ["fmla.4s", "nop", "movz", None]


def test_the_library_says_what_llvm_mc_says():
    if disassembly._library(VERSION) is None:
        pytest.skip("these tools have LLVM in them")
    chance = random.Random(0)
    words = {chance.getrandbits(32) for _ in range(20_000)} | {FMLA, NOP, MOVE, NOTHING}
    by_process = disassembly.disassembled(LLVM_MC, words)
    plain = {word: text and quick(text.partition("//")[0].strip()) for word, text in by_process.items()}
    assert texts_of(words, LLVM_MC, VERSION) == plain


@pytest.mark.parametrize("version", ["", "LLVM version 0.9"])
def test_where_there_is_no_library_llvm_mc_is_asked(version):
    assert disassembly._library(version) is None
    assert texts_of([NOP, NOTHING], LLVM_MC, version) == {NOP: "nop", NOTHING: None}


def test_a_form_that_is_quick_to_parse_is_the_same_instruction():
    chance = random.Random(1)
    arithmetic = [chance.getrandbits(32) & ~0x1E000000 | 0x0E000000 for _ in range(20_000)]  # of vectors
    moves = [word + (number << 16) + number for word in (0xAA0003E0, 0x2A0003E0) for number in range(31)]
    moves += [word + number for word in (0x9100001F, 0x910003E0, 0x6E040400, 0x4E041C00) for number in (0, 1 << 5)]
    moves += [word + number for word in (0x52800000, 0xD2800000, 0x52800020, 0xD2800020) for number in range(31)]
    moves += [word + number * 0x10021 for word in (0x4EA01C00, 0x0EA01C00) for number in range(31)]
    texts = disassembled_texts([*arithmetic, *moves])
    changed = {text: quick(text) for text in texts if quick(text) != text}
    for pattern, _ in QUICK_FORMS:
        assert any(re.fullmatch(pattern, text) for text in changed), pattern
    assert encodings(changed.values()) == encodings(changed.keys())


def disassembled_texts(words):
    texts = disassembly.disassembled(LLVM_MC, words).values()
    return {text.partition("//")[0].strip() for text in texts if text}


def encodings(texts):
    command = [LLVM_MC, "-triple=aarch64", "-mattr=+all", "--show-encoding"]
    done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True, check=True)
    found = re.findall(r"encoding: \[(.*?)\]", done.stdout)
    assert len(found) == len(texts)
    return found
