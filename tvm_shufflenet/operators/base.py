"""The base class of operators, and the contract between an operator's three files.

========================  ==========================================================================================
``operators/NAME.py``     arithmetic: an ``Operator``, whose function has the blocks below and no tile size
``schedules/NAME.py``     tiles: ``BLOCKS``, ``layout`` and ``schedules``, see ``schedules/template.py``
``graph/rewrites/NAME.py``  where it is in a graph: ``STARTS`` and ``find``, see ``graph/rewrites/match.py``
========================  ==========================================================================================

One row of ``operators/registry.py`` joins them, and is checked when it is read.

The blocks of a function are its contract with the template, which finds them by name and their iterators by position:

- the *main block* is called as the operator is, and computes results into an accumulator of its own, bias included
  where there is no step between the two;
- ``epilogue`` runs over the results that are kept and stores them: residual, ReLU, shuffle and destination are there,
  so a template may place the main block anywhere beneath the epilogue's loops, over more columns than are kept;
- ``padded`` copies rows into scratch with what surrounds them, for operators whose window slides.

An operator without an epilogue is its main block alone. Block names and iterators are part of a workload's hash: after
a change of them no tuning record applies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from tvm import tirx

from ..precision import FLOAT32, Precision
from .building import prim_func

EPILOGUE, PADDED = "epilogue", "padded"


@dataclass(frozen=True)
class Block:
    """A block by name, with a letter for each of its iterators in order: ``spatial`` ones, then ``reduced`` ones."""

    name: str
    spatial: str
    reduced: str = ""

    def __str__(self) -> str:
        axes = ", ".join(self.spatial) + (f"; sums over {', '.join(self.reduced)}" if self.reduced else "")
        return f"{self.name} ({axes})"


@dataclass(frozen=True)
class Layout:
    """How weights and scratch lie in memory, which follows from the tiles: a template's ``layout`` chooses it.

    ``strip`` output channels are neighbours in a packed weight. A mean is made of ``sums`` partial sums. Rows of
    accumulators are rounded up to ``columns``, or for narrow images to a power of two from ``narrowest`` on, so that no
    vector ends within a row. Padding moves ``copied`` columns at once. The default is nobody's choice: no packing.
    """

    strip: int = 1
    sums: int = 1
    columns: int = 1
    narrowest: int = 1
    copied: int = 1


@dataclass(frozen=True, kw_only=True)
class Operator(ABC):
    """One instance of an operator: shapes and what is fused into it, as a frozen dataclass."""

    precision: Precision = FLOAT32
    layout: Layout = Layout()

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the tensor that it writes."""

    @classmethod
    @abstractmethod
    def example(cls) -> Operator:
        """A small instance, by which the registry checks blocks and axes."""

    @abstractmethod
    def emit(self) -> None:
        """Emit the parameters, the result's last, and the blocks of the function that is being built."""

    def function(self) -> tirx.PrimFunc:
        """The operator as a PrimFunc ``main``; each operator's class says what it takes and writes."""
        return prim_func(self.emit)

    @property
    def dtype(self) -> str:
        """Of data, weights and results."""
        return self.precision.data

    @property
    def accumulator(self) -> str:
        """Of the sums of convolutions, and of the bias that they begin with."""
        return self.precision.accumulator

    @property
    def total(self) -> str:
        """Of the sums of means and matrix products."""
        return self.precision.total

    @property
    def result_dtype(self) -> str:
        """Of the tensor that it writes."""
        return self.dtype
