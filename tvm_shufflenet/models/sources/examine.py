"""Validates an exported program before TVM imports it. Each refusal names the tensors, operators and lines at fault."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx import Node

from ...errors import BadInput, ImportFailed
from ...signature import refuse_undeployable
from ...support.tracebacks import recorded_at
from ..exporting import signature_of

LINES_PER_OPERATOR = 3
NAMES_PER_KIND = 8
LARGEST_BYTES = 4 * 2**30


def examine(program: ExportedProgram) -> ExportedProgram:
    """``program`` in core operators, fit to be imported: one float32 tensor in, one out, inference alone.

    Raises ImportFailed for training mode, dynamic shapes, other inputs or outputs, state that an inference changes
    and random numbers; BadInput for weights that are no numbers.
    """
    refuse_undeployable(signature_of(program), "the model")
    _check_inference(program)
    _check_weights(program)
    program = decomposed(program)
    _check_state(program)
    _check_sizes(program)
    return program


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """``program`` in the core operators of ATen, as TVM's importer wants it. Raises ImportFailed."""
    if any(tensor.layout != torch.strided for tensor in _tensors(program).values()):
        raise ImportFailed("the model has sparse tensors", "", "make them dense in the model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own habits here
        return program.run_decompositions(_decompositions())


def _decompositions() -> dict:
    """torch's, without those of operators whose own converters are better: a resize is no indexing."""
    table = torch.export.default_decompositions()
    for operator in list(table):
        if "upsample" in operator.name():
            del table[operator]
    return table


def _check_inference(program: ExportedProgram) -> None:
    """Nothing computes as in training. Raises ImportFailed."""
    at_fault = [node for node in _calls(program) if _trains(node)]
    if at_fault:
        raise ImportFailed(
            f"the model is in training mode: {_listed(at_fault)}",
            "exported before model.eval(), or a functional call with training=True",
            "call model.eval() and export it again",
        )


def _trains(node: Node) -> bool:
    """Whether an operator is told to train: batch statistics, active dropout.

    A normalisation that has no running statistics uses those of its input in inference too, as it is written; and a
    dropout of nothing drops nothing.
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in node.target._schema.arguments]
    values = dict(zip(names, node.args, strict=False)) | node.kwargs
    if not (values.get("training") or values.get("train")):
        return False
    if "norm" in node.target.__name__:
        return values.get("running_mean") is not None
    return values.get("p") != 0


def _check_state(program: ExportedProgram) -> None:
    """The answer depends on the input alone. ``program`` is decomposed. Raises ImportFailed."""
    random = [node for node in _calls(program) if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())]
    if random:
        raise ImportFailed(
            f"the model draws random numbers: {_listed(random)}", "", "leave that out of the model's inference"
        )
    changed = [s.target for s in program.graph_signature.output_specs if s.kind is OutputKind.BUFFER_MUTATION]
    if changed:
        raise ImportFailed(
            f"the model changes its own state with every inference: {_some(changed)}",
            "a counter or a cache in a buffer",
            "leave that out of the model's inference",
        )


def _check_sizes(program: ExportedProgram) -> None:
    """No tensor is too large to be computed here, whatever a file said of it. Raises ImportFailed."""
    for node in _calls(program):
        found = node.meta.get("val")
        for tensor in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(tensor, torch.Tensor) and tensor.numel() * tensor.element_size() > LARGEST_BYTES:
                raise ImportFailed(
                    f"the model makes a tensor of {tensor.numel() * tensor.element_size() / 2**30:.3g} GB: "
                    f"{_listed([node])}",
                    "its input or a factor of its shapes is far too large",
                    "give a smaller --input-shape",
                )


def _check_weights(program: ExportedProgram) -> None:
    """No used tensor holds NaN, no parameter infinity (a mask may). Raises BadInput."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    tensors = _tensors(program)
    specs = [spec for spec in program.graph_signature.input_specs if spec.target in tensors and spec.arg.name in used]
    spoilt = [spec.target for spec in specs if not _is_sound(spec, tensors[spec.target])]
    if spoilt:
        raise BadInput(
            f"the model holds NaN or infinity in {_some(spoilt)}",
            "a training run that diverged",
            "take an earlier checkpoint",
        )


def _is_sound(spec: InputSpec, tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    return not (torch.isnan(tensor) if spec.kind is not InputKind.PARAMETER else ~torch.isfinite(tensor)).any()


def _tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants of a program by name."""
    known = {**program.constants, **program.state_dict}
    return {name: value for name, value in known.items() if isinstance(value, torch.Tensor)}


def _calls(program: ExportedProgram) -> list[Node]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def unknown_operators(program: ExportedProgram, known: Iterable[str], computed: Iterable[Node]) -> ImportFailed | None:
    """The refusal that names every operator outside ``known``, with its lines; None where there is none.

    The calls ``computed`` depend on constants alone: their values are what is imported.
    """
    known, computed = set(known), set(computed)
    unknown = [node for node in _calls(program) if node.target.__name__ not in known and node not in computed]
    if not unknown:
        return None
    return ImportFailed(
        f"TVM cannot import the model: it has no counterpart of {_listed(unknown)}",
        "operators outside what TVM's importer knows",
        "write them with other operators in the model",
    )


def refused_operator(node: Node | None, reason: str) -> ImportFailed:
    """The refusal of an operator that the importer knows, but not in this form; or without a ``node``, of the graph."""
    return ImportFailed(
        f"TVM cannot import the model: {f'{_listed([node])}: ' if node else ''}{reason}",
        "a form of this operator that TVM's importer does not know" if node else "",
        "write it with other operators in the model",
    )


def _listed(nodes: list[Node]) -> str:
    """``aten.lgamma (net.py:7), aten.bessel (net.py:4, net.py:9)``: operators with the lines of the user's model."""
    places: dict[str, list[str]] = {}
    for node in nodes:
        found = places.setdefault(_name(node), [])
        place = recorded_at(node.meta.get("stack_trace"))
        if place and place not in found:
            found.append(place)
    return ", ".join(
        name + (f" ({_some(lines, LINES_PER_OPERATOR)})" if lines else "") for name, lines in places.items()
    )


def _name(node: Node) -> str:
    return str(node.target).removesuffix(".default") if hasattr(node.target, "_schema") else node.target.__name__


def _some(names: list[str], most: int = NAMES_PER_KIND) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
