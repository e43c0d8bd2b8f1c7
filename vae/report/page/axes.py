"""Axes, lines and words of the page's charts, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Transform

from .inline_svg import FAINT, INK

POINTS = 240
"""Steps that a line is drawn through; more cannot be told apart on a screen, and swell the page."""
FAR = 5
"""Ratio of losses beyond which their scale is logarithmic."""
_WIDTH, _DPI = 10.0, 72
_LEFT, _RIGHT = 0.095, 0.76

Row = TypeVar("Row")
Style = str | tuple[int, tuple[int, ...]]
"""How matplotlib names a line's dashes: by a word, or by an offset and lengths."""


@dataclass(frozen=True)
class Chart:
    """A chart, and how much of the run it shows."""

    svg: Markup
    points: int
    """Steps drawn."""
    lines: int = 0
    """Classes drawn."""


def thinned(history: Sequence[Row]) -> list[Row]:
    """At most `POINTS` rows, spread evenly; the first and the last are among them."""
    kept = np.unique(np.linspace(0, len(history) - 1, min(len(history), POINTS)).round().astype(int))
    return [history[i] for i in kept.tolist()]


def stacked_axes(height: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Rows of axes with one axis of steps, in the page's colours."""
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0].tolist()
    figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=1 - 0.1 / height, bottom=0.5 / height, hspace=0.12)
    for axes in rows:
        axes.tick_params(length=0, labelcolor=FAINT, labelsize=10)
        axes.grid(visible=True, color=FAINT, alpha=0.25, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        # in the same place for all rows, without a look at how wide the numbers are
        axes.yaxis.set_label_coords(-0.09, 0.5)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=INK, fontsize=10)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(FAINT)
    return figure, rows


def scale_losses(axes: Axes, losses: Sequence[float]) -> None:
    """Make the scale logarithmic, where any loss is positive and they are far apart."""
    positive = [value for value in losses if math.isfinite(value) and value > 0]
    # closer ones would have a single mark between them, or none
    if positive and max(positive) > FAR * min(positive):
        axes.set_yscale("log")
        # of two decades or fewer, marks at 2 and 5 too: one number is no scale
        narrow = max(positive) < 100 * min(positive)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
        # plain numbers: powers as formulas take longer to set than all else to draw
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("loss")


def scale_shares(axes: Axes, name: str) -> None:
    """Make the scale that of shares, from 0 to 1."""
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.set_ylabel(name)


def explain_lines(axes: Axes) -> None:
    """Say beside the axes which line is what."""
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.6)
    for text in legend.get_texts():
        text.set_color(INK)


def span_of(steps: list[int]) -> tuple[float, float]:
    """Ends of the axis of steps, a little apart where there is but one."""
    room = max(0.02 * (steps[-1] - steps[0]), 0.2)
    return steps[0] - room, steps[-1] + room


def write_word(axes: Axes, x: float, y: float, text: str, colour: str, where: Transform, side: str = "left") -> None:
    """Write at (x, y) of `where`, beginning, or with `side` right ending, there."""
    axes.text(x, y, text, transform=where, color=colour, ha=side, va="center", fontsize=10)


def draw_line(axes: Axes, steps: list[int], values: Sequence[float], colour: str, style: Style, name: str) -> None:
    """Draw a line through the values that are finite, with a gap where they are not."""
    finite = [value if math.isfinite(value) else math.nan for value in values]
    # a line of one point is invisible
    marker = "o" if sum(map(math.isfinite, values)) <= 2 else None
    axes.plot(steps, finite, color=colour, linestyle=style, linewidth=1.6, marker=marker, markersize=4, label=name)
