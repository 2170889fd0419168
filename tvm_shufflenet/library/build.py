"""Builds a shared library for TVM's runtime from a scheduled network."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..support.surroundings import require_space
from . import lowering
from .link import link, linker_command
from .scheduling import Scheduled

OBJECT_BYTES = 8 << 20  # more than the code of a network takes, in its object and its library


def build(scheduled: Scheduled, output: Path) -> Path:
    """Compile for the network's target and link to ``output``. Raises DeployError, LinkFailed, ToolMissing."""
    linker = linker_command(scheduled.target)
    require_space(tempfile.gettempdir(), OBJECT_BYTES + 2 * scheduled.memory_bytes[1])
    executable = lowering.executable(scheduled.planned, scheduled.target.tvm())

    def link_objects(path, objects, **_options):
        link(objects, Path(path), linker, scheduled.target.machine)

    executable.export_library(str(output), fcompile=link_objects)
    return output
