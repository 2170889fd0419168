"""Reads operators from TVM's JSON, validated before TVM parses it.

TVM makes objects of whatever types such a text names, functions of other languages and compiled modules among them, and
follows whatever its parts refer to. Operators are loops over arithmetic: so their parts are of the types below, refer
to earlier parts alone, call nothing but functions of numbers, and are of bounded size.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any

LARGEST_BYTES = 8 * 2**20  # an operator takes 100 KB
MOST_NODES = 200_000
LARGEST_TREE = 500_000  # parts, those that are shared counted each time: a text of fifty lines can stand for 2^50
DEEPEST = 300
MOST_LANES = 64
LARGEST_UNROLL = 4096
LARGEST_NUMBER = 2**63

_REFERENCE, _SPAN = "reference", "span"
_COUNT = "count"
_LITERALS: dict[str, Callable[[Any], bool]] = {
    _COUNT: lambda value: type(value) is int and -1 <= value <= 4096,
    "flag": lambda value: type(value) is bool,
    "number": lambda value: type(value) in (int, float),
    "loop kind": lambda value: type(value) is int and 0 <= value <= 3,  # serial, parallel, vectorized, unrolled
    "dtype": lambda value: isinstance(value, str) and DTYPE.match(value) is not None,
}
DTYPE = re.compile(r"(bool|void|(int|uint)(8|16|32|64)|float(16|32|64)|bfloat16)(x([2-9]|[1-5]\d|6[0-4]))?\Z")
WORD = re.compile(r"[\w.:\-]{0,200}\Z")


def _fields(*references: str, **literals: str) -> dict[str, str]:
    return {"span": _SPAN, **dict.fromkeys(references, _REFERENCE), **literals}


_BINARY = _fields("ty", "a", "b")
TYPES: dict[str, dict[str, str]] = {
    "ir.IRModule": {
        name: _REFERENCE for name in ("functions", "global_var_map_", "source_map", "attrs", "global_infos")
    },
    "ir.SourceMap": {"source_map": _REFERENCE},
    "ir.DictAttrs": {"__dict__": _REFERENCE},
    "ir.StringType": _fields(),
    "ir.Type": _fields(),
    "ir.PrimType": _fields(dtype="dtype"),
    "ir.TupleType": _fields("fields"),
    "ir.GlobalVar": _fields("ty", "name_hint"),
    "ir.Var": _fields("ty", "name"),
    "ir.IntImm": _fields("ty", "value"),
    "ir.FloatImm": _fields("ty", value="number"),
    "ir.StringImm": _fields("ty", "value"),
    "ir.Range": _fields("min", "extent"),
    "ir.TensorLoad": _fields("ty", "source", "indices"),
    "ir.TensorRegion": _fields("ty", "source", "region"),
    "ir.Call": _fields("ty", "op", "args", "attrs", "ty_args"),
    "relax.ShapeType": _fields("values", ndim=_COUNT),
    "relax.TensorType": _fields("shape", "dtype", "vdevice", ndim=_COUNT),
    "relax.FuncType": _fields("params", "ret", "derive_func", purity="flag"),
    "relax.expr.ShapeExpr": _fields("ty", "values"),
    "tirx.PrimFunc": _fields("ty", "attrs", "params", "ret_type", "body"),
    "tirx.BufferType": _fields(
        "dtype", "storage_scope", "shape", "strides", "elem_offset", "layout", "allocated_addr",
        data_alignment=_COUNT, offset_factor=_COUNT,
    ),
    "tirx.BufferRegionType": _fields(),
    "tirx.BufferStore": _fields("buffer", "value", "indices"),
    "tirx.For": _fields(
        "loop_var", "min", "extent", "body", "thread_binding", "annotations", "step", kind="loop kind"
    ),
    "tirx.IfThenElse": _fields("condition", "then_case", "else_case"),
    "tirx.IterVar": _fields("dom", "var", "thread_tag", iter_type=_COUNT),
    "tirx.SeqStmt": _fields("seq"),
    "s_tir.SBlock": _fields(
        "iter_vars", "reads", "writes", "name_hint", "alloc_buffers", "match_buffers", "annotations", "init", "body"
    ),
    "s_tir.SBlockRealize": _fields("iter_values", "predicate", "block"),
    **{f"prim.{name}": _BINARY for name in (
        "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "EQ", "FloorDiv", "FloorMod", "GE", "GT", "LE",
        "LShift", "LT", "Max", "Min", "Mod", "Mul", "NE", "Or", "RShift", "Sub",
    )},
    "prim.BitwiseNot": _fields("ty", "a"),
    "prim.Broadcast": _fields("ty", "value", "lanes"),
    "prim.Cast": _fields("ty", "value"),
    "prim.Let": _fields("ty", "var", "value", "body"),
    "prim.Not": _fields("ty", "a"),
    "prim.Ramp": _fields("ty", "base", "stride", "lanes"),
    "prim.Select": _fields("ty", "condition", "true_value", "false_value"),
    "prim.Shuffle": _fields("ty", "vectors", "indices"),
}  # fmt: skip
# Functions of numbers. Whatever else TVM can call names a function of the process, an instruction or memory.
FUNCTIONS = {
    *(f"{space}.{name}" for space in ("prim", "tirx") for name in (
        "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "clz", "copysign", "cos", "cosh",
        "erf", "exp", "exp10", "exp2", "fabs", "floor", "fma", "fmod", "hypot", "if_then_else", "isfinite", "isinf",
        "isnan", "ldexp", "likely", "log", "log10", "log1p", "log2", "nearbyint", "nextafter", "popcount", "pow",
        "reinterpret", "round", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    )),
}  # fmt: skip
# Of C's library, what no function of TVM's stands for.
FROM_C, OF_C = "tirx.call_pure_extern", {"fmod", "fmodf"}
# Attributes of functions, blocks and loops.
KEYS = {
    "axis", "global_symbol", "tirx.noalias", "op_pattern", "s_tir", "schedule_rule", "pragma_loop_partition_hint",
    "pragma_auto_unroll_max_step", "pragma_unroll_explicit", "buffer_dim_align", "tirx.is_scheduled",
    "meta_schedule.parallel", "meta_schedule.vectorize", "meta_schedule.unroll_explicit",
    "meta_schedule.tiling_structure", "meta_schedule.random_compute_producer", "layout_free_buffers",
}  # fmt: skip
MAPS_WITH_KEYS = {("ir.DictAttrs", "__dict__"), ("tirx.For", "annotations"), ("s_tir.SBlock", "annotations")}
VECTORIZED, UNROLLED = 2, 3


class NotOperators(ValueError):
    """A text that is no module of operators as TVM writes it; says why."""


def check_workload(value: Any) -> None:
    """A workload as MetaSchedule's databases have it: its hash, and JSON in base64. Raises NotOperators."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str)):
        raise NotOperators("no workload")
    if not re.fullmatch(r"\d{1,20}", value[0]):
        raise NotOperators("a workload without its hash")
    try:
        content = base64.b64decode(value[1], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise NotOperators("no base64") from exc
    if int.from_bytes(content[:8], "little") != len(content) - 8:  # TVM reads as many bytes as that says
        raise NotOperators("cut short")
    check_module(content[8:])


def check_module(text: str | bytes) -> None:
    """A module of PrimFuncs as ``tvm.ir.save_json`` writes it. Raises NotOperators."""
    if len(text) > LARGEST_BYTES:
        raise NotOperators(f"{len(text) >> 20} MB of JSON")
    try:
        value = json.loads(text if isinstance(text, bytes) else str(text))  # TVM writes infinity as no JSON does
    except (ValueError, RecursionError, MemoryError) as exc:
        raise NotOperators("no JSON, cut short or nested too deeply") from exc
    if not isinstance(value, dict) or not value.keys() <= {"root_index", "nodes", "metadata"}:
        raise NotOperators("no module of TVM's")
    root, nodes, metadata = value.get("root_index"), value.get("nodes"), value.get("metadata", {})
    plain = isinstance(metadata, dict) and all(isinstance(each, str) for each in metadata.values())
    if not plain or not isinstance(nodes, list) or len(nodes) > MOST_NODES:
        raise NotOperators("no module of TVM's")
    if type(root) is not int or not 0 <= root < len(nodes):
        raise NotOperators("no module of TVM's")
    checker = _Checker(nodes)
    for index in range(len(nodes)):
        checker.check(index)
    if checker.types[root] not in ("ir.IRModule", "tirx.PrimFunc"):
        raise NotOperators(f"a {checker.types[root]}, no module")


class _Checker:
    """Goes through the parts in their order. Of each: its type, the size and depth of what it stands for, and how many
    copies of a statement it unrolls."""

    def __init__(self, nodes: list):
        self.nodes = nodes
        self.types: list[str] = []
        self.sizes: list[int] = []
        self.depths: list[int] = []
        self.copies: list[int] = []

    def check(self, index: int) -> None:
        node = self.nodes[index]
        if not isinstance(node, dict) or not node.keys() <= {"type", "data"} or not isinstance(node.get("type"), str):
            raise NotOperators("no part of a module")
        kind, data = node["type"], node.get("data")
        if kind in TYPES:
            references = self._object(kind, data, index)
        elif kind in ("ffi.Array", "ffi.Map"):
            references = self._container(kind, data, index)
        else:
            self._leaf(kind, data)
            references = []
        self.types.append(kind)
        size = 1 + sum([self.sizes[each] for each in references])
        depth = 1 + max([self.depths[each] for each in references], default=0)
        copies = max([self.copies[each] for each in references], default=1)
        if kind == "tirx.For":
            copies *= self._copies(data)
        if size > LARGEST_TREE or depth > DEEPEST:
            raise NotOperators("parts that repeat each other without end, or are nested too deeply")
        if copies > LARGEST_UNROLL:
            raise NotOperators(f"{copies} unrolled steps")
        self.sizes.append(size)
        self.depths.append(depth)
        self.copies.append(copies)

    def _refers(self, value: Any, index: int) -> int:
        if type(value) is not int or not 0 <= value < index:
            raise NotOperators("a part that refers to no earlier one")
        return value

    def _object(self, kind: str, data: Any, index: int) -> list[int]:
        fields = TYPES[kind]
        if not isinstance(data, dict) or data.keys() != fields.keys():
            raise NotOperators(f"a {kind} of other fields")
        references = []
        for name, value in data.items():
            wanted = fields[name]
            if wanted in _LITERALS:
                if not _LITERALS[wanted](value):
                    raise NotOperators(f"{name} of a {kind} is {str(value)[:60]!a}")
                continue
            referred = self._refers(value, index)
            if wanted == _SPAN and self.types[referred] != "None":
                raise NotOperators("a place in a source")
            if self.types[referred] == "ir.Op" and (kind, name) != ("ir.Call", "op"):
                raise NotOperators("a function that is not called")
            references.append(referred)
            if (kind, name) in MAPS_WITH_KEYS:
                self._check_keys(referred)
        if kind == "ir.Call":
            self._check_call(data)
        elif kind in ("prim.Ramp", "prim.Broadcast"):
            lanes = self._integer(data["lanes"])
            if lanes is None or not 1 <= lanes <= MOST_LANES:
                raise NotOperators(f"a vector of {lanes} lanes")
        return references

    def _container(self, kind: str, data: Any, index: int) -> list[int]:
        if not isinstance(data, list) or (kind == "ffi.Map" and len(data) % 2):
            raise NotOperators(f"no {kind}")
        references = [self._refers(each, index) for each in data]
        if any(self.types[each] == "ir.Op" for each in references):
            raise NotOperators("a function that is not called")
        return references

    def _leaf(self, kind: str, data: Any) -> None:
        if kind == "ffi.String":
            plain = isinstance(data, str) and WORD.match(data)
        elif kind == "int":
            plain = type(data) is int and abs(data) <= LARGEST_NUMBER
        elif kind == "ir.Op":
            plain = isinstance(data, str) and (data in FUNCTIONS or data == FROM_C)
        else:
            plain = (kind == "bool" and type(data) is bool) or (kind == "None" and data is None)
            plain = plain or (kind == "float" and type(data) in (int, float))
        if not plain:
            what = f" {str(data)[:60]!a}" if isinstance(data, (str, int)) else ""
            raise NotOperators(f"a {kind[:60]!a}{what}, which no operator has")

    def _check_keys(self, referred: int) -> None:
        """The keys of attributes and annotations; their values are as harmless as any other part."""
        if self.types[referred] == "None":
            return
        keys = self.nodes[referred]["data"][::2] if self.types[referred] == "ffi.Map" else [referred]
        for each in keys:
            name = self.nodes[each].get("data")
            if self.types[each] != "ffi.String" or name not in KEYS:
                raise NotOperators(f"an annotation {str(name)[:60]!a}, which no operator has")

    def _check_call(self, data: dict) -> None:
        if self.types[data["op"]] != "ir.Op" or self.types[data["attrs"]] != "None":
            raise NotOperators("a call of something else than a function of numbers")
        if self.nodes[data["op"]]["data"] == FROM_C:
            self._check_name(data["args"])

    def _check_name(self, referred: int) -> None:
        """The first argument of a call of C is the name of a function of numbers."""
        arguments = self.nodes[referred]["data"] if self.types[referred] == "ffi.Array" else []
        first = self.nodes[arguments[0]] if arguments and self.types[arguments[0]] == "ir.StringImm" else None
        name = self.nodes[first["data"]["value"]].get("data") if first else None
        if not isinstance(name, str) or name not in OF_C:
            raise NotOperators(f"a call of {str(name)[:60]!a}")

    def _integer(self, referred: int) -> int | None:
        """The value of a constant; None for anything else."""
        node = self.nodes[referred]
        if node["type"] == "ir.IntImm":
            node = self.nodes[node["data"]["value"]]
        return node["data"] if node["type"] == "int" else None

    def _copies(self, data: dict) -> int:
        if self.types[data["thread_binding"]] != "None":
            raise NotOperators("a loop over threads of a graphics processor")
        if data["kind"] not in (VECTORIZED, UNROLLED):
            return 1
        extent = self._integer(data["extent"])
        if extent is None or extent < 0 or (data["kind"] == VECTORIZED and extent > MOST_LANES):
            raise NotOperators(f"a vector or unrolled loop of {extent} steps")
        return max(1, extent) if data["kind"] == UNROLLED else 1
