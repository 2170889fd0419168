"""The complete arguments of an ATen operator by its schema, defaults included."""

from __future__ import annotations

import torch
from torch.fx import Node

Schema = torch._C.FunctionSchema


def schema_of(node: Node) -> Schema | None:
    """The schema of the operator that ``node`` calls; None for Python's own functions, such as ``getitem``."""
    return getattr(node.target, "_schema", None)


def bound(node: Node) -> dict[str, object]:
    """Every argument of the operator by its name in the schema, defaults filled in. Tensors are nodes."""
    arguments = schema_of(node).arguments
    given = dict(zip((each.name for each in arguments if not each.kwarg_only), node.args, strict=False))
    given |= node.kwargs
    return {each.name: given.get(each.name, each.default_value) for each in arguments}


def away_from_default(node: Node) -> list[str]:
    """Names of the optional arguments that ``node`` sets to something else than the schema's default."""
    values = bound(node)
    return [
        each.name
        for each in schema_of(node).arguments
        if each.has_default_value() and not _is(values[each.name], each.default_value)
    ]


def _is(value: object, default: object) -> bool:
    """Whether a value is the default, which stands for a list of itself too (``int[2] padding=0``)."""
    if isinstance(value, Node):
        return False
    if isinstance(value, list | tuple):
        wanted = default if isinstance(default, list | tuple) else [default] * len(value)
        return list(value) == list(wanted)
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def write_out(node: Node) -> None:
    """Give ``node`` its arguments as TVM's converters look for them: by position, keyword-only ones by name.

    Trailing defaults are left out.
    """
    arguments = schema_of(node).arguments
    values = bound(node)
    positional = [each for each in arguments if not each.kwarg_only]
    while positional and positional[-1].has_default_value():
        if not _is(values[positional[-1].name], positional[-1].default_value):
            break
        positional.pop()
    node.args = tuple(values[each.name] for each in positional)
    node.kwargs = {
        each.name: values[each.name]
        for each in arguments
        if each.kwarg_only and not (each.has_default_value() and _is(values[each.name], each.default_value))
    }
