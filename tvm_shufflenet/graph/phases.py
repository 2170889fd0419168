"""The phases of a compile, and the option to write the module after each phase to a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tvm
from tvm.ir.instrument import pass_instrument

from ..support.files import write_output

# In this order. Every compile passes through all of them but for what is said here.
PHASES = {
    "imported": "PyTorch's or ONNX's operators as Relax, by graph/importing",
    "folded": "batch norms and constants folded, shuffles in one spelling",
    "converted": "convolutions and what follows them in the precision asked for (not with --untuned)",
    "fused": "our operators where they match (not with --untuned)",
    "legalized": "what is left is TVM's own operators, of PyTorch's numbers",
    "operators": "every call is of a PrimFunc, small ones grouped",
    "scheduled": "a schedule for each operator (not with --untuned)",
    "alternated": "every other operator runs backwards (for targets with a modelled core; not with --untuned)",
    "kernels": "reshapes that move nothing become views; what is written in place is proved to be free",
    "planned": "activations share storages; proved again",
    "machine": "calls of TVM's virtual machine (--format vm or both)",
    "lowered": "operators as loops over flat memory (--format vm or both)",
    "standalone": "the same for a library without a runtime (--format standalone or both)",
}


def phase(name: str, *passes: tvm.transform.Pass) -> tvm.transform.Sequential:
    """The passes of one of ``PHASES``; none, where a phase is done by something else and ends here."""
    assert name in PHASES, name
    return tvm.transform.Sequential(passes, name=name)


@contextmanager
def dumped(folder: Path | None) -> Iterator[None]:
    """The module after each phase within, as TVMScript in ``folder``: ``01-imported.py`` and so on; nothing for None.

    Numbers are those of ``PHASES``, so that two folders can be compared; files of an earlier compile are removed.
    Weights are left out. Raises OSError.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{number:02}-{name}.py" for number, name in enumerate(PHASES, 1)}
    for file in files.values():
        file.unlink(missing_ok=True)
    dump = _Dump(files)
    try:
        with tvm.transform.PassContext(instruments=[dump]):
            yield
    except Exception:
        if dump.failure is not None:
            raise dump.failure from None
        raise


@pass_instrument
class _Dump:
    """TVM calls it after every pass; a phase is a pass by the phase's name."""

    def __init__(self, files: dict[str, Path]):
        self.files, self.failure = files, None

    def run_after_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        if info.name not in self.files:
            return
        try:
            write_output(self.files[info.name], (module.script(show_meta=False) + "\n").encode())
        except OSError as exc:  # TVM makes a RuntimeError of it on the way
            self.failure = exc
            raise
