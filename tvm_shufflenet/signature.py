"""The signature of a network: input and output tensors by name, each with shape, dtype and layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .errors import ImportFailed
from .precision import FLOAT32

if TYPE_CHECKING:
    import numpy as np

IMAGES = "NCHW"
DEPLOYED = (FLOAT32.data,)

Tensors: TypeAlias = "Mapping[str, np.ndarray]"  # by their names in a signature


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor. A dimension that is not fixed yet is a text which says what it may be; ``layout`` names the axes, a
    letter each, where they have a meaning here."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = FLOAT32.data
    layout: str | None = None

    @property
    def is_dynamic(self) -> bool:
        return any(isinstance(dim, str) for dim in self.shape)

    @property
    def elements(self) -> int:
        """Of a tensor whose dimensions are all fixed."""
        return math.prod(int(dim) for dim in self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * element_bytes(self.dtype)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype}"


def element_bytes(dtype: str) -> int:
    import numpy as np

    return 1 if dtype == "bool" else np.dtype(dtype).itemsize


class Signature(msgspec.Struct, frozen=True):
    """The tensors of a network, in the order of its parameters and of its results."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.outputs)


def described(specs: Sequence[TensorSpec]) -> str:
    """``1x3x224x224 float32``, one after the other."""
    return ", ".join(map(str, specs))


def to_bytes(tensors: Tensors, specs: Sequence[TensorSpec]) -> bytes:
    """The elements of ``specs``' tensors, one tensor behind the other, each in C order."""
    return b"".join(tensors[spec.name].tobytes() for spec in specs)


def from_bytes(content: bytes, specs: Sequence[TensorSpec]) -> Tensors:
    """Those tensors again. Raises ValueError for another number of bytes."""
    import numpy as np

    made, offset = {}, 0
    for spec in specs:
        values = np.frombuffer(content, spec.dtype, spec.elements, offset)
        made[spec.name] = values.reshape(spec.shape)
        offset += values.nbytes
    if offset != len(content):
        raise ValueError(f"{len(content)} bytes, {offset} were expected")
    return made


def refuse_undeployable(signature: Signature, what: str) -> None:
    """Let pass what can be deployed today: one tensor in, one tensor out, both float32 and of a fixed shape.

    ``what`` is the network in messages. Raises ImportFailed for anything else.
    """
    refuse_unfixable(signature, what)
    for verb, spec in (("takes", signature.inputs[0]), ("returns", signature.outputs[0])):
        if spec.is_dynamic:
            raise ImportFailed(
                f"{what} {verb} a tensor of dynamic shape: {shape_text(spec)}",
                "it was exported with dynamic dimensions, or the shape depends on the data",
                "give --input-shape N,C,H,W" if verb == "takes" else "make the shape follow from the input's",
            )


def refuse_unfixable(signature: Signature, what: str) -> None:
    """The same, but for dimensions that are fixed later. Raises ImportFailed."""
    for verb, kind, specs in (("takes", "input", signature.inputs), ("returns", "output", signature.outputs)):
        refuse_several([spec.name for spec in specs], what, verb, kind)
        if specs[0].dtype not in DEPLOYED:
            raise ImportFailed(
                f"{what} {verb} {specs[0].dtype}, only {' and '.join(DEPLOYED)} is deployed here",
                "an index, a mask or another precision",
                "wrap it in a module that casts, or leave its last step to the application",
            )


def refuse_several(names: Sequence[str], what: str, verb: str = "takes", kind: str = "input") -> None:
    """Raises ImportFailed for more than one tensor, or none."""
    if len(names) != 1:
        raise ImportFailed(
            f"{what} {verb} {len(names)} {kind}s: {', '.join(names) or 'none'}",
            f"only networks with one {kind} are deployed here",
            f"wrap it in a module with one {kind}",
        )


def refuse_no_images(spec: TensorSpec, what: str) -> None:
    """Raises ImportFailed for an input that is no batch of images."""
    if len(spec.shape) != len(IMAGES) or any(isinstance(dim, int) and dim < 1 for dim in spec.shape):
        raise ImportFailed(
            f"{what} takes a tensor of shape {shape_text(spec)}", "", "export it for a batch of images, N,C,H,W"
        )


def shape_text(spec: TensorSpec) -> str:
    """As Python writes a tuple, without quotes: ``(n, 3, 224, 224)``."""
    return f"({', '.join(map(str, spec.shape))})"
