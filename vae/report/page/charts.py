"""The charts of the page: loss and KL, the accuracies, and the life line of every class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Transform

from ...result import Record
from ..palette import palette
from ..summary import RunSummary
from .inline_svg import ACCENT, AREA, FAINT, INK, SECOND, WRONG, inline_svg, page_style

POINTS = 240
"""Steps that a line is drawn through; more cannot be told apart on a screen, and swell the page."""
LANES = 32
"""Classes with a life line; of more, those with the lowest accuracy."""
_WIDTH, _DPI = 10.0, 72
_LEFT, _RIGHT = 0.095, 0.76


@dataclass(frozen=True)
class Chart:
    """A chart, and how much of the run it shows."""

    svg: Markup
    points: int
    """Steps drawn."""
    lines: int = 0
    """Classes drawn."""


def thinned(history: Sequence[Record]) -> list[Record]:
    """At most `POINTS` records, spread evenly; the first and the last are among them."""
    kept = np.unique(np.linspace(0, len(history) - 1, min(len(history), POINTS)).round().astype(int))
    return [history[i] for i in kept.tolist()]


@page_style("curves")
def curves(history: Sequence[Record], run: RunSummary) -> Chart:
    """Loss, KL (where it was ever finite) and the accuracies over the steps."""
    drawn = thinned(history)
    steps = [record.step for record in drawn]
    losses = [record.loss for record in drawn]
    kls = [math.nan if record.kl is None else record.kl for record in drawn]
    with_kl = any(map(math.isfinite, kls))
    heights = (1.2, 0.8, 1.4) if with_kl else (1.2, 1.4)
    figure, rows = _figure(2.0 * sum(heights), heights)
    loss, accuracy = rows[0], rows[-1]

    _line(loss, steps, losses, ACCENT, "-", "loss")
    lost = next((step for step, value in zip(steps, losses, strict=True) if not math.isfinite(value)), None)
    if lost is not None:
        loss.axvline(lost, color=WRONG, linewidth=1.5, linestyle="--")
        _word(loss, 1.02, 0.5, f"not finite at step {lost}", WRONG, loss.transAxes)
    positive = [value for value in losses if math.isfinite(value) and value > 0]
    if positive:
        loss.set_yscale("log")
        # of two decades or fewer, marks at 2 and 5 too: one number is no scale
        narrow = max(positive) < 100 * min(positive)
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
        # plain numbers: powers as formulas take longer to set than all else to draw
        loss.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        loss.yaxis.set_minor_locator(NullLocator())
    loss.set_ylabel("loss")
    if with_kl:
        _line(rows[1], steps, kls, ACCENT, "-", "KL")
        rows[1].set_ylabel("KL, nats")
        rows[1].yaxis.set_major_locator(MaxNLocator(3))

    lines = (
        ("pixel accuracy", [r.accuracies.pixel for r in drawn], INK, "-"),
        ("macro accuracy", [r.accuracies.macro for r in drawn], ACCENT, "--"),
        ("worst class", [r.accuracies.worst for r in drawn], SECOND, "-."),
        ("background share", [run.background_share] * len(drawn), FAINT, ":"),
    )
    for name, values, colour, style in lines:
        _line(accuracy, steps, values, colour, style, name)
    accuracy.set_xlim(*_span(steps))
    accuracy.set_ylim(-0.03, 1.03)
    accuracy.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    accuracy.set_ylabel("accuracy")
    accuracy.set_xlabel("step")
    legend = accuracy.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=2.6)
    for text in legend.get_texts():
        text.set_color(INK)
    return Chart(inline_svg(figure, "curves", "Loss, KL and accuracies over the steps"), len(drawn))


@page_style("life")
def life_lines(history: Sequence[Record], run: RunSummary) -> Chart:
    """A lane for each class of the batch: its accuracy, and below it from when to when it was predicted."""
    held = [(accuracy, c) for c, accuracy in enumerate(run.class_accuracy) if accuracy is not None]
    shown = sorted(c for _, c in sorted(held)[:LANES])
    drawn = thinned(history)
    steps = [record.step for record in drawn]
    figure, (axes,) = _figure(0.36 * len(shown) + 0.6, (1,))
    beside = axes.get_yaxis_transform()  # across in shares of the width, down in lanes
    tops, spans = [], []
    for row, c in enumerate(shown):
        floor, middle = row + 0.86, row + 0.5
        accuracies = [record.accuracies.classes[c] or 0.0 for record in drawn]
        tops.append([(step, floor - 0.72 * value) for step, value in zip(steps, accuracies, strict=True)])
        predicted = run.class_predicted_steps[c]
        if predicted is not None:
            spans.append([(step, floor + 0.06) for step in predicted])
        said = (
            "never predicted" if predicted is None else f"predicted {' to '.join(map(str, dict.fromkeys(predicted)))}"
        )
        accuracy = run.class_accuracy[c] or 0.0
        weak = accuracy < run.target
        _word(axes, -0.045, middle, f"class {c}", FAINT, beside, "right")
        _word(axes, 1.015, middle, f"{accuracy:.3f}{' !' if weak else ''}", WRONG if weak else INK, beside)
        _word(axes, 1.1, middle, said, FAINT, beside)
    floors = [[(line[0][0], row + 0.86), *line, (line[-1][0], row + 0.86)] for row, line in enumerate(tops)]
    axes.add_collection(PolyCollection(floors, facecolors=AREA, edgecolors="none"), autolim=False)
    axes.add_collection(LineCollection(tops, colors=ACCENT, linewidths=1.6), autolim=False)
    axes.add_collection(LineCollection(spans, colors=INK, linewidths=1.0), autolim=False)
    ends = [end for span in spans for end in span]
    axes.plot([x for x, _ in ends], [y for _, y in ends], color=INK, linestyle="none", marker="|", markersize=5)
    colours = [tuple(channel / 255 for channel in palette(len(run.class_accuracy))[c]) for c in shown]
    places = [-0.025] * len(shown), [row + 0.5 for row in range(len(shown))]
    axes.scatter(
        *places, s=48, marker="s", c=colours, edgecolors=FAINT, linewidths=0.8, transform=beside, clip_on=False
    )
    axes.set_xlim(*_span(steps))
    axes.set_ylim(len(shown) + 0.08, 0)
    axes.yaxis.set_visible(False)
    axes.set_xlabel("step")
    label = "Accuracy of each class over the steps, and when it was predicted; the table below has the numbers"
    return Chart(inline_svg(figure, "life", label), len(drawn), len(shown))


def _figure(height: float, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
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


def _span(steps: list[int]) -> tuple[float, float]:
    """Ends of the axis of steps, a little apart where there is but one."""
    room = max(0.02 * (steps[-1] - steps[0]), 0.2)
    return steps[0] - room, steps[-1] + room


def _word(axes: Axes, x: float, y: float, text: str, colour: str, where: Transform, side: str = "left") -> None:
    axes.text(x, y, text, transform=where, color=colour, ha=side, va="center", fontsize=10)


def _line(axes: Axes, steps: list[int], values: Sequence[float], colour: str, style: str, name: str) -> None:
    finite = [value if math.isfinite(value) else math.nan for value in values]
    # a line of one point is invisible
    marker = "o" if sum(map(math.isfinite, values)) <= 2 else None
    axes.plot(steps, finite, color=colour, linestyle=style, linewidth=1.6, marker=marker, markersize=4, label=name)
