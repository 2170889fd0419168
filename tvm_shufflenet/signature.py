"""What a network takes and returns: tensors by name, each with its shape, dtype and layout."""

from __future__ import annotations

import math

import msgspec

from .errors import ImportFailed

IMAGES = "NCHW"
DEPLOYED_DTYPES = ("float32",)


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor. A dimension that is not known yet is a text that says what it may be; ``layout`` names the axes where
    they have a meaning here, a letter each."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    layout: str | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def dynamic(self) -> bool:
        return any(not isinstance(dim, int) for dim in self.shape)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype}"


class Signature(msgspec.Struct, frozen=True):
    """The tensors of a network in the order of its parameters and results."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_deployable(self, what: str) -> None:
        """Whether ``what``, as a message names the network, is one that can be deployed: one image batch in, one tensor
        out, all shapes known. Raises ImportFailed."""
        for verb, specs in (("takes", self.inputs), ("returns", self.outputs)):
            _check_one(what, verb, specs)
        (data,) = self.inputs
        if len(data.shape) != len(IMAGES) or any(isinstance(dim, int) and dim < 1 for dim in data.shape):
            raise ImportFailed(
                f"{what} takes a tensor of shape {_tuple(data)}", "", "export it for a batch of images, N,C,H,W"
            )
        if data.dynamic:
            raise ImportFailed(
                f"{what} takes a tensor of dynamic shape {_tuple(data)}", "", "give --input-shape N,C,H,W"
            )
        if self.outputs[0].dynamic:
            raise ImportFailed(
                f"{what} returns a tensor of dynamic shape {_tuple(self.outputs[0])}",
                "",
                "make the output's shape follow from the input's",
            )


def _check_one(what: str, verb: str, specs: tuple[TensorSpec, ...]) -> None:
    kind = "input" if verb == "takes" else "output"
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise ImportFailed(
            f"{what} {verb} {len(specs)} {kind}s{f': {names}' if names else ''}",
            f"only networks of one {kind} are deployed here",
            f"wrap the model in a module that {verb} one tensor",
        )
    if specs[0].dtype not in DEPLOYED_DTYPES:
        raise ImportFailed(
            f"{what} {verb} {specs[0].dtype}",
            f"only {' and '.join(DEPLOYED_DTYPES)} tensors are deployed here",
            f"convert the {kind} inside the model",
        )


def _tuple(spec: TensorSpec) -> str:
    return f"({', '.join(map(str, spec.shape))})"
