"""Which instructions the schedule of a tuning record may contain: those of the templates and of TVM's generated
sketches.

A record is text by anybody, and TVM replays whatever instructions it has: annotations that carry assembly or C, other
intrinsics, loops unrolled a billion times. So each instruction is one of those below, with attributes and numbers in
their bounds and variables that earlier instructions made. ``check_straight`` bounds what follows from them together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MOST_INSTRUCTIONS = 2000
MOST_OUTPUTS = 64
LARGEST_FACTOR = 2**24  # of a split: all pixels of a large image
LARGEST_CHOICE = 4096  # candidates of a knob: rows, unrolled steps
MOST_CHOICES = 64
LARGEST_UNROLL = 4096  # statements of straight-line code; the templates make up to some hundred
MOST_LANES = 64  # of one vector statement; a generated sketch takes 64, a template what a register holds
SCOPES = ("global", "local")
NAME = re.compile(r"[\w.\- ]{1,200}\Z")
VARIABLE = re.compile(r"[blv]\d{1,6}\Z")
POSTPROCESSING = "EnterPostproc"


class NotAdmitted(ValueError):
    """An instruction, attribute or value that no schedule of ours has; the text says which."""


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, bool) and low <= value <= high


# What is annotated, and with which values; None stands for a knob, whose candidates are bounded themselves.
ANNOTATIONS: dict[str, Callable[[Any], bool]] = {
    "pragma_loop_partition_hint": _integer(0, 1),
    "pragma_auto_unroll_max_step": _integer(0, 1024),
    "pragma_unroll_explicit": _integer(0, 1),
    "meta_schedule.parallel": _integer(0, 65536),
    "meta_schedule.vectorize": _integer(0, MOST_LANES),
    "meta_schedule.unroll_explicit": lambda value: value is None or _integer(0, 1024)(value),
    "meta_schedule.unroll_implicit": lambda value: value is None or _integer(0, 1024)(value),
    "meta_schedule.random_compute_producer": _integer(0, 1),
    "meta_schedule.tiling_structure": lambda value: isinstance(value, str) and re.fullmatch(r'"[SR]{1,12}"', value),
}
REMOVED = {*ANNOTATIONS, "schedule_rule"}


_flag, _place, _choice = _integer(0, 1), _integer(-1, 8), _integer(0, LARGEST_CHOICE)


def _is(*checks: Callable[[Any], bool]) -> Callable[[list], bool]:
    """Whether there are as many attributes as checks, and each passes its own."""
    if not checks:
        return lambda attrs: not attrs
    return lambda attrs: len(attrs) == len(checks) and all(c(a) for c, a in zip(checks, attrs, strict=True))


def _names_a_block(attrs: list) -> bool:
    return len(attrs) == 2 and isinstance(attrs[0], str) and NAME.match(attrs[0]) is not None and attrs[1] == "main"


def _is_choice(attrs: list) -> bool:
    """Candidates and their probabilities."""
    if len(attrs) != 2 or not all(isinstance(each, list) for each in attrs):
        return False
    candidates, odds = attrs
    bounded = 0 < len(candidates) == len(odds) <= MOST_CHOICES and all(map(_choice, candidates))
    return bounded and all(type(each) in (int, float) and 0 <= each <= 1 for each in odds)


def _is_scope(value: Any) -> bool:
    return isinstance(value, str) and value in SCOPES


# Of each instruction the inputs and outputs, as a pattern of b(lock), l(oop), v(alue), i(nteger), N(one), s(tring) and
# lists in parentheses, and a check of its attributes.
INSTRUCTIONS: dict[str, tuple[re.Pattern, re.Pattern, Callable[[list], bool]]] = {
    kind: (re.compile(inputs + r"\Z"), re.compile(outputs + r"\Z"), check)
    for kind, (inputs, outputs, check) in {
        "GetSBlock": ("", "b", _names_a_block),
        "GetChildBlocks": ("b", "b*", _is()),
        "GetLoops": ("b", "l*", _is()),
        "GetConsumers": ("b", "b*", _is()),
        "GetProducers": ("b", "b*", _is()),
        "SampleCategorical": ("", "v", _is_choice),
        "SamplePerfectTile": ("l", "v{1,8}", _is(_integer(1, 8), _integer(1, 4096))),
        "SampleComputeLocation": ("b", "l", _is()),
        "Split": ("l[Niv]{1,8}", "l{1,8}", _is(_flag, _flag)),
        "Fuse": ("l+", "l", _is(_flag)),
        "Reorder": ("l+", "", _is()),
        "Parallel": ("l", "", _is()),
        "Vectorize": ("l", "", _is()),
        "Unroll": ("l", "", _is()),
        "ComputeAt": ("bl", "", _is(_flag, _place)),
        "ReverseComputeAt": ("bl", "", _is(_flag, _place)),
        "ComputeInline": ("b", "", _is()),
        "ReverseComputeInline": ("b", "", _is()),
        "CacheRead": (r"b(\(b*\))?", "b", _is(_place, _is_scope)),
        "CacheWrite": (r"b(\(b*\))?", "b", _is(_place, _is_scope)),
        "SetScope": ("b", "", _is(_place, _is_scope)),
        "StorageAlign": ("b", "", _is(_place, _integer(-8, 8), _integer(1, 64), _integer(0, 64))),
        "DecomposeReduction": ("bl", "b", _is()),
        "RFactor": ("l", "b", _is(_integer(-8, 8))),
        "Annotate": ("[bl][ivs]", "", lambda attrs: len(attrs) == 1),
        "Unannotate": ("[bl]", "", lambda attrs: len(attrs) == 1),
        POSTPROCESSING: ("", "", _is()),
    }.items()
}


def check_trace(trace: Any) -> None:
    """A trace as TVM's JSON has it: instructions, and decisions by instruction. Raises NotAdmitted."""
    if not (
        isinstance(trace, (list, tuple)) and len(trace) == 2 and all(isinstance(part, (list, tuple)) for part in trace)
    ):
        raise NotAdmitted("no schedule")
    instructions, decisions = trace
    if len(instructions) > MOST_INSTRUCTIONS:
        raise NotAdmitted(f"a schedule of {len(instructions)} instructions")
    known: set[str] = set()
    for instruction in instructions:
        if not (isinstance(instruction, (list, tuple)) and len(instruction) == 4):
            raise NotAdmitted("no instruction")
        _check_instruction(*instruction, known)
    decided: set[int] = set()
    for decision in decisions:
        if not (isinstance(decision, (list, tuple)) and len(decision) == 2 and type(decision[0]) is int):
            raise NotAdmitted("no decision")
        index, value = decision
        if not 0 <= index < len(instructions) or index in decided:
            raise NotAdmitted("a decision without its instruction, or a second one")
        decided.add(index)
        _check_decision(instructions[index], value)


def _check_instruction(kind: Any, inputs: Any, attrs: Any, outputs: Any, known: set[str]) -> None:
    found = INSTRUCTIONS.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise NotAdmitted(f"its schedule has an instruction that none of ours has: {str(kind)[:60]!a}")
    wanted_inputs, wanted_outputs, check = found
    if not (type(inputs) is type(attrs) is type(outputs) is list):
        raise NotAdmitted(f"{kind} is no instruction")
    # Most inputs are variables, and there are a hundred thousand in the shipped records.
    letters = [e[0] if type(e) is str and e in known else _letter(e, known) for e in inputs]
    if not wanted_inputs.match("".join(letters)):
        raise NotAdmitted(f"{kind} of {str(inputs)[:80]!a}")
    if outputs:
        _check_outputs(kind, outputs, wanted_outputs, known)
    elif not wanted_outputs.match(""):
        raise NotAdmitted(f"{kind} without results")
    if not check(attrs):
        raise NotAdmitted(f"{kind} with {str(attrs)[:80]!a}")
    if kind in ("Annotate", "Unannotate"):
        _check_annotation(kind, inputs, attrs[0])
    elif kind == "Split" and (len(inputs) - 1 != len(outputs) or 0 in inputs or inputs.count("None") > 1):
        raise NotAdmitted(f"Split of {str(inputs)[:80]!a} has {len(outputs)} results")
    elif kind == "SamplePerfectTile" and len(outputs) != attrs[0]:
        raise NotAdmitted(f"SamplePerfectTile in {attrs[0]} has {len(outputs)} results")
    known.update(outputs)


def _check_outputs(kind: str, outputs: list, wanted: re.Pattern, known: set[str]) -> None:
    """They are new variables."""
    named = all(type(each) is str and VARIABLE.match(each) for each in outputs)
    if not named or not known.isdisjoint(outputs) or len(set(outputs)) != len(outputs) or len(outputs) > MOST_OUTPUTS:
        raise NotAdmitted(f"{kind} names its results {str(outputs)[:80]!a}")
    if not wanted.match("".join([each[0] for each in outputs])):
        raise NotAdmitted(f"{kind} has results {str(outputs)[:80]!a}")


def _letter(value: Any, known: set[str]) -> str:
    """What an input is, in the patterns of INSTRUCTIONS; ``?`` for none of it."""
    if isinstance(value, str):
        if value in known:
            return value[0]
        return "N" if value == "None" else "s" if value.startswith('"') else "?"
    if isinstance(value, list):
        return f"({''.join(_letter(each, known) if isinstance(each, str) else '?' for each in value)})"
    return "i" if type(value) is int and 0 <= value <= LARGEST_FACTOR else "?"


def _check_annotation(kind: str, inputs: list, key: Any) -> None:
    if not isinstance(key, str) or key not in (ANNOTATIONS if kind == "Annotate" else REMOVED):
        raise NotAdmitted(f"its schedule has an annotation that none of ours has: {str(key)[:60]!a}")
    if kind == "Annotate":
        value = None if isinstance(inputs[1], str) and VARIABLE.match(inputs[1]) else inputs[1]
        if not ANNOTATIONS[key](value):
            raise NotAdmitted(f"{key} with {str(inputs[1])[:60]!a}")


def _check_decision(instruction: list, value: Any) -> None:
    kind, _, attrs, outputs = instruction
    if kind == "SampleCategorical":
        legal = _integer(0, len(attrs[0]) - 1)(value)
    elif kind == "SamplePerfectTile":
        legal = (
            isinstance(value, list)
            and len(value) == len(outputs)
            and all(map(_integer(1, LARGEST_FACTOR), value))
            and value[-1] <= attrs[1]
        )
    else:
        legal = kind == "SampleComputeLocation" and _integer(-2, MOST_OUTPUTS)(value)
    if not legal:
        raise NotAdmitted(f"{kind} is decided by {str(value)[:60]!a}")


def check_straight(function: Any) -> None:
    """That a scheduled PrimFunc unrolls and vectorizes no more than code of ours does. Raises NotAdmitted."""
    import tvm_ffi
    from tvm import tirx

    wrong: list[str] = []  # TVM would make errors of its own of what a callback raises

    def steps(root: Any) -> int:
        """Copies of the innermost statement within ``root``."""
        most = 1

        def visit(loop: tirx.For) -> tvm_ffi.WalkResult:
            nonlocal most
            most = max(most, copies(loop) * steps(loop.body))
            return tvm_ffi.WalkResult.SKIP

        tvm_ffi.structural_walk(root, (tirx.For, visit), order="pre")
        return most

    def copies(loop: tirx.For) -> int:
        if loop.kind not in (tirx.ForKind.UNROLLED, tirx.ForKind.VECTORIZED):
            return 1
        straight, extent = loop.kind == tirx.ForKind.UNROLLED, getattr(loop.extent, "value", None)
        if extent is None:
            wrong.append(f"a loop of unknown length is {'unrolled' if straight else 'one vector'}")
        elif not straight and extent > MOST_LANES:
            wrong.append(f"it makes a vector of {extent} lanes, at most {MOST_LANES} are of use")
        return extent or 1 if straight else 1

    found = steps(function.body)
    if found > LARGEST_UNROLL:
        wrong.append(f"it unrolls {found} steps, at most {LARGEST_UNROLL} are of use")
    if wrong:
        raise NotAdmitted(wrong[0])
