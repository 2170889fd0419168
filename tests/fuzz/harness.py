"""One target under atheris, libFuzzer for Python: ``python tests/fuzz/harness.py TARGET [libFuzzer's arguments]``.

benchmarks/fuzz.py runs it. With a file in place of a folder, that one input is tried again.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from pathlib import Path

import atheris
import tvm  # noqa: F401

PLAIN_SHARE = 0.3  # of mutations that are libFuzzer's own, on bytes
# What reads what is fuzzed; TVM and torch would only make it slow.
WATCHED = ["tvm_shufflenet", "msgspec", "tarfile"]


def program(name: str) -> str:
    """A program that is this one with its target: in a merge, libFuzzer starts its own first word again and again."""
    path = Path(tempfile.mkdtemp(prefix="tvm-shufflenet-fuzz-")) / name  # whoever starts this removes it (TMPDIR)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" {name} "$@"\n')
    path.chmod(0o700)
    return str(path)


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
        import targets

        import tvm_shufflenet.cli
        import tvm_shufflenet.packages.package
        import tvm_shufflenet.tuning.records.upkeep  # noqa: F401
    target, mutate = targets.TARGETS[name]

    def mutation(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutate(data, seed) if random.Random(seed).random() >= PLAIN_SHARE else None
        if changed is None or len(changed) > max_size:
            return atheris.Mutate(data, max_size)
        return changed

    # TVM prints where it crashed and ends the process; libFuzzer, which keeps the input, yields to any other handler.
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    sys.argv[0] = program(name)
    atheris.Setup(sys.argv, target, custom_mutator=mutation if mutate else None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
