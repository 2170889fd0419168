"""Validates the contents of an exported program: its JSON, operators and sizes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from ...support.tracebacks import recorded_at
from .exported_schema import ATEN, MOST_NODES, SYMBOLIC, WRAPPERS, ExportedProgram, Node, SymIntArgument

LARGEST_JSON = 64 * 2**20
SIZE_BITS, LONGEST_SIZE_BITS = 64, 4096  # of a size, and of what is computed from sizes


class Refused(ValueError):
    """Something in a file that an exported program of a network does not need; the text says what."""


def read_json(kind: type, what: str, content: bytes):
    """``content`` as ``kind``. Raises Refused, by ``what`` it is and where in it."""
    if len(content) > LARGEST_JSON:
        raise Refused(f"{what} is {len(content) >> 20} MB of JSON")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as exc:
        raise Refused(f"{what}: {_readable(exc)}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refused(f"{what} is no JSON, perhaps cut short") from exc
    except (RecursionError, MemoryError) as exc:
        raise Refused(f"{what} is nested too deeply") from exc


def _readable(exc: msgspec.ValidationError) -> str:
    text = str(exc).split("\n")[0]
    if "`as_custom_obj`" in text or "`custom_obj`" in text:
        return "it holds an object of a class, which torch would unpickle"
    if "use_pickle" in text:
        return "it holds pickled objects beside its tensors, which could run code"
    return ascii(text)[1:-1][:300]


def check_operators(program: ExportedProgram, known: Callable[[str, str], bool]) -> None:
    """Every operator of ATen is one that ``known(name, overload)`` knows. Raises Refused, with those at fault."""
    nodes = [node for graph in program.graph_module.graph.graphs() for node in graph.nodes]
    if len(nodes) > MOST_NODES:
        raise Refused(f"it has {len(nodes)} operators")
    wanted: dict[tuple[str, str], Node] = {}
    for node in nodes:
        if found := ATEN.match(node.target):
            wanted.setdefault(found.groups(), node)
        if any(each.arg.as_graph is not UNSET for each in node.inputs) and node.target not in WRAPPERS:
            raise Refused(f"{node.target!a} takes a graph")
    _check_lengths(nodes)
    unknown = [_shown(node) for (name, overload), node in wanted.items() if not known(name, overload)]
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise Refused(f"it uses {', '.join(unknown[:8])}{more}, which PyTorch does not reduce to its core operators")


def _check_lengths(nodes: list[Node]) -> None:
    """No product of sizes is longer than sizes are: squared forty times, a number fills the memory. Raises Refused."""
    bits: dict[str, int] = {}
    for node in nodes:
        if node.target not in SYMBOLIC:
            continue
        values = [each.arg.value for each in node.inputs]
        names = [value.as_name for value in values if isinstance(value, SymIntArgument)]
        lengths = [SIZE_BITS if name is UNSET else bits.get(name, SIZE_BITS) for name in names] or [SIZE_BITS]
        length = sum(lengths) if node.target == "_operator.mul" and len(lengths) > 1 else max(lengths) + 1
        if length > LONGEST_SIZE_BITS:
            raise Refused(f"{node.target} makes a size of {length} bits")
        bits.update((each.value.as_name, length) for each in node.outputs if each.kind == "as_sym_int")


def _shown(node: Node) -> str:
    """``aten.lgamma (net.py:7)``."""
    place = recorded_at(node.metadata.get("stack_trace"))
    name = node.target.removeprefix("torch.ops.").removesuffix(".default")
    return f"{name} ({place})" if place else name
