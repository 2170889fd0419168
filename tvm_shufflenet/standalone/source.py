"""Generates the model's C source from its program, by the templates."""

from __future__ import annotations

import functools
import keyword
import re
from pathlib import Path

from .program import Address, OutputCopy, Program, Step

HERE = Path(__file__).parent
TEMPLATES, NATIVE = HERE / "templates", HERE / "native"
FUNCTIONS = (
    *("interface", "create", "destroy", "threads", "run", "last_error", "status_text"),
    *("input_count", "input", "output_count", "output"),
)
C_TYPES = {
    **{f"int{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"uint{bits}_t" for bits in (8, 16, 32, 64)},
    **{"float16": "uint16_t", "float32": "float", "float64": "double", "bool": "uint8_t"},
}


def identifier(name: str) -> str:
    """``name`` as a name in C, C++ and Python."""
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{cleaned}" if not cleaned or cleaned[0].isdigit() or keyword.iskeyword(cleaned) else cleaned


def symbols(model: str) -> list[str]:
    """Everything that the library of ``model`` exports."""
    return [f"{identifier(model)}_{function}" for function in FUNCTIONS]


def render(template: str, model: str, program: Program, **more) -> str:
    """``template`` filled in for a model."""
    return (
        _environment()
        .get_template(template)
        .render(
            model=model,
            name=identifier(model),
            symbols=symbols(model),
            interface=(NATIVE / "interface.h").read_text(),
            c_types=C_TYPES,
            inputs=program.inputs,
            outputs=program.outputs,
            phases=_declarations(program),
            steps=[call for step in program.steps for call in _calls(step)],
            copies=[_copy(copy) for copy in program.copies],
            arena_bytes=program.arena_bytes,
            workspace_bytes=program.workspace_bytes,
            weight_bytes=len(program.weights),
            **more,
        )
    )


@functools.cache
def _environment():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["identifier"] = identifier
    return environment


def _declarations(program: Program) -> list[dict]:
    kernels = {step.kernel.name: step.kernel for step in program.steps}
    return [
        {"symbol": phase.symbol, "pointers": kernel.arguments + len(kernel.shared) + len(phase.private)}
        for kernel in kernels.values()
        for phase in kernel.phases
    ]


def _calls(step: Step) -> list[dict]:
    """One call for each phase of the kernel."""
    addresses = [_address(each) for each in (*step.arguments, *step.shared)]
    return [
        {
            "name": step.kernel.name,
            "symbol": phase.symbol,
            "extent": phase.extent,
            "addresses": [*addresses, *(f"WORKSPACE({offset})" for offset in phase.private_offsets)],
        }
        for phase in step.kernel.phases
    ]


def _copy(copy: OutputCopy) -> dict:
    return {"source": _address(copy.source), "output": copy.output, "bytes": copy.bytes}


def _address(address: Address) -> str:
    region = {"arena": "ARENA", "weights": "WEIGHTS", "inputs": "INPUT", "outputs": "OUTPUT"}[address.region]
    return f"{region}({address.offset})"
