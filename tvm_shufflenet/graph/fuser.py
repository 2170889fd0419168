"""``FuseOperators``' single pass over a network, in order.

Values are views (``views.py``), so splits, concatenations and channel shuffles vanish: they permute planes, and the
permutation ends in the weights or in the table of planes of the next operator. Results that are concatenated are
written straight to their place in the concatenated tensor, in place where the old contents are no longer needed:
ShuffleNet v2's branch overwrites the planes it has read, v1's unit its own input.

A plane is not needed when no value that is still to be read may lie in it. Our operators' results lie where they were
told to. What another operator returns may lie in any memory that it was made of, through any number of such operators:
TVM takes whatever leaves the order of elements for a view, and computes what it fuses only when the last of it is due.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import tvm
from tvm import relax

from ..errors import DeployError
from ..hardware.machine import Machine
from ..operators import registry
from ..operators.base import Operator
from ..operators.building import INDEX
from ..precision import precision_of
from .bindings import Bindings, leaves, operands, operator, shape_of, substitute
from .rewrites import concatenation, free, shuffle
from .rewrites.copy import copied
from .rewrites.match import Match, Rewrite
from .values import Other, Pending, Place, Value, foreign, fresh, is_tensor_constant, lies_in, memories_of, owned
from .views import Memory, Storage, View, view_of, whole_view

# FuseOps must not wrap these again: they are complete, and their schedules rely on their structure.
OPAQUE = 8
# What only renames planes, and calls an operator at most to move them.
FREE: tuple[Rewrite, ...] = (shuffle, free, concatenation)


def _rewrites() -> dict[str, list[Rewrite]]:
    """What may begin at each Relax operator, in the order in which it is tried."""
    found = defaultdict(list)
    for rewrite in (*(entry.rewrite for entry in registry.entries()), *FREE):
        for start in rewrite.STARTS:
            found[start].append(rewrite)
    return found


class Fuser:
    """Rebuilds one straight-line function. ``values`` maps the old function's variables to what they have become.

    Rewrites (``graph/rewrites``) find what begins at a variable before anything is emitted, and emit it through the
    methods here that have no underscore.
    """

    def __init__(self, function: relax.Function, machine: Machine):
        self.function, self.machine = function, machine
        self.bindings = Bindings(function)
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, Value] = {}
        self.left = Counter(self.bindings.reads)  # readers that are still to come
        self.rewrites = _rewrites()
        self.matches: dict[relax.Var, Match] = {}  # by the variable that holds the result
        self.claimed: set[relax.Var] = set()

    def run(self, name: str) -> tvm.IRModule:
        """The function and the operators it calls as a module."""
        parameters = [relax.Var(param.name, param.ty) for param in self.function.params]
        for old, new in zip(self.function.params, parameters, strict=True):
            self.values[old] = self._received(new, foreign())
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
        """Find what begins at ``var``, and keep its variables from other matches."""
        if var in self.claimed:
            return
        for rewrite in self.rewrites.get(operator(value), ()):
            match = rewrite.find(self.bindings, var, self.claimed)
            if match is not None:
                self.matches[match.last] = match
                self.claimed.update(match.bound)
                return

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        match = self.matches.get(var)
        if match is None and var in self.claimed:
            return
        found = match.emit(self) if match else None
        if found is None:
            found = self._other(value)
            self.read(*operands(value))
        self.values[var] = found

    def _other(self, value: relax.Expr) -> Value:
        """An expression that is not ours to compute, on tensors."""
        if isinstance(value, relax.Var):
            return self.values[value]
        if isinstance(value, relax.TupleGetItem) and isinstance(self.values.get(value.tuple_value), tuple):
            return self.values[value.tuple_value][int(value.index)]
        made_of = frozenset().union(*(memories_of(self.values[var]) for var in operands(value)))
        if any(is_tensor_constant(leaf) for leaf in leaves(value)):
            made_of |= foreign()  # which may be returned as it is
        return self._received(self.builder.emit(substitute(value, self.tensor)), made_of | owned())

    # What a variable of the old function has become

    def _received(self, expr: relax.Expr, memories: frozenset[Memory]) -> View | Other:
        """A new variable or a constant as a view, if it is a 4-dimensional tensor of a precision with elements."""
        shape = shape_of(expr)
        images = (
            shape is not None and len(shape) == 4 and 0 not in shape and precision_of(str(expr.ty.dtype)) is not None
        )
        return whole_view(Storage(expr, shape, memories)) if images else Other(expr, memories)

    def view(self, var: relax.Var) -> View | None:
        """The value of ``var`` as a view, None where it is not a 4-dimensional tensor."""
        value = self.values.get(var)
        if isinstance(value, Pending):
            value = self.values[var] = value.write(fresh(value.channels))
        if not isinstance(value, View):
            return None
        check_current(value, var.name)
        return value

    def tensor(self, var: relax.Var) -> relax.Expr:
        """The value of ``var`` as a tensor of its own, for an operator that is not ours."""
        view, value = self.view(var), self.values[var]
        if isinstance(value, tuple):
            return relax.Tuple([self.whole(each).storage.var for each in value])
        return value.expr if view is None else self.whole(view).storage.var

    def whole(self, view: View) -> View:
        """The same value with its planes in order: copied, if they are not."""
        return view if view.whole else copied(self, view, fresh(len(view.planes)))

    def value_of(self, field: relax.Expr) -> Value:
        """What a field of a tuple has become: a variable or a constant."""
        if isinstance(field, relax.Var):
            return self.values[field]
        return self._received(field, foreign())

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

    def concatenated(self, var: relax.Var) -> bool:
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

    # Operators

    def laid_out(self, kernel: Operator) -> Operator:
        """The operator with weights and scratch laid out for its template's tiles on this machine."""
        return registry.laid_out(kernel, self.machine)

    def emit(self, kernel: Operator, data: View, others: list[relax.Expr], place: Place, non_negative: bool) -> View:
        """Call an operator that makes planes of those of ``data``, in place where ``place`` names a tensor that exists.

        What it writes there are other planes than those it reads.
        """
        storage, window, arguments = place.storage, place.window, [data.storage.var, *others]
        if window.scattered:
            arguments = [*arguments, relax.const(np.array(place.planes, INDEX))]
        if window.shared:
            arguments = [*arguments, storage.var]
        if storage is None:
            storage = Storage(self.call(kernel, arguments), kernel.output_shape, owned())
        else:
            # An addend that is overwritten is two operands that are one tensor.
            storage.var = self.call(kernel, arguments, storage.var, alone=window.shared)
            storage.written(place.planes)
            check_current(data, registry.entry_of(kernel).name)
        return view_of(storage, place.planes, non_negative)

    def call(
        self, kernel: Operator, arguments: list[relax.Expr], written: relax.Expr | None = None, alone: bool = True
    ) -> relax.Var:
        """The result of an operator: a fresh tensor, or ``written``; ``alone`` unless two operands are one tensor."""
        attributes = {"op_pattern": OPAQUE, "tirx.noalias": alone}
        function = kernel.function().with_attr(attributes).without_attr("global_symbol")
        variable = self.builder.add_func(function, registry.entry_of(kernel).name)
        result = relax.TensorType(kernel.output_shape, kernel.result_dtype)
        if written is None:
            return self.builder.emit(relax.call_tir(variable, arguments, result))
        call = relax.op.call_tir_inplace(variable, [*arguments, written], len(arguments), result)
        return self.builder.emit(call)


def check_current(view: View, name: str) -> None:
    if not view.current:
        what = f"what {name} reads is overwritten while it is needed"
        raise DeployError(what, "a fault of FuseOperators", "compile it --untuned, and report the model")
