"""Pass: rewrites every form of channel shuffle as reshape, permute_dims, reshape.

People write it with views and transposes over five axes or over flattened planes, with einops, by indexing with a
permutation, by concatenating slices or stacking chunks; exporters add reshapes of their own. So it is recognised by
what it does, not by how: whatever only moves elements is run in NumPy on a tensor of its own element positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..bindings import constant, operator, shape_of
from ..views import shuffled


def _integers(values) -> list[int]:
    return [int(value) for value in values]


# What an operator does to the elements of its operands. KeyError, ValueError and the like: nothing this pass knows.


def _known_shape(call: relax.Call) -> tuple[int, ...]:
    shape = shape_of(call)
    if shape is None:
        raise ValueError("a dynamic shape")
    return shape


def _reshape(call: relax.Call, data: np.ndarray) -> np.ndarray:
    return data.reshape(_known_shape(call))


def _permute_dims(call: relax.Call, data: np.ndarray) -> np.ndarray:
    return data.transpose(None if call.attrs.axes is None else _integers(call.attrs.axes))


def _astype(call: relax.Call, data: np.ndarray) -> np.ndarray:
    if call.ty.dtype != call.args[0].ty.dtype:
        raise ValueError("a cast that rounds")
    return data


def _in_bounds(indices: np.ndarray) -> np.ndarray:
    if indices.min() < 0:  # NumPy would count from the end, TVM reads before the tensor
        raise IndexError("a negative index")
    return indices


def _take(call: relax.Call, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(data, _in_bounds(indices), axis=int(call.attrs.axis))


def _gather_elements(call: relax.Call, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take_along_axis(data, _in_bounds(indices), axis=int(call.attrs.axis))


def _gather_nd(call: relax.Call, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    if int(call.attrs.batch_dims) != 0:
        raise ValueError("other indices for each of a batch")
    return data[tuple(np.moveaxis(_in_bounds(indices), -1, 0))]


def _strided_slice(call: relax.Call, data: np.ndarray) -> np.ndarray:
    axes, begin, end = (_integers(values) for values in call.args[1:4])
    strides = _integers(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    if min(begin) < 0 or min(strides) < 1:
        raise ValueError("a slice from the end")
    cut = [slice(None)] * data.ndim
    for axis, *bounds in zip(axes, begin, end, strides, strict=True):
        cut[axis] = slice(*bounds)
    return data[tuple(cut)]


def _split(call: relax.Call, data: np.ndarray) -> list[np.ndarray]:
    sections = call.attrs.indices_or_sections
    sections = int(sections) if isinstance(sections, tirx.IntImm) else _integers(sections)
    return np.split(data, sections, axis=int(call.attrs.axis))


def _concat(call: relax.Call, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts, axis=int(call.attrs.axis))


def _stack(call: relax.Call, parts: list[np.ndarray]) -> np.ndarray:
    return np.stack(parts, axis=int(call.attrs.axis))


def _broadcast_to(call: relax.Call, data: np.ndarray) -> np.ndarray:
    return np.broadcast_to(data, _known_shape(call))


def _arange(call: relax.Call, *bounds: int) -> np.ndarray:
    return np.arange(*bounds)


MOVES: dict[str, Callable] = {
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.flatten": _reshape,
    "relax.permute_dims": _permute_dims,
    "relax.astype": _astype,
    "relax.take": _take,
    "relax.gather_elements": _gather_elements,
    "relax.gather_nd": _gather_nd,
    "relax.strided_slice": _strided_slice,
    "relax.split": _split,
    "relax.concat": _concat,
    "relax.stack": _stack,
    # These two make the indices of a permutation.
    "relax.broadcast_to": _broadcast_to,
    "relax.arange": _arange,
}
# Operands after these are axes and bounds, which a move reads from its call.
OPERANDS = {"relax.take": 2, "relax.gather_elements": 2, "relax.gather_nd": 2, "relax.arange": 3}


def _move_of(expr: relax.Expr | None) -> str | None:
    """The name of the operator that ``expr`` calls, where it is one of ``MOVES``."""
    name = operator(expr)
    return name if name in MOVES else None


@dataclass(frozen=True)
class Rearrangement:
    """``source`` shuffled by ``groups``; with ``parts`` above 1, that part ``index`` of equal parts of its channels.

    ``source`` is (N, C, H, W), or several equal tensors that stand for their concatenation along the channels. With
    one group nothing is shuffled.
    """

    source: tuple[relax.Var, ...]
    groups: int
    parts: int = 1
    index: int = 0

    @property
    def family(self) -> tuple:
        """What it has in common with the other parts of the same tensor."""
        return self.source, self.groups, self.parts


def _selected(positions: np.ndarray, shape: tuple[int, ...]) -> list[int] | None:
    """The channels of ``shape`` that ``positions`` consists of, None where it is not whole channels in place."""
    batch, channels, height, width = shape
    if positions.ndim != 4 or (positions.shape[0], *positions.shape[2:]) != (batch, height, width):
        return None
    order = positions[0, :, 0, 0] // (height * width)
    if order.max() >= channels:
        return None
    everything = np.arange(np.prod(shape), dtype=positions.dtype).reshape(shape)
    return order.tolist() if np.array_equal(everything[:, order], positions) else None


def _shuffled_part(order: list[int], channels: int) -> tuple[int, int, int] | None:
    """(groups, parts, index) such that ``order`` is that part of a shuffle of all channels; the fewest groups."""
    if channels % len(order):
        return None
    parts = channels // len(order)
    for groups in range(1, channels + 1):
        if channels % groups == 0:
            pieces = np.reshape(shuffled(channels, groups), (parts, -1)).tolist()
            if order in pieces:
                return groups, parts, pieces.index(order)
    return None


class Rearrangements:
    """Which bindings of one block rearrange the channels of an earlier tensor, and how."""

    def __init__(self, block: relax.BindingBlock):
        self.values = {
            binding.var: binding.value for binding in block.bindings if isinstance(binding, relax.VarBinding)
        }
        self.lineage: dict[relax.Var, list[relax.Var]] = {}

    def found(self) -> dict[relax.Var, Rearrangement]:
        """Parts are reported where all parts of a tensor are there: one alone is cheaper as it is."""
        every = {var: found for var in self.values if (found := self._find(var)) is not None}
        present = {}
        for found in every.values():
            present.setdefault(found.family, set()).add(found.index)
        return {var: found for var, found in every.items() if len(present[found.family]) == found.parts}

    def _find(self, var: relax.Var) -> Rearrangement | None:
        """The furthest tensor that ``var`` is a rearrangement of: two shuffles that make one become one."""
        if len(shape_of(var) or ()) != 4 or isinstance(self.values[var], relax.TupleGetItem):
            return None
        ancestors = self._ancestors(var)
        every = [found for tensor in ancestors if (found := self._compare(var, (tensor,))) is not None]
        if not every and ancestors:
            return self._of_a_join(var, ancestors[-1])
        return max(reversed(every), key=lambda found: found.parts == 1, default=None)

    def _of_a_join(self, var: relax.Var, join: relax.Var) -> Rearrangement | None:
        """Several tensors interleaved by stacking them is their concatenation, shuffled."""
        joined = self.values.get(join)
        if _move_of(joined) not in ("relax.concat", "relax.stack") or not isinstance(joined.args[0], relax.Tuple):
            return None
        tensors = tuple(joined.args[0])
        distinct = all(isinstance(tensor, relax.Var) for tensor in tensors) and len(set(tensors)) == len(tensors)
        if not distinct or len({shape_of(tensor) for tensor in tensors}) != 1:
            return None
        return self._compare(var, tensors)

    def _ancestors(self, var: relax.Var) -> list[relax.Var]:
        """The tensors that ``var`` is made of by moving elements, each alone, nearest first."""
        if var not in self.lineage:
            parent = self._parent(var)
            self.lineage[var] = [] if parent is None else [parent, *self._ancestors(parent)]
        return self.lineage[var]

    def _parent(self, var: relax.Var) -> relax.Var | None:
        value = self.values.get(var)
        if isinstance(value, relax.TupleGetItem):
            value = value.tuple_value
        elif _move_of(value):
            value = value.args[0]
        if isinstance(value, relax.Tuple):
            return self._common_ancestor(list(value))
        return value if isinstance(value, relax.Var) else None

    def _common_ancestor(self, tensors: list[relax.Expr]) -> relax.Var | None:
        if not tensors or not all(isinstance(tensor, relax.Var) for tensor in tensors):
            return None
        first, *others = [[tensor, *self._ancestors(tensor)] for tensor in tensors]
        return next((var for var in first if all(var in other for other in others)), None)

    def _compare(self, var: relax.Var, source: tuple[relax.Var, ...]) -> Rearrangement | None:
        """What ``var`` is of ``source``, None where that is no rearrangement of channels."""
        shape, wanted = shape_of(source[0]), shape_of(var)
        if shape is None or len(shape) != 4 or 0 in shape:
            return None
        whole = (shape[0], len(source) * shape[1], *shape[2:])
        if whole[1] < wanted[1] or (whole[0], *whole[2:]) != (wanted[0], *wanted[2:]):
            return None
        positions = np.arange(np.prod(whole), dtype=np.int32).reshape(whole)
        known = dict(zip(source, np.split(positions, len(source), axis=1), strict=True))
        try:
            order = _selected(self._run(var, known), whole)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return None  # an operand that is no constant, or a move with options that this pass does not know
        part = order and _shuffled_part(order, whole[1])
        return Rearrangement(source, *part) if part else None

    def _run(self, expr: relax.Expr, known: dict[relax.Var, np.ndarray]):
        """The elements that ``expr`` consists of, given those of the tensors in ``known``. Raises LookupError."""
        if isinstance(expr, relax.Var):
            if expr not in known:
                known[expr] = self._run(self.values[expr], known)
            return known[expr]
        if (value := constant(expr)) is not None:
            return value
        if isinstance(expr, tirx.IntImm):
            return int(expr)
        if isinstance(expr, relax.Tuple):
            return [self._run(field, known) for field in expr]
        if isinstance(expr, relax.TupleGetItem):
            return self._run(expr.tuple_value, known)[int(expr.index)]
        move = MOVES[_move_of(expr)]
        return move(expr, *(self._run(operand, known) for operand in expr.args[: OPERANDS.get(expr.op.name, 1)]))


@mutator
class _Rewrite(PyExprMutator):
    """Each rearrangement is written anew; what it was made of stays for its other readers.

    ``blocks`` has the rearrangements of each block. What one block computes no other can read.
    """

    def __init__(self, mod: tvm.IRModule, blocks: list[dict[relax.Var, Rearrangement]]):
        super().__init__(mod)
        self.found = {var: (number, found) for number, block in enumerate(blocks) for var, found in block.items()}
        self.made = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self.found:
            binding = relax.VarBinding(binding.var, self._rearranged(*self.found[binding.var]))
        super().visit_var_binding_(binding)

    def _rearranged(self, block: int, found: Rearrangement) -> relax.Expr:
        whole = self._once((block, found.source, found.groups), lambda: self._whole(block, found))
        if found.parts == 1:
            return whole
        step = shape_of(whole)[1] // found.parts
        cuts = [step * part for part in range(1, found.parts)]
        pieces = self._once((block, *found.family), lambda: relax.op.split(whole, cuts, axis=1))
        return relax.TupleGetItem(pieces, found.index)

    def _whole(self, block: int, found: Rearrangement) -> relax.Expr:
        """The whole source, shuffled, in the spelling that FuseOperators knows."""
        data = [self.visit_expr(tensor) for tensor in found.source]
        whole = data[0] if len(data) == 1 else self._once((block, found.source), lambda: relax.op.concat(data, axis=1))
        if found.groups == 1:
            return whole
        batch, channels, height, width = shape = shape_of(whole)
        split = relax.op.reshape(whole, (batch, found.groups, channels // found.groups, height, width))
        swapped = relax.op.permute_dims(self.builder_.emit(split), [0, 2, 1, 3, 4])
        return relax.op.reshape(self.builder_.emit(swapped), shape)

    def _once(self, key: tuple, make: Callable[[], relax.Expr]) -> relax.Var:
        if key not in self.made:
            made = make()
            self.made[key] = made if isinstance(made, relax.Var) else self.builder_.emit(made)
        return self.made[key]


@tvm.transform.module_pass(opt_level=0, name="CanonicalizeShuffles")
class CanonicalizeShuffles:
    """Every spelling of a channel shuffle by g of an (N, C, H, W) tensor, 1 < g < C, becomes one:

    reshape to (N, g, C/g, H, W), permute_dims [0, 2, 1, 3, 4], reshape to (N, C, H, W). Shuffles in a row that are one
    shuffle become that, those that undo each other vanish. Channels taken apart into equal parts, after a shuffle or
    without one, become a split along the channels. Everything else is left alone.
    """

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        functions = [(name, each) for name, each in mod.functions_items() if isinstance(each, relax.Function)]
        blocks = [Rearrangements(block).found() for _, function in functions for block in function.body.blocks]
        if not any(blocks):
            return mod
        rewrite = _Rewrite(mod, blocks)
        for name, function in functions:
            rewrite.builder_.update_func(name, rewrite.visit_expr(function))
        passes = [relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination()]
        return tvm.transform.Sequential(passes)(rewrite.builder_.get())
