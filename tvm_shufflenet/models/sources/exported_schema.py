"""The subset of torch's export schema that a network needs; nothing else is accepted.

torch resolves names in these files by ``getattr`` and imports, makes Python source of others, and evaluates their
expressions. So every name, operator and expression is checked before torch reads it; what only debuggers want is left
out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from .exported_expressions import check_expression, check_guard, check_symbol
from .exported_trees import check_tree

LARGEST_TENSOR = 4 * 2**30
MOST_NODES = 50_000
MOST_DIMS = 16
LONGEST_TRACE = 20_000
# Symbolic arithmetic, as torch writes the functions of its _SYM_OPS; without powers and shifts, which grow too fast.
SYMBOLIC = {
    *(f"_operator.{name}" for name in (
        "add", "and_", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg", "or_", "pos", "sub",
        "truediv",
    )),
    *(f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not", "sqrt")),
    "math.trunc",
}  # fmt: skip
# What export makes of ``with torch.no_grad():`` and ``with torch.autocast(...):`` in a model.
WRAPPERS = {f"torch.ops.higher_order.wrap_with_{name}" for name in ("autocast", "set_grad_enabled")}
ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w{0,99})\.([A-Za-z_]\w{0,99})\Z")
LINE = re.compile(r'(?:  )?File "(?P<file>[^"]{1,1000})", line \d{1,9}, in ')

Name = Annotated[str, Meta(pattern=r"^[^\W\d]\w{0,499}\Z")]
# A module's own name, as ``features.0.conv-1x1.weight``; an attribute of Python's own is none.
Path = Annotated[str, Meta(pattern=r"^(?!__)[\w\-+/:@ ]{1,200}(\.(?!__)[\w\-+/:@ ]{1,200}){0,99}\Z")]
Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Float = float | Literal["Infinity", "-Infinity", "NaN"]
Text = Annotated[str, Meta(max_length=2000)]
DTYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
Dtype = Literal[1, 2, 3, 4, 5, 6, 7, 8, 12, 13]


class Union(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One of several things, by the name of the only field that is there."""

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not UNSET for name in self.__struct_fields__) != 1:
            raise ValueError("not one of its kinds")

    @property
    def kind(self) -> str:
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not UNSET)

    @property
    def value(self) -> object:
        return getattr(self, self.kind)


class Device(Struct):
    type: str
    index: Literal[0, None] = None

    def __post_init__(self) -> None:
        if self.type != "cpu":
            raise ValueError(f"it was exported on {self.type[:20]!a}, not on the CPU")


class Hint(Union):
    as_int: Int | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class Expression(Struct):
    expr_str: str
    hint: Hint | None = None

    def __post_init__(self) -> None:
        check_expression(self.expr_str)


class SymInt(Union):
    as_int: Int | UnsetType = UNSET
    as_expr: Expression | UnsetType = UNSET

    @property
    def size(self) -> int | None:
        """The number, of a symbolic one its value at export; None where that is unknown."""
        if self.as_int is not UNSET:
            return self.as_int
        return self.as_expr.hint.value if self.as_expr.hint is not None else None


class SymFloat(Union):
    as_float: Float | UnsetType = UNSET
    as_expr: Expression | UnsetType = UNSET


class SymBool(Union):
    as_bool: bool | UnsetType = UNSET
    as_expr: Expression | UnsetType = UNSET


Dims = Annotated[list[SymInt], Meta(max_length=MOST_DIMS)]


class TensorMeta(Struct):
    dtype: Dtype
    sizes: Dims
    requires_grad: bool
    device: Device
    strides: Dims
    storage_offset: SymInt
    layout: Literal[7]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.strides):
            raise ValueError("a tensor with more sizes than strides, or fewer")
        if any(dim.size is not None and dim.size < 0 for dim in (*self.sizes, *self.strides, self.storage_offset)):
            raise ValueError("a tensor of negative size or stride")
        if self.bytes > LARGEST_TENSOR:
            raise ValueError(f"a tensor of {self.bytes / 2**30:.3g} GB")

    @property
    def bytes(self) -> int:
        """Bytes of its elements, each counted once; unknown symbols count for one."""
        return DTYPE_BYTES[self.dtype] * math.prod(1 if dim.size is None else dim.size for dim in self.sizes)


class Named(Struct):
    name: Name


class SymIntArgument(Union):
    as_name: Name | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET


class SymFloatArgument(Union):
    as_name: Name | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class SymBoolArgument(Union):
    as_name: Name | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class OptionalTensor(Union):
    as_tensor: Named | UnsetType = UNSET
    as_none: bool | UnsetType = UNSET


class Complex(Struct):
    real: Float
    imag: Float


class GraphArgument(Struct):
    name: Name
    graph: Graph


class Argument(Union):
    """Neither an object of the user's classes, nor an operator, nor a dictionary of further arguments."""

    as_none: bool | UnsetType = UNSET
    as_tensor: Named | UnsetType = UNSET
    as_tensors: list[Named] | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET
    as_ints: list[Int] | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_floats: list[Float] | UnsetType = UNSET
    as_string: Text | UnsetType = UNSET
    as_sym_int: SymIntArgument | UnsetType = UNSET
    as_sym_ints: list[SymIntArgument] | UnsetType = UNSET
    as_scalar_type: Dtype | UnsetType = UNSET
    as_memory_format: Literal[1, 2, 3, 4] | UnsetType = UNSET
    as_layout: Literal[7] | UnsetType = UNSET
    as_device: Device | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_bools: list[bool] | UnsetType = UNSET
    as_sym_bool: SymBoolArgument | UnsetType = UNSET
    as_sym_bools: list[SymBoolArgument] | UnsetType = UNSET
    as_graph: GraphArgument | UnsetType = UNSET
    as_optional_tensors: list[OptionalTensor] | UnsetType = UNSET
    as_sym_float: SymFloatArgument | UnsetType = UNSET
    as_sym_floats: list[SymFloatArgument] | UnsetType = UNSET
    as_optional_tensor: OptionalTensor | UnsetType = UNSET
    as_complex: Complex | UnsetType = UNSET
    as_nested_tensors: list[list[Named]] | UnsetType = UNSET


class NamedArgument(Struct):
    name: Annotated[str, Meta(pattern=r"^\w{0,100}\Z")]
    arg: Argument
    kind: Literal[0, 1, 2, None] = None


class Node(Struct):
    """Of what is written down about an operator only where it stands in the model: for messages."""

    target: Annotated[str, Meta(max_length=300)]
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str]
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None

    def __post_init__(self) -> None:
        if not (ATEN.match(self.target) or self.target in SYMBOLIC or self.target in WRAPPERS):
            raise ValueError(f"{self.target[:80]!a} is no operator of a network")
        trace = _printable_trace(self.metadata.get("stack_trace", ""))
        self.metadata = {"stack_trace": trace} if trace else {}


class Graph(Struct):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: Annotated[list[Node], Meta(max_length=MOST_NODES)]
    tensor_values: dict[Name, TensorMeta]
    sym_int_values: dict[Name, SymInt]
    sym_bool_values: dict[Name, SymBool]
    is_single_tensor_return: bool = False
    sym_float_values: dict[Name, SymFloat] = {}

    def graphs(self) -> Iterator[Graph]:
        """This one, and those within."""
        yield self
        for node in self.nodes:
            for each in node.inputs:
                if each.arg.as_graph is not UNSET:
                    yield from each.arg.as_graph.graph.graphs()


class UserInput(Struct):
    arg: Argument


class Constant(Union):
    as_none: bool | UnsetType = UNSET
    as_int: Int | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_string: Text | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class ConstantInput(Struct):
    name: Name
    value: Constant


class Parameter(Struct):
    arg: Named
    parameter_name: Path


class Buffer(Struct):
    arg: Named
    buffer_name: Path
    persistent: bool


class TensorConstant(Struct):
    arg: Named
    tensor_constant_name: Path


class InputSpec(Union):
    user_input: UserInput | UnsetType = UNSET
    parameter: Parameter | UnsetType = UNSET
    buffer: Buffer | UnsetType = UNSET
    tensor_constant: TensorConstant | UnsetType = UNSET
    constant_input: ConstantInput | UnsetType = UNSET


class BufferMutation(Struct):
    arg: Named
    buffer_name: Path


class InputMutation(Struct):
    arg: Named
    user_input_name: Name


class OutputSpec(Union):
    user_output: UserInput | UnsetType = UNSET
    buffer_mutation: BufferMutation | UnsetType = UNSET
    user_input_mutation: InputMutation | UnsetType = UNSET


class Signature(Struct):
    input_specs: list[InputSpec]
    output_specs: list[OutputSpec]


class CallSignature(Struct):
    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: str
    out_spec: str
    forward_arg_names: list[Name] | None = None

    def __post_init__(self) -> None:
        check_tree(self.in_spec)
        check_tree(self.out_spec)


class CallEntry(Struct):
    fqn: str
    signature: CallSignature | None = None


class GraphModule(Struct):
    graph: Graph
    signature: Signature
    module_call_graph: list[CallEntry]

    def __post_init__(self) -> None:
        """How submodules were called is for who takes the program apart again."""
        self.module_call_graph = self.module_call_graph[:1]
        if not self.module_call_graph or self.module_call_graph[0].fqn or not self.module_call_graph[0].signature:
            raise ValueError("it does not say how it is called")


class Range(Struct):
    min_val: Int | None
    max_val: Int | None


class SchemaVersion(Struct):
    major: Int
    minor: Int


class ExportedProgram(Struct):
    graph_module: GraphModule
    opset_version: dict[Literal["aten"], Int]
    range_constraints: dict[str, Range]
    schema_version: SchemaVersion
    verifiers: list[Literal["", "ATEN", "TRAINING", "EDGE"]] = []
    torch_version: Annotated[str, Meta(max_length=100)] = "<=2.4"
    guards_code: list[str] = []

    def __post_init__(self) -> None:
        for symbol in self.range_constraints:
            check_symbol(symbol)
        for guard in self.guards_code:
            check_guard(guard)


class Payload(Struct):
    """A tensor within a file of the archive, as its bytes: no pickle."""

    path_name: Annotated[str, Meta(pattern=r"^(weight|tensor)_\d{1,9}\Z")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: TensorMeta

    def __post_init__(self) -> None:
        dims = (*self.tensor_meta.sizes, *self.tensor_meta.strides, self.tensor_meta.storage_offset)
        if any(dim.as_int is UNSET for dim in dims):
            raise ValueError("a weight of symbolic size")

    @property
    def end(self) -> int:
        """Bytes of its file that it reads, from the beginning."""
        meta = self.tensor_meta
        sizes = [dim.size for dim in meta.sizes]
        if 0 in sizes:
            return 0
        last = sum((size - 1) * stride.size for size, stride in zip(sizes, meta.strides, strict=True))
        return DTYPE_BYTES[meta.dtype] * (meta.storage_offset.size + last + 1)


class PayloadConfig(Struct):
    config: dict[Path, Payload]


def _printable_trace(text: str) -> str:
    """The frames of a recorded stack: torch puts them into comments of the code that it makes."""
    frames = []
    for line in text[:LONGEST_TRACE].split("\n"):
        if LINE.match(line) and line.isprintable():
            frames.append(line)
    return "\n".join(frames)
