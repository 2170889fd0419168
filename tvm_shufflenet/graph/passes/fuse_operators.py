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

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from ...errors import DeployError
from ..bindings import Bindings, constant, leaves, operands, operator, shape_of, substitute
from ..rewrites import REWRITES
from ..rewrites.base import Found, Rewrite
from ..rewrites.copy import copy_planes
from ..values import Other, Pending, Place, Value, fresh, lies_in, memories_of
from ..views import Memory, Storage, View, view_of, whole_view

# A pass that raises it does so through TVM.
tvm_ffi.register_error(DeployError)

# FuseOps must not wrap these again: they are complete, and their schedules rely on their structure.
OPAQUE = 8


class Fuser:
    """Rebuilds one straight-line function. ``values`` maps the old function's variables to what they have become."""

    def __init__(self, function: relax.Function):
        self.function = function
        self.bindings = Bindings(function)
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, Value] = {}
        self.left = Counter(self.bindings.reads)  # readers that are still to come
        self.found: dict[relax.Var, tuple[Rewrite, Found]] = {}
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
                output = self.builder.emit_output(substitute(self.function.body.body, self.tensor))
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _claim(self, var: relax.Var, value: relax.Expr) -> None:
        """Find what begins at ``var`` and takes several variables."""
        for rewrite in REWRITES.get(operator(value), ()):
            if rewrite.find is None or var in self.claimed:
                continue
            found = rewrite.find(self.bindings, var, self.claimed)
            if found is not None:
                self.found[found.last] = rewrite, found
                self.claimed.update(found.bound)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if var in self.found:
            rewrite, found = self.found[var]
            self.values[var] = rewrite.write(self, var, found)
        elif var not in self.claimed:
            self.values[var] = self._single(var, value)

    def _single(self, var: relax.Var, value: relax.Expr) -> Value:
        """What becomes of an operator by itself."""
        for rewrite in REWRITES.get(operator(value), ()):
            written = None if rewrite.find else rewrite.write(self, var, value)
            if written is not None:
                return written
        other = self._other(value)
        self.read(*operands(value))
        return other

    def _other(self, value: relax.Expr) -> Value:
        """An expression that is not ours to compute, on tensors."""
        if isinstance(value, relax.Var):
            return self.values[value]
        if isinstance(value, relax.TupleGetItem) and isinstance(self.values.get(value.tuple_value), tuple):
            return self.values[value.tuple_value][int(value.index)]
        made_of = frozenset().union(*(memories_of(self.values[var]) for var in operands(value)))
        if any(_is_tensor_constant(leaf) for leaf in leaves(value)):
            made_of |= {Memory(writable=False)}  # which may be returned as it is
        return self._received(self.builder.emit(substitute(value, self.tensor)), made_of | {Memory()})

    # What a variable of the old function has become

    def _received(self, expr: relax.Expr, memories: frozenset[Memory]) -> View | Other:
        """A new variable or a constant as a view, if it is a 4-dimensional float32 tensor with elements."""
        shape = shape_of(expr)
        images = shape is not None and len(shape) == 4 and 0 not in shape and str(expr.ty.dtype) == "float32"
        return whole_view(Storage(expr, shape, memories)) if images else Other(expr, memories)

    def view(self, var: relax.Var) -> View | None:
        """The value of ``var`` as a view, None where it is not a 4-dimensional tensor."""
        value = self.values.get(var)
        if isinstance(value, Pending):
            value = self.values[var] = value.write(fresh(value.channels))
        if not isinstance(value, View):
            return None
        _check_current(value, var.name)
        return value

    def tensor(self, var: relax.Var) -> relax.Expr:
        """The value of ``var`` as a tensor of its own, for an operator that is not ours."""
        view, value = self.view(var), self.values[var]
        if isinstance(value, tuple):
            return relax.Tuple([self.whole(each).storage.var for each in value])
        return value.expr if view is None else self.whole(view).storage.var

    def whole(self, view: View) -> View:
        """The same value with its planes in order: copied, if they are not."""
        return view if view.whole else copy_planes(self, view, fresh(len(view.planes)))

    def part_of(self, field: relax.Expr) -> Value:
        """What a field of a tuple has become: a variable or a constant."""
        if isinstance(field, relax.Var):
            return self.values[field]
        return self._received(field, frozenset([Memory(writable=False)]))

    def read(self, *variables: relax.Var) -> None:
        self.left.subtract(variables)

    def live(self, storage: Storage) -> set[int]:
        """The planes that must not be overwritten: those that somebody will still read or may read under another name,
        or all of what is not ours."""
        everything = set(range(storage.planes))
        if not storage.writable:
            return everything
        awaited = [value for var, value in self.values.items() if self.left[var] > 0]
        live = set()
        for value in (part for each in awaited for part in (each if isinstance(each, tuple) else (each,))):
            if lies_in(value, storage):
                live.update(value.planes)
            elif not storage.memories.isdisjoint(memories_of(value)):
                return everything
        return live

    # For rewrites

    def is_concatenated(self, var: relax.Var) -> bool:
        """Whether all that is done with ``var`` is to concatenate its channels with others'."""
        reader = self.bindings.sole_reader(var)
        if reader is None or operator(self.bindings.values[reader]) != "relax.concat":
            return False
        return int(self.bindings.values[reader].attrs.axis) == 1 and len(shape_of(var)) == 4

    def in_order(self, var: relax.Var) -> tuple[View, np.ndarray]:
        """A view of every plane of a tensor, copied if need be, and which channel each plane is."""
        view = self.view(var)
        view = view if view.permuted else self.whole(view)
        self.read(var)
        return view, np.argsort(view.planes)

    def emit_planes(
        self, name: str, kernel, data: View, others: list[relax.Expr], place: Place, non_negative: bool
    ) -> View:
        """Call an operator that makes planes of those of ``data``, in place where ``place`` names a tensor that exists.

        What it writes there are other planes than those it reads.
        """
        storage, window, arguments = place.storage, place.window, [data.storage.var, *others]
        if window.scattered:
            arguments = [*arguments, relax.const(np.array(place.planes, np.int32))]
        if window.shared:
            arguments = [*arguments, storage.var]
        if storage is None:
            storage = Storage(self.call(name, kernel, arguments), kernel.output_shape, frozenset([Memory()]))
        else:
            # An addend that is overwritten is two operands that are one tensor.
            storage.var = self.call(name, kernel, arguments, storage.var, alone=window.shared)
            storage.written(place.planes)
            _check_current(data, name)
        return view_of(storage, place.planes, non_negative)

    def call(
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


def _check_current(view: View, name: str) -> None:
    if not view.current:
        what = f"what {name} reads is overwritten while it is needed"
        raise DeployError(what, "a fault of FuseOperators", "compile it --untuned, and report the model")


def _is_tensor_constant(expr: relax.Expr) -> bool:
    """Whether it is a constant of more than one element: a scalar is an operand of arithmetic."""
    value = constant(expr)
    return value is not None and value.size > 1


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
