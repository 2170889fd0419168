"""Planes of one tensor copied to planes of another: what is left of a split or a concatenation that is not free."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from .building import parameter, prim_func, rectified
from .destination import Window

BLOCK = "copy"


@dataclass(frozen=True)
class Copy:
    """``channels`` planes of a tensor with ``planes`` of them, named by a table.

    There is always a table, even for planes in order: TVM takes a function that copies a tensor for a reshape, and
    gives the result the memory of the source.
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

    def function(self) -> tirx.PrimFunc:
        """The operator as a PrimFunc, float32.

        It takes data: (N, planes, H, W); the int32 table of the planes to read: (channels,); for a shared tensor with
        ``scattered`` the int32 table of the planes to write: (channels,), and the tensor itself; and writes
        (N, total, H, W).
        """
        return prim_func(self._body)

    def _body(self) -> None:
        batch, height, width, window = self.batch, self.height, self.width, self.window
        data = parameter("data", (batch, self.planes, height, width))
        gather = parameter("gather", (self.channels,), "int32")
        scatter = parameter("scatter", (self.channels,), "int32") if window.scattered else None
        if window.shared:
            parameter("shared", (batch, window.total, height, width))
        result = parameter("result", (batch, window.total, height, width))
        with T.grid(batch, self.channels, height, width) as loops, T.sblock(BLOCK):
            n, c, h, w = T.axis.remap("SSSS", loops)
            T.reads(data[n, 0 : self.planes, h, w], gather[c], *([scatter[c]] if window.scattered else []))
            T.writes(result[n, slice(0, window.total) if window.scattered else window.offset + c, h, w])
            value = data[n, gather[c], h, w]
            plane = scatter[c] if window.scattered else window.offset + c
            T.buffer_store(result, rectified(value, self.relu), [n, plane, h, w])
