"""The fused operators. Each is one name here, and one module of that name in three packages:

operators/NAME.py        its arithmetic: a dataclass of shapes whose ``function()`` is a PrimFunc, and ``BLOCKS``
schedules/NAME.py        its template: ``schedules(sch, machine)``
graph/rewrites/NAME.py   how it is found in a network: ``REWRITES`` (graph/rewrites/base.py)

What they owe each other:

- ``BLOCKS`` names the blocks of the PrimFunc by which its template is chosen. The first has the operator's own name and
- ``BLOCKS`` names the blocks of the PrimFunc by which its template is chosen. The first has the operator's name and
  each result once it is complete (residual, ReLU, the place where it is stored), one iteration a result.
- The axes of the first block begin with the image of the batch, and those of its reduction come last. The epilogue has
  spatial axes only, and begins with the image too.
- ``schedules(sch, machine)`` yields a copy of ``sch`` for every variant of the structure that is worth a trial, best
  guess first. What is sampled within one is a knob, best guess first (schedules/space.py). It reads shapes off the
  blocks, so it serves every PrimFunc that has them.
- Other blocks are the operator's own affair, between its arithmetic and its template.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# In the order in which their rewrites are tried.
OPERATORS = ("pointwise", "depthwise", "convolution", "pooling", "dense", "copy")
EPILOGUE = "epilogue"


def part_of(name: str, package: str, owed: tuple[str, ...]) -> ModuleType:
    """The module of the operator ``name`` in a ``package`` of this project. Raises TypeError where it lacks what is
    ``owed``."""
    module = importlib.import_module(f"{__name__.partition('.')[0]}.{package}.{name}")
    missing = [each for each in owed if not hasattr(module, each)]
    if missing:
        raise TypeError(f"{package}/{name}.py has no {', '.join(missing)}: operators/registry.py says what it owes")
    return module


def blocks_of(name: str) -> tuple[str, ...]:
    """The blocks by which the operator ``name`` is known. Raises TypeError for others than the contract allows."""
    blocks = part_of(name, "operators", ("BLOCKS",)).BLOCKS
    if blocks not in ((name,), (name, EPILOGUE)):
        raise TypeError(f"operators/{name}.py has the blocks {blocks}: the first is {name}, a second is {EPILOGUE}")
    return blocks
