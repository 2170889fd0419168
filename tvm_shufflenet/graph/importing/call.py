"""One call of an ATen operator as a converter sees it, and the table of converters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch.base_fx_graph_translator import BaseFXGraphImporter

# What a call is converted to: a tensor, or one for each result.
Converted = relax.Expr | list[relax.Expr]
Converter = Callable[..., Converted]
# By the operator's name with its overload, ``elu.default``. Each takes the call and then every argument of the
# operator's schema, in that order: there is none that it could overlook.
CONVERTERS: dict[str, Converter] = {}


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Register a converter of the operators ``names``, which share a schema up to the names of their arguments."""

    def register(converter: Converter) -> Converter:
        for name in names:
            if name in CONVERTERS:
                raise ValueError(f"{name} has two converters")
            CONVERTERS[name] = converter
        return converter

    return register


class Unsupported(Exception):
    """A form of an operator that is not deployed; the message says which."""


@dataclass(frozen=True)
class Call:
    """``node`` calls an operator; ``arguments`` are the values of its schema's arguments in order, tensors as nodes."""

    node: Node
    arguments: Sequence[object]
    builder: relax.BlockBuilder

    @property
    def result(self) -> torch.Tensor:
        """What PyTorch says of the first result: its shape and dtype."""
        value = self.node.meta["val"]
        return value[0] if isinstance(value, list | tuple) else value

    @property
    def shape(self) -> list[int]:
        return [int(dim) for dim in self.result.shape]

    @property
    def dtype(self) -> str:
        return dtype_name(self.result.dtype)

    def source(self, index: int) -> torch.Tensor:
        """What PyTorch says of the tensor that is an argument: also how it lies in memory."""
        return _meta(self.arguments[index])

    def common_dtype(self, *indices: int) -> str:
        """The dtype in which PyTorch combines the arguments at ``indices``, by its rules of promotion."""
        first, second = (_meta(self.arguments[index]) for index in indices)
        return dtype_name(torch.result_type(first, second))

    def emit(self, expr: relax.Expr) -> relax.Expr:
        return self.builder.emit(expr)

    def te(self, function: Callable, *arguments: object, name: str) -> relax.Expr:
        """The value of a TE function of Relax tensors; ``name`` is a hint for its PrimFunc."""
        return self.builder.emit_te(function, *arguments, primfunc_name_hint=name)

    def cast(self, value: relax.Expr | complex, dtype: str) -> relax.Expr:
        """A tensor or number as a tensor of ``dtype``."""
        if not isinstance(value, relax.Expr):
            return relax.const(value, dtype)
        if is_dtype(value, dtype):
            return value
        if dtype == "bool":
            return self.emit(relax.op.not_equal(value, relax.const(0, str(value.ty.dtype))))
        return self.emit(relax.op.astype(value, dtype))


def dtype_name(dtype: torch.dtype) -> str:
    """TVM's name of a dtype. Raises Unsupported."""
    try:
        return BaseFXGraphImporter._convert_data_type(dtype)
    except NotImplementedError as exc:
        raise Unsupported(f"it computes in {str(dtype).removeprefix('torch.')}") from exc


def is_dtype(value: relax.Expr, dtype: str) -> bool:
    return str(value.ty.dtype) == dtype


def is_float(dtype: str) -> bool:
    return "float" in dtype


def shape_of(value: relax.Expr) -> list[int]:
    return [int(dim) for dim in value.ty.shape]


def axes_of(dims: int | Sequence[int] | None, rank: int) -> list[int]:
    """Axes counted from the front; all of them where none is named."""
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(rank))
    dims = [dims] if isinstance(dims, int) else dims
    return [dim % max(rank, 1) for dim in dims]


def integers(values: np.ndarray | Sequence[int]) -> relax.Expr:
    return relax.const(np.asarray(values, dtype="int64"), "int64")


def _meta(argument: object) -> object:
    return argument.meta["val"] if isinstance(argument, Node) else argument
