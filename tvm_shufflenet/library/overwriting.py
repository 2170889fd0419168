"""Proves of a lowered network that no buffer is overwritten while its contents are still needed.

``FuseOperators`` decides what is written in place, TVM decides afterwards what is a view and which tensors share a
storage, and neither asks the other. So the program that comes out is checked, at every compile:

- ``check_writes`` where views are known and writes in place still have names of their own: a call that writes to a
  tensor is the last reader of every value that lies in the same memory, and never writes to an input or a constant.
- ``check_storages`` where memory is planned: tensors of one storage are not in use at the same time.

Planes within a tensor are beyond both: ``FuseOperators`` counts the writes to each (``graph/views.py``).
"""

from __future__ import annotations

import itertools
from collections import defaultdict

import tvm
from tvm import ir, relax

from ..errors import DeployError
from ..graph.bindings import Bindings, constant, operands, operator

# The memories that a value may lie in, for a tuple those of each field.
Memories = frozenset | tuple

# What TVM computes without a copy, as a view of the first operand.
VIEWS = ("relax.reshape", "relax.flatten", "relax.squeeze", "relax.expand_dims", "relax.memory.view")
_FOREIGN = object()  # memory of the caller's or of constants


class _Walk:
    """The memories of each variable of a straight function, and the binding that reads it last."""

    def __init__(self, function: relax.Function):
        self.bindings = Bindings(function)
        self.lies_in: dict[relax.Var, Memories] = {
            param: _shaped(param.ty, lambda: frozenset([_FOREIGN])) for param in function.params
        }
        self.last_read = {
            var: index for index, binding in enumerate(self.bindings.list) for var in operands(binding.value)
        }
        self.last_read.update((var, len(self.bindings.list)) for var in operands(function.body.body))

    def check(self) -> None:
        """Raises DeployError for a value that is overwritten while it is needed."""
        for index, binding in enumerate(self.bindings.list):
            if operator(binding.value) == "relax.call_tir_inplace":
                for written in _overwritten(binding.value):
                    self._check_write(index, written)
            self.lies_in[binding.var] = self.memories(binding.value, binding.var.ty)

    def memories(self, expr: relax.Expr, of_type: ir.Type) -> Memories:
        """Where ``expr`` may lie. What nothing is known of may lie in memory of its own or in any operand's."""
        if isinstance(expr, relax.Var):
            return self.lies_in[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(self.memories(field, field.ty) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return _item(self.memories(expr.tuple_value, expr.tuple_value.ty), int(expr.index))
        if not isinstance(expr, relax.Call):
            return frozenset([_FOREIGN]) if constant(expr) is not None else frozenset()
        if operator(expr) in VIEWS:
            return self.memories(expr.args[0], expr.args[0].ty)
        if operator(expr) == "relax.call_tir":
            return _shaped(of_type, _new)
        if operator(expr) == "relax.call_tir_inplace":
            results = tuple(_new() if tensor is None else self._of(tensor) for tensor in _results(expr))
            return results if isinstance(of_type, ir.TupleType) else results[0]
        return _shaped(of_type, lambda: frozenset().union(_new(), *(self._of(arg) for arg in expr.args)))

    def _of(self, expr: relax.Expr) -> frozenset:
        return _all(self.memories(expr, getattr(expr, "ty", None)))

    def _check_write(self, index: int, written: relax.Expr) -> None:
        memories = self._of(written)
        if _FOREIGN in memories:
            raise _fault(self.bindings.list[index].var, "an input or a constant")
        for var, lies_in in self.lies_in.items():
            if self.last_read.get(var, -1) > index and not memories.isdisjoint(_all(lies_in)):
                raise _fault(self.bindings.list[index].var, f"{var.name}, which is read later")


def _new() -> frozenset:
    return frozenset([object()])


def _shaped(of_type: ir.Type, make) -> Memories:
    """What ``make`` returns, once for each tensor of a type."""
    if isinstance(of_type, ir.TupleType):
        return tuple(_shaped(field, make) for field in of_type.fields)
    return make()


def _all(memories: Memories) -> frozenset:
    return frozenset().union(*map(_all, memories)) if isinstance(memories, tuple) else memories


def _results(call: relax.Call) -> list[relax.Expr | None]:
    """For each result of a call that writes in place the operand that becomes it, None for a tensor of its own."""
    arguments = call.args[1].fields
    return [arguments[int(index)] if int(index) >= 0 else None for index in call.attrs.inplace_indices]


def _overwritten(call: relax.Call) -> list[relax.Expr]:
    return [tensor for tensor in _results(call) if tensor is not None]


def _fault(writer: relax.Var, what: str) -> DeployError:
    return DeployError(
        f"the call that makes {writer.name} would overwrite {what}",
        "a fault in how operators are fused",
        "compile it --untuned, and report the model",
    )


def check_writes(module: tvm.IRModule) -> None:
    """``module`` is what RewriteDataflowReshape returns. Raises DeployError."""
    for function in _straight(module):
        _Walk(function).check()


def check_storages(module: tvm.IRModule) -> None:
    """``module`` is what StaticPlanBlockMemory returns. Raises DeployError."""
    for function in _straight(module):
        _check_storages(Bindings(function))


def _check_storages(bindings: Bindings) -> None:
    """A tensor is in use from its allocation to the last call that it or a view of it is handed to."""
    named: dict[relax.Var, Memories] = {}  # which allocated tensors a variable stands for
    storage_of: dict[relax.Var, relax.Var] = {}
    first: dict[relax.Var, int] = {}
    last: dict[relax.Var, int] = {}  # none where nobody uses it

    def tensors(expr: relax.Expr) -> Memories:
        if isinstance(expr, relax.Var):
            return named.get(expr, frozenset())
        if isinstance(expr, relax.Tuple):
            return tuple(map(tensors, expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return _item(tensors(expr.tuple_value), int(expr.index))
        return tensors(expr.args[0]) if operator(expr) in VIEWS else frozenset()

    for index, binding in enumerate(bindings.list):
        value = binding.value
        if operator(value) == "relax.memory.alloc_tensor":
            named[binding.var] = frozenset([binding.var])
            storage_of[binding.var], first[binding.var] = value.args[0], index
        else:
            named[binding.var] = tensors(value)
        if isinstance(value, relax.Call) and operator(value) not in VIEWS:
            last.update((tensor, index) for arg in value.args for tensor in _all(tensors(arg)))
    last.update((tensor, len(bindings.list)) for tensor in _all(tensors(bindings.function.body.body)))
    sharing = defaultdict(list)
    for tensor, storage in storage_of.items():
        sharing[storage].append(tensor)
    for of_one in sharing.values():
        for earlier, later in itertools.pairwise(sorted(of_one, key=first.__getitem__)):
            if last.get(earlier, -1) > first[later]:
                raise _fault(later, f"{earlier.name}, which is in use")


def _item(memories: Memories, index: int) -> Memories:
    return memories[index] if isinstance(memories, tuple) else memories


def _straight(mod: tvm.IRModule) -> list[relax.Function]:
    functions = [each for _, each in mod.functions_items() if isinstance(each, relax.Function)]
    return [function for function in functions if Bindings(function).straight]
