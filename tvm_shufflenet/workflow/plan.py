"""The plan of a compile, fixed before it starts. Command line, manifest and report print the same text."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..hardware.targets import Target
from ..licences.linked import without_folders
from ..precision import FLOAT32, Precision


@dataclass(frozen=True)
class CompilePlan:
    """``records`` is the folder of tuning records, None for TVM's own untuned code."""

    model: str
    input_shape: tuple[int, ...]
    target: Target
    records: str | None
    linker: tuple[str, ...]
    tvm_version: str
    ffi_version: str
    precision: Precision = FLOAT32

    @property
    def tuned(self) -> bool:
        return self.records is not None

    def anywhere(self) -> CompilePlan:
        """The plan as another folder's or computer's would be: without where records and programs are here."""
        records = self.records and ",".join(_last_part(each) for each in self.records.split(","))
        return replace(self, records=records, linker=without_folders(self.linker))

    def describe(self) -> str:
        computed = "" if self.precision is FLOAT32 else f", computed in {self.precision.name}"
        shape = "x".join(map(str, self.input_shape))
        code = f"our operators, scheduled by {self.records}" if self.tuned else "TVM's own operators, untuned"
        lines = [
            f"model   {self.model}, input {shape} {FLOAT32.data}{computed}",
            f"target  {self.target.describe()}",
            f"code    {code}",
            f"linker  {' '.join(self.linker)}",
            f"tvm     {self.tvm_version} (ffi {self.ffi_version})",
        ]
        return "\n".join(lines)


def _last_part(words: str) -> str:
    """``the/folder/name else`` as ``name else``."""
    _, slash, name = words.rpartition("/")
    return name if slash else words
