"""Fuzzes what reads other people's bytes: coverage-guided, from the corpora in tests/fuzz/corpus.

    python benchmarks/fuzz.py --seconds 3600                    # all targets, one after the other
    python benchmarks/fuzz.py --seconds 600 records server
    python benchmarks/fuzz.py --seconds 3600 --grow records     # and keep what reaches new code

Targets in Python (tests/fuzz/targets.py says what each may do) run under atheris, the device server's parsers
(tests/fuzz/server_fuzzer.cc) under libFuzzer and AddressSanitizer, for which clang++ is needed. An input that breaks a
target is kept in build/fuzz, and the exit code is 1. To try one again:

    python benchmarks/fuzz.py --input build/fuzz/crash-... records
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import program

from tvm_shufflenet.errors import LinkFailed, ToolMissing
from tvm_shufflenet.server import build as native
from tvm_shufflenet.support import toolchain
from tvm_shufflenet.support.cached_build import cached_build
from tvm_shufflenet.text import last_lines

ROOT = Path(__file__).parents[1]
FUZZ = ROOT / "tests" / "fuzz"
FOUND = ROOT / "build" / "fuzz"
PYTHON_TARGETS = ("manifest", "archive", "records", "cli")
SERVER = "server"
INPUT_SECONDS = 20  # one that takes longer is a finding
MEMORY_MB = 4096
OLDEST_CLANG = 15  # the first that has 16-bit floats on x86-64
CLANG = toolchain.apt("clang-22", "libclang-rt-22-dev")
CORPUS_BYTES = 200_000  # of one target's, after it has grown


def command_of(target: str) -> list[str]:
    """What runs a target, before libFuzzer's arguments. Raises ToolMissing, LinkFailed."""
    if target == SERVER:
        return [str(server_harness())]
    if importlib.util.find_spec("atheris") is None:
        raise ToolMissing("atheris is missing", "it has no wheel for this machine", "python -m pip install atheris")
    return [sys.executable, str(FUZZ / "harness.py"), target]


def server_harness() -> Path:
    """The fuzzer of the device server, built if necessary, beside the libraries that it loads."""
    compiler = toolchain.newest("clang++", OLDEST_CLANG)
    if compiler is None:
        raise ToolMissing(
            "clang++ is missing, which brings libFuzzer and AddressSanitizer",
            "",
            CLANG,
        )
    libs = native.runtime_libs(native.HOST_ARCH)
    command = [
        compiler, "-std=c++17", "-g", "-O1", "-fsanitize=fuzzer,address", "-fno-omit-frame-pointer", "-pthread",
        *native.source_flags(), "-iquote", str(native.NATIVE),
        *native.one_unit(FUZZ / "server_fuzzer.cc"), *native.runtime_flags(libs), f"-Wl,-rpath,{libs}",
    ]  # fmt: skip

    def build(output: Path) -> None:
        done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
        if done.returncode != 0:
            raise LinkFailed(f"the server's fuzzer did not build:\n{last_lines(done.stderr)}", "", CLANG)

    texts = [(native.NATIVE / name).read_bytes() for name in (*native.SOURCES, *native.HEADERS)]
    return cached_build("server-fuzzer", [*texts, (FUZZ / "server_fuzzer.cc").read_bytes(), *command], build)


def fuzz(target: str, seconds: int, grow: bool) -> bool:
    """Whether nothing was found."""
    corpus = FUZZ / "corpus" / target
    FOUND.mkdir(parents=True, exist_ok=True)
    words = [
        f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={FOUND}/", "-print_final_stats=1",
    ]  # fmt: skip
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # files come and go thousands of times
    with (
        tempfile.TemporaryDirectory(prefix="tvm-shufflenet-fuzz-") as fresh,
        tempfile.TemporaryDirectory(prefix="tvm-shufflenet-fuzz-", dir=memory) as scratch,
    ):
        environment = os.environ | {"TMPDIR": scratch}
        done = subprocess.run([*command_of(target), *words, fresh, str(corpus)], cwd=ROOT, env=environment)
        if grow:
            _merge(target, corpus, Path(fresh), environment)
    return done.returncode == 0


def _merge(target: str, corpus: Path, fresh: Path, environment: dict[str, str]) -> None:
    """Add to the corpus the smallest inputs that reach what it does not reach yet."""
    with tempfile.TemporaryDirectory(prefix="tvm-shufflenet-fuzz-") as kept:
        for path in corpus.iterdir():
            shutil.copy(path, kept)
        subprocess.run([*command_of(target), "-merge=1", kept, str(fresh)], cwd=ROOT, env=environment)
        new = sorted((path for path in Path(kept).iterdir()), key=lambda path: path.stat().st_size)
        size = sum(path.stat().st_size for path in corpus.iterdir())
        for path in new:
            if not (corpus / path.name).exists() and size + path.stat().st_size <= CORPUS_BYTES:
                size += path.stat().st_size
                shutil.copy(path, corpus)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join((*PYTHON_TARGETS, SERVER))} (all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--grow", action="store_true", help="add inputs that reach new code to the corpus")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this one input again")
    options = parser.parse_args()
    known = (*PYTHON_TARGETS, SERVER)
    for target in options.targets:
        if target not in known:
            parser.error(f"unknown target '{target}': one of {', '.join(known)}")
    broken = []
    for target in options.targets or known:
        if options.input is not None:
            held = subprocess.run([*command_of(target), str(options.input)], cwd=ROOT).returncode == 0
        else:
            held = fuzz(target, options.seconds, options.grow)
        broken += [] if held else [target]
    print(f"broken: {', '.join(broken)}; the inputs are in {FOUND}" if broken else "nothing was found")
    return 1 if broken else 0


if __name__ == "__main__":
    program.run(main)
