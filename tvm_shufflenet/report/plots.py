"""Plots of a report as inline SVG, in the colours of the page, light or dark.

matplotlib draws with stand-in colours, which become CSS variables; text stays text. What a model made up is drawn
hatched, hollow or dashed, what a clock measured is solid.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..latency import Kind, Latency
    from ..profiling.roofline import Roofline, Roofs
    from ..tuning.search.curve import Curve

WIDTH = 400  # of the drawing, in its own pixels: little more than a phone has, so that text is read there too
FONT, SMALL = 12, 10
# What stands for the page's variable of that name while matplotlib draws.
COLOURS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(("ink", "muted", "grid", "paper", "tuned", "untuned", "peer", "template", "ansor"))
}
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlesize": FONT,
    "axes.edgecolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "figure.facecolor": "none",
    "hatch.linewidth": 1.2,
}
# Beside a bar so many times as long as the shortest, and as the next one, the others are drawn once more without it.
CROWDED, ALONE = 8, 2.5
TICKS = 8  # labels of a logarithmic axis, at most
NUMBERED = 12  # dots of a roofline that carry their number


@dataclass(frozen=True)
class Bar:
    """``low_us`` and ``high_us`` are the ends of its error range. Without a latency, the contestant failed. ``digits``
    are the decimals of milliseconds that it is worth."""

    name: str
    role: str
    latency: Latency | None = None
    low_us: float | None = None
    high_us: float | None = None
    digits: int = 3

    @property
    def median_us(self) -> float | None:
        return self.latency and self.latency.median_us

    @property
    def end_us(self) -> float:
        """Where what is drawn for it ends."""
        return 0.0 if self.latency is None else max(self.median_us, self.high_us or 0.0)


@contextlib.contextmanager
def _figure(height: float) -> Iterator[Figure]:
    with matplotlib.rc_context(SETTINGS):
        yield Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")


def _svg(figure: Figure, name: str, title: str, text: str) -> str:
    """The figure for a page in which ``name`` is unique; ``title`` and ``text`` are for those who cannot see it."""
    file = io.StringIO()
    with matplotlib.rc_context(SETTINGS | {"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawn = file.getvalue()
    box = re.search(r'viewBox="(.*?)"', drawn).group(1)
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    body = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", body)
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    head = f'<svg class="plot" viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-text">'
    return f'{head}<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>{body}'


def latency_bars(bars: Sequence[Bar], name: str, title: str, text: str) -> str:
    """Medians with error ranges; where one bar dwarfs the others, these once more without it."""
    timed = sorted((bar for bar in bars if bar.latency), key=lambda bar: bar.median_us)
    crowded = len(timed) > 2 and timed[-1].median_us > max(CROWDED * timed[0].median_us, ALONE * timed[-2].median_us)
    panels = [list(bars), [bar for bar in bars if bar is not timed[-1]]] if crowded else [list(bars)]
    heights = [26 * len(panel) + 44 for panel in panels]
    with _figure(sum(heights)) as figure:
        drawn = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(drawn, panels, strict=True):
            _bars(axes, panel)
        if crowded:
            drawn[1].set_title(f"without {timed[-1].name}", loc="left")
    return _svg(figure, name, title, text)


def _bars(axes: Axes, bars: list[Bar]) -> None:
    room = max(bar.end_us for bar in bars) / 1e3 or 1.0
    for place, bar in enumerate(bars):
        if bar.latency is None:
            axes.text(0.01 * room, place, "failed", va="center", color=COLOURS["muted"])
            continue
        ms, colour = bar.median_us / 1e3, COLOURS[bar.role]
        modelled = bar.latency.kind == "modelled"
        style = {"color": "none", "edgecolor": colour, "hatch": "////"} if modelled else {"color": colour}
        axes.barh(place, ms, height=0.62, linewidth=1.2, **style)
        if bar.low_us is not None:
            ends = [[ms - bar.low_us / 1e3], [bar.high_us / 1e3 - ms]]
            axes.errorbar(ms, place, xerr=ends, color=COLOURS["ink"], capsize=3, linewidth=1.2)
        axes.text(bar.end_us / 1e3 + 0.015 * room, place, f"{ms:.{bar.digits}f}", va="center")
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.16 * room)
    axes.set_xlabel(f"ms, {' and '.join(sorted({bar.latency.kind for bar in bars if bar.latency}))}")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


COLUMNS = 2


def tuning_curves(curves: Sequence[Curve], kind: Kind, name: str, title: str, text: str) -> str:
    """Best so far by trial: one small plot for each operator, one line for each strategy."""
    operators = list(dict.fromkeys(curve.operator for curve in curves))
    rows = math.ceil(len(operators) / COLUMNS)
    with _figure(104 * rows + 30) as figure:
        grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
        for axes, operator in zip(grid, operators, strict=False):
            _curve(axes, [curve for curve in curves if curve.operator == operator], kind)
            axes.set_title(f"{operator}, us", loc="left", fontsize=SMALL + 1)
        for axes in grid[len(operators) :]:
            axes.set_visible(False)
        figure.supxlabel(f"trial; best so far, us of one call, {kind}", fontsize=SMALL + 1)
    return _svg(figure, name, title, text)


def _curve(axes: Axes, curves: list[Curve], kind: Kind) -> None:
    for curve in curves:
        found = [(number, us) for number, us in enumerate(curve.best_us, start=1) if us is not None]
        if not found:
            continue
        numbers, best = zip(*found, strict=True)
        style = "--" if kind == "modelled" else "-"
        axes.step(numbers, best, where="post", color=COLOURS[curve.strategy], linestyle=style, linewidth=1.8)
        axes.plot(numbers[-1], best[-1], "o", color=COLOURS[curve.strategy], markersize=4)
    axes.tick_params(labelsize=SMALL)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def roofline_plot(line: Roofline, kind: Kind, name: str, title: str, text: str) -> str:
    """A dot for each operator, as large as its time, numbered as in the table; the roofs, where they are known."""
    finite = [dot.macs_per_byte for dot in line.dots if math.isfinite(dot.macs_per_byte)] or [1.0]
    left, right = min(finite) / 2, max(finite) * 2
    if line.roofs:
        left, right = min(left, line.roofs.ridge / 4), max(right, line.roofs.ridge * 8)
    whole = sum(dot.time_us for dot in line.dots)
    sizes = [20 + 500 * dot.time_us / whole for dot in line.dots]
    places = [(min(dot.macs_per_byte, right / 1.15), dot.gmacs_per_second) for dot in line.dots]
    with _figure(320) as figure:
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlim=(left, right))
        axes.set_xlabel("multiply-adds a byte to or from memory" if line.roofs else "multiply-adds a byte of tensors")
        axes.set_ylabel(f"GMAC/s, {kind}")
        if line.roofs:
            _roofs(axes, line.roofs, left, right)
        face = "none" if kind == "modelled" else COLOURS["tuned"]
        style = {"facecolor": face, "edgecolor": COLOURS["tuned"], "linewidth": 1.5, "zorder": 3}
        for dot, place, size in zip(line.dots, places, sizes, strict=True):
            axes.scatter(*place, s=size, marker="o" if math.isfinite(dot.macs_per_byte) else ">", **style)
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            axis.set_major_locator(FixedLocator(log_ticks(*ends)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        figure.draw_without_rendering()  # only now is it known where on paper the dots are
        _number(axes, places[:NUMBERED], sizes, places)
    return _svg(figure, name, title, text)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, at least two, for a logarithmic axis: powers of ten where it holds
    several, else what lies between them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in found if low <= tick <= high]
        if len(inside) >= 2:
            return inside[:: math.ceil(len(inside) / TICKS)]
    return [float(tick) for tick in MaxNLocator(TICKS // 2).tick_values(low, high) if low <= tick <= high]


def _roofs(axes: Axes, roofs: Roofs, left: float, right: float) -> None:
    across = [left, roofs.ridge, right]
    axes.plot(across, [roofs.at(x) for x in across], color=COLOURS["ink"], linewidth=1.6)
    axes.text(right, roofs.peak * 1.08, f"peak {roofs.peak:.1f} GMAC/s", ha="right", fontsize=SMALL)
    start = left * 1.25
    axes.annotate(
        f"memory {roofs.memory:.1f} GB/s", (start, roofs.at(start)), (8, -8), textcoords="offset points",
        fontsize=SMALL, va="top",
    )  # fmt: skip


def _number(axes: Axes, places: Sequence, sizes: Sequence[float], dots: Sequence) -> None:
    """Write each dot's number on that side of it where dots and other numbers leave most room."""
    taken = [tuple(axes.transData.transform(dot)) for dot in dots]
    for number, (place, size) in enumerate(zip(places, sizes, strict=False), start=1):
        x, y = axes.transData.transform(place)
        reach = 7 + math.sqrt(size) / 2
        turns = (math.radians(45 * turn) for turn in range(8))
        sides = [(reach * math.cos(turn), reach * math.sin(turn)) for turn in turns]
        others = [spot for spot in taken if math.dist(spot, (x, y)) > 1e-6]
        best = max(sides, key=lambda side: _room((x + side[0], y + side[1]), others))
        taken.append((x + best[0], y + best[1]))
        axes.annotate(
            str(number), place, best, textcoords="offset pixels", fontsize=SMALL, ha="center", va="center", zorder=4
        )


def _room(spot: tuple[float, float], others: Sequence) -> float:
    return min((math.dist(spot, other) for other in others), default=math.inf)
