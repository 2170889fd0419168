"""The outcome of verification, as stored in a package."""

from __future__ import annotations

import msgspec

NEVER, CHECKED_BY = "nobody has seen it run", "tvm-shufflenet bench PACKAGE"


class Verification(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the library's answer was PyTorch's before the package was written.

    ``by`` is the device that it ran on, ``max_abs_err`` its largest difference from PyTorch's answer to the reference
    input, ``tolerance`` what is allowed, ``inputs`` how many it was right for, and ``operators`` how many were also
    compared with their unscheduled selves, each on data of its own, now or when the same code was first used. Where
    nothing executes the code, or agreement proves nothing, ``reason`` says so, and ``next_step`` what to do. ``note``
    is what the tolerance does not say of itself.
    """

    by: str | None = None
    max_abs_err: float | None = None
    tolerance: float | None = None
    operators: int = 0
    reason: str | None = None
    next_step: str | None = None
    inputs: int = 0
    note: str | None = None

    @property
    def ran(self) -> bool:
        """Whether a device's answer is named that was near enough."""
        if self.by is None or self.max_abs_err is None or self.tolerance is None:
            return False
        return self.max_abs_err <= self.tolerance

    @property
    def holds(self) -> bool:
        """Whether it ran, and that says something."""
        return self.ran and self.reason is None

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        if not self.holds:
            return f"not verified: {self.reason or NEVER}{note}; next: {self.next_step or CHECKED_BY}"
        compared = f"; {self.operators} operators against their unscheduled selves" if self.operators else ""
        inputs = f"; right for {self.inputs} inputs" if self.inputs > 1 else ""
        error = f"largest error against PyTorch {self.max_abs_err:.2g}, {self.tolerance:.2g} allowed"
        return f"verified on {self.by}: {error}{inputs}{compared}{note}"


NEVER_VERIFIED = Verification(reason=NEVER, next_step=CHECKED_BY)
