"""Copies planes of one tensor to planes of another: what remains of a split or concatenation that is not free."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from .base import Operator
from .building import INDEX, parameter, rectified
from .destination import Window, own

BLOCK = "copy"


@dataclass(frozen=True)
class Copy(Operator):
    """``channels`` planes of a tensor with ``planes`` of them, named by a table.

    There is always a table, even for planes in order: TVM takes a function that copies a tensor for a reshape, and
    gives the result the memory of the source.

    It takes data: (N, planes, H, W); the int32 table of the planes to read: (channels,); for a shared tensor with
    ``scattered`` the int32 table of the planes to write: (channels,), and the tensor itself; and writes
    (N, total, H, W).
    """

    batch: int
    planes: int
    height: int
    width: int
    channels: int
    relu: bool
    window: Window

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.window.total, self.height, self.width

    @classmethod
    def example(cls) -> Copy:
        return cls(1, 2, 2, 2, channels=2, relu=False, window=own(2))

    def emit(self) -> None:
        batch, height, width, window = self.batch, self.height, self.width, self.window
        data = parameter("data", (batch, self.planes, height, width), self.dtype)
        gather = parameter("gather", (self.channels,), INDEX)
        scatter = parameter("scatter", (self.channels,), INDEX) if window.scattered else None
        if window.shared:
            parameter("shared", self.output_shape, self.dtype)
        result = parameter("result", self.output_shape, self.dtype)
        with T.grid(batch, self.channels, height, width) as loops, T.sblock(BLOCK):
            n, c, h, w = T.axis.remap("SSSS", loops)
            T.reads(data[n, 0 : self.planes, h, w], gather[c], *([scatter[c]] if window.scattered else []))
            T.writes(result[n, slice(0, window.total) if window.scattered else window.offset + c, h, w])
            value = data[n, gather[c], h, w]
            plane = scatter[c] if window.scattered else window.offset + c
            T.buffer_store(result, rectified(value, self.relu), [n, plane, h, w])
