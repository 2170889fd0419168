"""A warm-up session of an emulated core, which translates the code that later sessions share.

QEMU translates code when it first runs, and a session is a process of its own: without this, each would translate TVM's
RPC server, the loader and the clock's code anew, more work than many an operator is. Sessions fork from the process
that has rehearsed. What it runs is always the same, for what a session finds in memory shifts its addresses, and with
them the simulated cache conflicts.
"""

from __future__ import annotations

from dataclasses import replace

from ..emulator.build import rehearsal_library
from .base import Endpoint
from .operands import Operands, server_function

SHAPE = (1024,)
SESSION_SECONDS = 60.0


def rehearse(endpoint: Endpoint) -> None:
    """Upload, load, fill, time, digest, receipt. Raises DeviceFailed where no session is granted."""
    library = rehearsal_library()
    session = replace(endpoint, rehearsal=True).connect(SESSION_SECONDS)
    session.upload(str(library))
    device = session.cpu(0)
    operands = Operands(session, device, [(SHAPE, "float32")])
    server_function(session, "time_once")(session.load_module(library.name), "main", *operands.tensors)
    operands.digests()
    server_function(session, "receipt")(library.name)
