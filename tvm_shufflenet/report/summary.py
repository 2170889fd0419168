"""A tuning run in a few lines of at most 80 characters, complete enough to be pasted into an issue."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..signature import described
from .facts import setting_facts
from .progress import failures

if TYPE_CHECKING:
    from rich.console import Console

    from ..tuning.search.progress import TuneResult
    from ..workflow.compare import Comparison

WIDTH, INDENT = 80, 14
ERROR = 300  # characters of the first error


def print_summary(console: Console, result: TuneResult, strategy: str, comparison: Comparison) -> None:
    console.print("\nto paste into an issue:\n")
    # As it is: what is pasted must have neither colours nor the width of somebody's terminal.
    console.print(summary(result, strategy, comparison), markup=False, highlight=False, soft_wrap=True)


def summary(result: TuneResult, strategy: str, comparison: Comparison) -> str:
    tuned, untuned = (each.median_us / 1e3 for each in (comparison.tuned, comparison.untuned))
    shipped = f"{comparison.shipped.median_us / 1e3:.3f} ms shipped, " if comparison.shipped else ""
    facts = [
        ("model", f"{comparison.model}, input {described(comparison.manifest.inputs)}"),
        *setting_facts(comparison.device, comparison.manifest.target, comparison.threads),
        (
            "trials",
            f"{strategy}, {result.requested} asked for: {result.measured} measured, {failures(result)}, "
            f"{result.reused} reused; {result.trials_per_minute:.0f} a minute",
        ),
        (
            "result",
            f"{tuned:.3f} ms tuned, {shipped}{untuned:.3f} ms TVM untuned, {comparison.tuned.kind}: "
            f"{comparison.speedup:.2f} times as fast",
        ),
        ("error", f"{comparison.max_abs_err:.2g} against PyTorch, {comparison.tolerance:.2g} allowed"),
    ]
    if comparison.blind:
        facts.append(("not verified", comparison.blind))
    if result.first_error:
        facts.append(("first error", textwrap.shorten(result.first_error, ERROR)))
    return "\n".join(_lines(name, text) for name, text in facts)


def _lines(name: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=name.ljust(INDENT), subsequent_indent=" " * INDENT, break_on_hyphens=False
    )
