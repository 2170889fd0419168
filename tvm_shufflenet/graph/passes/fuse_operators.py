"""Pass: the network becomes calls of the fused operators of ``tvm_shufflenet.operators``.

It walks the network once, in order. Values are views (``views.py``), so splits, concatenations and channel shuffles
vanish: they permute planes, and the permutation ends in the weights or in the table of planes of the next operator.
Results that are concatenated are written straight to their place in the concatenated tensor, in place where nobody
needs what was there: ShuffleNet v2's branch overwrites the planes it has read, v1's unit its own input.

Nobody needs a plane when no value that is still to be read may lie in it. Our operators' results lie where they were
told to. What another operator returns may lie in any memory that it was made of, through any number of such operators:
TVM takes whatever leaves the order of elements for a view, and computes what it fuses only when the last of it is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...errors import DeployError
from ...operators.convolution import Convolution
from ...operators.copy import Copy
from ...operators.dense import Dense
from ...operators.depthwise import Depthwise
from ...operators.destination import Window, own
from ...operators.pointwise import Pointwise
from ...operators.pooling import Pooling
from ..bindings import Bindings, constant, leaves, operands, operator, shape_of, substitute
from ..chains import Chain, Layer, chain_at, layer_at, shuffle_groups_of
from ..views import Memory, Storage, View, shuffled, view_of, whole_view
from .fold_empty import is_empty

# A pass that raises it does so through TVM.
tvm_ffi.register_error(DeployError)

# FuseOps must not wrap these again: they are complete, and their schedules rely on their structure.
OPAQUE = 8


@dataclass(frozen=True)
class Place:
    """Where an operator writes: a window of ``storage``, or of a fresh tensor where that is None.

    ``planes[c]`` is the plane of channel ``c``. With ``relu`` the value is wanted after a ReLU.
    """

    window: Window
    planes: tuple[int, ...]
    storage: Storage | None = None
    relu: bool = False


def fresh(channels: int) -> Place:
    """A tensor of its own."""
    return Place(own(channels), tuple(range(channels)))


def part(storage: Storage | None, total: int, planes: tuple[int, ...], relu: bool) -> Place:
    """Some planes of a tensor with ``total`` planes: a range of them, or a table's."""
    scattered = planes != tuple(range(planes[0], planes[0] + len(planes)))
    window = Window(len(planes), total, 0 if scattered else planes[0], scattered, first=storage is None)
    return Place(window, planes, storage, relu)


@dataclass(frozen=True)
class Pending:
    """A result that waits for its place in a concatenation: ``write(place)`` emits the operator that computes it."""

    channels: int
    write: Callable[[Place], View]


@dataclass(frozen=True)
class Other:
    """A value that is no image: ``expr``, which lies in one of ``memories``, or each of whose fields does."""

    expr: relax.Expr
    memories: frozenset[Memory]


Value = View | Pending | Other | tuple[View, ...]


class Fuser:
    """Rebuilds one straight-line function. ``values`` maps the old function's variables to what they have become."""

    def __init__(self, function: relax.Function):
        self.function = function
        self.bindings = Bindings(function)
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, Value] = {}
        self.left = Counter(self.bindings.reads)  # readers that are still to come
        self.chains: dict[relax.Var, Chain] = {}
        self.layers: dict[relax.Var, Layer] = {}
        self.shuffles: dict[relax.Var, tuple[relax.Var, int]] = {}
        self.claimed: set[relax.Var] = set()

    def run(self, name: str) -> tvm.IRModule:
        """The function and the operators it calls as a module."""
        parameters = [relax.Var(param.name, param.ty) for param in self.function.params]
        for old, new in zip(self.function.params, parameters, strict=True):
            self.values[old] = self._received(new, frozenset([Memory(writable=False)]))
        for binding in self.bindings.list:
            self._claim(binding.var, binding.value)
        attributes = {key: value for key, value in (self.function.attrs or {}).items() if key != "global_symbol"}
        with self.builder.function(name, parameters, attrs=attributes):
            with self.builder.dataflow():
                for binding in self.bindings.list:
                    self._bind(binding.var, binding.value)
                output = self.builder.emit_output(substitute(self.function.body.body, self._tensor))
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _claim(self, var: relax.Var, value: relax.Expr) -> None:
        """Find what begins at ``var`` and takes several variables: convolutions with what follows, free shuffles."""
        if var in self.claimed:
            return
        if operator(value) == "relax.nn.conv2d":
            chain = chain_at(self.bindings, var, self.claimed)
            if chain is not None:
                self.chains[chain.last] = chain
                self.claimed.update(chain.bound)
        elif operator(value) == "relax.matmul":
            layer = layer_at(self.bindings, var)
            if layer is not None:
                self.layers[layer.last] = layer
                self.claimed.update(layer.bound)
        elif operator(value) == "relax.reshape":
            found = shuffle_groups_of(self.bindings, var)
            if found is not None:
                groups, bound = found
                self.shuffles[bound[-1]] = value.args[0], groups
                self.claimed.update(bound)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if var in self.chains:
            self.values[var] = self._chain(var, self.chains[var])
        elif var in self.layers:
            self.values[var] = self._dense(self.layers[var])
        elif var in self.shuffles:
            source, groups = self.shuffles[var]
            view = self._view(source)
            self.values[var] = view.take(shuffled(len(view.planes), groups))
            self._read(source)
        elif var not in self.claimed:
            handler = _HANDLERS.get(operator(value))
            found = handler(self, var, value) if handler else None
            if found is None:
                found = self._other(value)
                self._read(*operands(value))
            self.values[var] = found

    def _other(self, value: relax.Expr) -> Value:
        """An expression that is not ours to compute, on tensors."""
        if isinstance(value, relax.Var):
            return self.values[value]
        if isinstance(value, relax.TupleGetItem) and isinstance(self.values.get(value.tuple_value), tuple):
            return self.values[value.tuple_value][int(value.index)]
        made_of = frozenset().union(*(_memories(self.values[var]) for var in operands(value)))
        if any(_is_tensor_constant(leaf) for leaf in leaves(value)):
            made_of |= {Memory(writable=False)}  # which may be returned as it is
        return self._received(self.builder.emit(substitute(value, self._tensor)), made_of | {Memory()})

    # What a variable of the old function has become

    def _received(self, expr: relax.Expr, memories: frozenset[Memory]) -> View | Other:
        """A new variable or a constant as a view, if it is a 4-dimensional float32 tensor with elements."""
        shape = shape_of(expr)
        images = shape is not None and len(shape) == 4 and 0 not in shape and str(expr.ty.dtype) == "float32"
        return whole_view(Storage(expr, shape, memories)) if images else Other(expr, memories)

    def _view(self, var: relax.Var) -> View | None:
        """The value of ``var`` as a view, None where it is not a 4-dimensional tensor."""
        value = self.values.get(var)
        if isinstance(value, Pending):
            value = self.values[var] = value.write(fresh(value.channels))
        if not isinstance(value, View):
            return None
        _check_current(value, var.name)
        return value

    def _tensor(self, var: relax.Var) -> relax.Expr:
        """The value of ``var`` as a tensor of its own, for an operator that is not ours."""
        view, value = self._view(var), self.values[var]
        if isinstance(value, tuple):
            return relax.Tuple([self._whole(each).storage.var for each in value])
        return value.expr if view is None else self._whole(view).storage.var

    def _whole(self, view: View) -> View:
        """The same value with its planes in order: copied, if they are not."""
        return view if view.whole else self._copy(view, fresh(len(view.planes)))

    def _part(self, field: relax.Expr) -> Value:
        """What a field of a tuple has become: a variable or a constant."""
        if isinstance(field, relax.Var):
            return self.values[field]
        return self._received(field, frozenset([Memory(writable=False)]))

    def _read(self, *variables: relax.Var) -> None:
        self.left.subtract(variables)

    def _live(self, storage: Storage) -> set[int]:
        """The planes that must not be overwritten: those that somebody will still read or may read under another name,
        or all of what is not ours."""
        everything = set(range(storage.planes))
        if not storage.writable:
            return everything
        awaited = [value for var, value in self.values.items() if self.left[var] > 0]
        live = set()
        for value in (part for each in awaited for part in (each if isinstance(each, tuple) else (each,))):
            if _lies_in(value, storage):
                live.update(value.planes)
            elif not storage.memories.isdisjoint(_memories(value)):
                return everything
        return live

    # Operators

    def _chain(self, var: relax.Var, chain: Chain) -> View | Pending:
        if chain.kind == "pointwise" and chain.residual is None and self._concatenated(var):
            return Pending(len(chain.bias), lambda place: self._pointwise(chain, place))
        if chain.kind == "pointwise":
            return self._pointwise(chain, fresh(len(chain.bias)))
        if chain.kind == "depthwise":
            return self._depthwise(chain)
        return self._convolution(chain)

    def _concatenated(self, var: relax.Var) -> bool:
        """Whether all that is done with ``var`` is to concatenate its channels with others'."""
        reader = self.bindings.sole_reader(var)
        if reader is None or operator(self.bindings.values[reader]) != "relax.concat":
            return False
        return int(self.bindings.values[reader].attrs.axis) == 1 and len(shape_of(var)) == 4

    def _pointwise(self, chain: Chain, place: Place) -> View:
        data, weight, gather = self._view(chain.data), chain.weight, None
        if data.permuted and chain.groups == 1:
            weight = weight[:, np.argsort(data.planes)]  # the planes in order: the permutation goes into the weight
        elif data.planes != tuple(range(len(data.planes))):
            gather = np.array(data.planes, np.int32)
        addend = None
        if chain.residual is not None:
            addend = self._whole(self._view(chain.residual))
            self._read(chain.residual)
            # The data is read until the last of the result is written, so it counts as awaited here.
            if self._live(addend.storage).isdisjoint(addend.planes):
                place = replace(place, storage=addend.storage)
        self._read(chain.data)
        batch, planes, height, width = data.storage.shape
        kernel = Pointwise(
            batch,
            planes,
            height,
            width,
            in_channels=len(data.planes),
            out_channels=len(chain.bias),
            groups=chain.groups,
            relu=chain.relu or place.relu,
            residual=addend is not None,
            shuffle_groups=chain.shuffle_groups,
            gathered=gather is not None,
            window=place.window,
        )
        arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
        arguments += [relax.const(gather)] if gather is not None else []
        arguments += [addend.storage.var] if addend is not None else []
        return self._emit("pointwise", kernel, data, arguments, place, kernel.relu)

    def _in_order(self, var: relax.Var) -> tuple[View, np.ndarray]:
        """A view of every plane of a tensor, copied if need be, and which channel each plane is."""
        view = self._view(var)
        view = view if view.permuted else self._whole(view)
        self._read(var)
        return view, np.argsort(view.planes)

    def _depthwise(self, chain: Chain) -> View:
        """Channel by channel, so in the order in which the planes lie."""
        data, order = self._in_order(chain.data)
        kernel = Depthwise(*data.shape, chain.weight.shape[2:], chain.stride, chain.padding, chain.relu)
        weight, bias = kernel.pack_weight(chain.weight[order]), chain.bias[order]
        arguments = [relax.const(weight), relax.const(bias)]
        return self._emit("depthwise", kernel, data, arguments, fresh(len(order)), chain.relu).take(data.planes)

    def _convolution(self, chain: Chain) -> View:
        weight = chain.weight
        if chain.groups == 1:
            data, order = self._in_order(chain.data)
            weight = weight[:, order]
        else:
            data = self._whole(self._view(chain.data))
            self._read(chain.data)
        channels, _, *kernel_size = weight.shape
        kernel = Convolution(
            *data.shape, channels, chain.groups, tuple(kernel_size), chain.stride, chain.padding, chain.relu
        )
        arguments = [relax.const(kernel.pack_weight(weight)), relax.const(chain.bias)]
        return self._emit("convolution", kernel, data, arguments, fresh(channels), chain.relu)

    def _pooling(self, call: relax.Call, place: Place) -> View:
        """Plane by plane, as they lie: where they are not in order, neither is the result."""
        data, _ = self._in_order(call.args[0])
        attrs, average = call.attrs, operator(call) == "relax.nn.avg_pool2d"
        relu = place.relu and not data.non_negative
        kernel = Pooling(
            *data.shape,
            "average" if average else "max",
            tuple(int(k) for k in attrs.pool_size),
            tuple(int(s) for s in attrs.strides),
            tuple(int(p) for p in attrs.padding),
            bool(attrs.count_include_pad),
            bool(attrs.ceil_mode),
            relu,
            place.window,
            data.non_negative,
        )
        written = self._emit("pooling", kernel, data, [], place, relu or data.non_negative)
        return written.take(data.planes)

    def _dense(self, layer: Layer) -> Other:
        """A permutation of the planes that are averaged goes into the weight."""
        weight, plane = layer.weight, None
        if layer.pooled:
            view, order = self._in_order(layer.data)
            weight, plane, data = weight[:, order], view.shape[2:], view.storage.var
        else:
            data = self._tensor(layer.data)
            self._read(layer.data)
        kernel = Dense(shape_of(layer.data)[0], weight.shape[1], len(layer.bias), layer.relu, plane)
        arguments = [data, relax.const(kernel.pack_weight(weight)), relax.const(layer.bias)]
        return Other(self._call("dense", kernel, arguments), frozenset([Memory()]))

    def _copy(self, view: View, place: Place) -> View:
        """The fallback where a view must become a tensor or lie elsewhere."""
        batch, planes, height, width = view.storage.shape
        kernel = Copy(batch, planes, height, width, len(view.planes), place.relu, place.window)
        table = relax.const(np.array(view.planes, np.int32))
        return self._emit("copy", kernel, view, [table], place, place.relu or view.non_negative)

    def _emit(self, name: str, kernel, data: View, others: list[relax.Expr], place: Place, non_negative: bool) -> View:
        """Call an operator that makes planes of those of ``data``, in place where ``place`` names a tensor that exists.

        What it writes there are other planes than those it reads.
        """
        storage, window, arguments = place.storage, place.window, [data.storage.var, *others]
        if window.scattered:
            arguments = [*arguments, relax.const(np.array(place.planes, np.int32))]
        if window.shared:
            arguments = [*arguments, storage.var]
        if storage is None:
            storage = Storage(self._call(name, kernel, arguments), kernel.output_shape, frozenset([Memory()]))
        else:
            # An addend that is overwritten is two operands that are one tensor.
            storage.var = self._call(name, kernel, arguments, storage.var, alone=window.shared)
            storage.written(place.planes)
            _check_current(data, name)
        return view_of(storage, place.planes, non_negative)

    def _call(
        self, name: str, kernel, arguments: list[relax.Expr], written: relax.Expr | None = None, alone: bool = True
    ) -> relax.Var:
        """The result of an operator: a fresh tensor, or ``written``; ``alone`` unless two operands are one tensor."""
        attributes = {"op_pattern": OPAQUE, "tirx.noalias": alone}
        function = kernel.function().with_attr(attributes).without_attr("global_symbol")
        variable = self.builder.add_func(function, name)
        result = relax.TensorType(kernel.output_shape, "float32")
        if written is None:
            return self.builder.emit(relax.call_tir(variable, arguments, result))
        call = relax.op.call_tir_inplace(variable, [*arguments, written], len(arguments), result)
        return self.builder.emit(call)


# What a handler returns is the variable's new value, or None where the operator is to be left as it is.


def _relu(fuser: Fuser, _var: relax.Var, call: relax.Call) -> View | None:
    view = fuser._view(call.args[0])
    if view is None or not view.non_negative:
        return None
    fuser._read(call.args[0])
    return view


def _pool(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | Pending | None:
    attrs, view = call.attrs, fuser._view(call.args[0])
    plain = attrs.layout == attrs.out_layout == "NCHW" and all(int(d) == 1 for d in attrs.dilation)
    if view is None or not plain:
        return None
    if _is_identity(attrs):
        fuser._read(call.args[0])
        return view  # as a copy it would be one that TVM takes for a view
    channels = len(view.planes)
    if fuser._concatenated(var):
        return Pending(channels, lambda place: fuser._pooling(call, place))
    return fuser._pooling(call, fresh(channels))


def _is_identity(pooling) -> bool:
    steps = {int(extent) for extent in (*pooling.pool_size, *pooling.strides)}
    return steps == {1} and not any(int(pixels) for pixels in pooling.padding)


def _split(fuser: Fuser, _var: relax.Var, call: relax.Call) -> tuple[View, ...] | None:
    view = fuser._view(call.args[0])
    if view is None or int(call.attrs.axis) != 1:
        return None
    sections, channels = call.attrs.indices_or_sections, len(view.planes)
    if hasattr(sections, "value"):  # a number of equal parts, the last one smaller
        size = -(-channels // int(sections))
        starts = list(range(0, channels, size))
    else:
        starts = [0, *(int(index) for index in sections)]
    fuser._read(call.args[0])
    bounds = zip(starts, [*starts[1:], channels], strict=True)
    return tuple(view.take(range(start, stop)) for start, stop in bounds)


def _strided_slice(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | None:
    view, axes = fuser._view(call.args[0]), [int(axis) for axis in call.args[1].fields]
    if view is None or axes != [1]:
        return None
    begin, end, *strides = (int(arg.fields[0]) for arg in call.args[2:])
    chosen = range(len(view.planes))[slice(begin, end, *strides)]
    if len(chosen) != shape_of(var)[1]:
        return None
    fuser._read(call.args[0])
    return view.take(chosen)


def _concat(fuser: Fuser, var: relax.Var, call: relax.Call) -> View | None:
    """Views of one tensor stay where they are; what is still to be computed is computed into its place."""
    if int(call.attrs.axis) != 1 or not isinstance(call.args[0], relax.Tuple):
        return None
    fields = [field for field in call.args[0].fields if not is_empty(field)]
    parts = [fuser._part(field) for field in fields]
    if not parts or not all(isinstance(each, (View, Pending)) for each in parts):
        return None
    relu = _only_a_relu_reads(fuser, var) and all(isinstance(each, Pending) or each.non_negative for each in parts)
    host, own_first = _host(fuser, parts), sorted(range(len(parts)), key=lambda index: _is_constant(parts[index]))
    if host is None and _is_constant(parts[own_first[0]]):
        return None
    placed = _place_in(fuser, parts, *host, relu) if host else _place_afresh(fuser, parts, own_first, relu)
    fuser._read(*operands(call))
    planes = tuple(plane for view in placed for plane in view.planes)
    return view_of(placed[0].storage, planes, all(view.non_negative for view in placed))


def _only_a_relu_reads(fuser: Fuser, var: relax.Var) -> bool:
    reader = fuser.bindings.sole_reader(var)
    return reader is not None and operator(fuser.bindings.values[reader]) == "relax.nn.relu"


def _channels(each: View | Pending) -> int:
    return len(each.planes) if isinstance(each, View) else each.channels


def _check_current(view: View, name: str) -> None:
    if not view.current:
        what = f"what {name} reads is overwritten while it is needed"
        raise DeployError(what, "a fault of FuseOperators", "compile it --untuned, and report the model")


def _memories(value: Value) -> frozenset[Memory]:
    """The memories that a value may lie in; none for what is not computed yet."""
    if isinstance(value, tuple):
        return frozenset().union(*map(_memories, value))
    if isinstance(value, View):
        return value.storage.memories
    return value.memories if isinstance(value, Other) else frozenset()


def _is_tensor_constant(expr: relax.Expr) -> bool:
    """Whether it is a constant of more than one element: a scalar is an operand of arithmetic."""
    value = constant(expr)
    return value is not None and value.size > 1


def _lies_in(value: Value, storage: Storage) -> bool:
    return isinstance(value, View) and value.storage is storage


def _host(fuser: Fuser, parts: list[View | Pending]) -> tuple[Storage, list[int]] | None:
    """The tensor that holds some of the parts already and has room for the others, and its planes that are free."""
    for storage in [each.storage for each in parts if isinstance(each, View)]:
        held = [each.planes for each in parts if _lies_in(each, storage)]
        taken = fuser._live(storage).union(*held)
        spare = [plane for plane in range(storage.planes) if plane not in taken]
        if sum(_channels(each) for each in parts if not _lies_in(each, storage)) <= len(spare):
            return storage, spare
    return None


def _place_in(fuser: Fuser, parts: list[View | Pending], host: Storage, spare: list[int], relu: bool) -> list[View]:
    placed = []
    for each in parts:
        if _lies_in(each, host):
            placed.append(each)
            continue
        planes, spare = tuple(spare[: _channels(each)]), spare[_channels(each) :]
        placed.append(_write(fuser, each, part(host, host.planes, planes, relu)))
    return placed


def _place_afresh(fuser: Fuser, parts: list[View | Pending], order: list[int], relu: bool) -> list[View]:
    """The first in ``order`` makes the tensor."""
    total, ends, storage = sum(map(_channels, parts)), list(accumulate(map(_channels, parts))), None
    placed: list[View] = [None] * len(parts)
    for index in order:
        planes = tuple(range(ends[index] - _channels(parts[index]), ends[index]))
        placed[index] = _write(fuser, parts[index], part(storage, total, planes, relu))
        storage = placed[index].storage
    return placed


def _is_constant(each: View | Pending) -> bool:
    """Whether it is a constant's planes: TVM would make a constant of a tensor that is made of nothing else."""
    return isinstance(each, View) and constant(each.storage.var) is not None


def _write(fuser: Fuser, each: View | Pending, place: Place) -> View:
    return each.write(place) if isinstance(each, Pending) else fuser._copy(each, place)


_HANDLERS = {
    "relax.nn.relu": _relu,
    "relax.nn.max_pool2d": _pool,
    "relax.nn.avg_pool2d": _pool,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.concat": _concat,
}


@tvm.transform.module_pass(opt_level=0, name="FuseOperators")
class FuseOperators:
    """Everything that ``tvm_shufflenet.operators`` computes becomes calls of it; what it does not know is left alone.

    Runs after batch norms are folded and shuffles canonicalised, before LegalizeOps.
    """

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        result = mod.clone()  # a pass that writes to its input changes the caller's module
        for name, function in mod.functions_items():
            if isinstance(function, relax.Function) and Bindings(function).straight:
                fused = Fuser(function).run(name.name_hint)
                for variable, body in fused.functions_items():
                    result[name if variable.name_hint == name.name_hint else variable] = body
        return relax.transform.DeadCodeElimination()(result)
