"""How a benchmark ends when it is run as a program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from tvm_shufflenet.errors import DeployError


def run(main: Callable[[], int]) -> NoReturn:
    """End the process with what ``main`` returns; where it fails, with the reason on standard error."""
    try:
        sys.exit(main())
    except (DeployError, RuntimeError) as exc:
        print(exc, file=sys.stderr)
        sys.exit(getattr(exc, "exit_code", 1))
