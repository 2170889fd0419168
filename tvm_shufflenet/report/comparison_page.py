"""The report of ``compare --html``: a comparison, a profile and the searches' curves on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..signature import described
from . import sections
from .facts import setting_facts
from .page import Page

if TYPE_CHECKING:
    from ..profiling.result import Profile
    from ..tuning.search.curve import Curve
    from ..workflow.compare import Comparison


@dataclass(frozen=True)
class Commands:
    """What makes the figures anew, as it is typed."""

    compare: str
    tune: str
    profile: str


def comparison_page(
    comparison: Comparison, profile: Profile, curves: Sequence[Curve], library_bytes: int, commands: Commands
) -> Page:
    kind, manifest = comparison.tuned.kind, comparison.manifest
    return Page(
        f"{comparison.model} on {comparison.device.name}",
        f"{comparison.tuned.median_us / 1e3:.3f} ms ({kind}), {comparison.speedup:.1f} times as fast as TVM untuned"
        + (f", {comparison.gain:.3f} as what is shipped" if comparison.gain else ""),
        _facts(comparison),
        manifest.plan,
        (
            sections.latency(comparison, commands.compare),
            sections.operators(profile, commands.profile),
            sections.roofs(profile, commands.profile),
            *sections.tuning(curves, profile, commands.tune),
            sections.memory(profile, library_bytes, commands.profile),
        ),
    )


def _facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    return (
        ("model", comparison.model),
        ("input", described(comparison.manifest.inputs)),
        ("largest error against PyTorch", f"{comparison.max_abs_err:.2g}, {comparison.tolerance:.2g} allowed"),
        *((("not verified", comparison.blind),) if comparison.blind else ()),
        *setting_facts(comparison.device, comparison.manifest.target, comparison.threads),
    )
