"""The nesting that is accepted for arguments and results of an exported program."""

from __future__ import annotations

import json
import re

DEEPEST_TREE = 20
CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
KEY = re.compile(r"[\w.\-/: ]{1,200}\Z")


def check_tree(text: str) -> None:
    """How arguments or results are nested: tuples, lists and dictionaries by plain names. Raises ValueError."""
    try:
        version, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError) as exc:
        raise ValueError("its arguments are nested in an unknown way") from exc
    if version != 1:
        raise ValueError(f"version {ascii(version)[:20]} of nested arguments")
    _check_tree(tree, 0)


def _check_tree(tree: object, depth: int) -> None:
    if not isinstance(tree, dict) or tree.keys() != {"type", "context", "children_spec"} or depth > DEEPEST_TREE:
        raise ValueError("its arguments are nested in an unknown way")
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if not isinstance(children, list):
        raise ValueError("its arguments are nested in an unknown way")
    if kind is None:
        plain = context is None and not children
    elif kind in ("builtins.tuple", "builtins.list"):
        plain = context == "null"
    else:
        plain = isinstance(kind, str) and kind in CONTAINERS and _are_names(context, len(children))
    if not plain:
        raise ValueError(f"it takes or returns a {ascii(kind)[:80]}, no tuple, list or dictionary of plain names")
    for child in children:
        _check_tree(child, depth + 1)


def _are_names(context: object, count: int) -> bool:
    try:
        names = json.loads(context)
    except (TypeError, ValueError, RecursionError):
        return False
    if not isinstance(names, list) or not len(names) == count == len(set(map(str, names))):
        return False
    return all(type(name) is int or (isinstance(name, str) and KEY.match(name)) for name in names)
