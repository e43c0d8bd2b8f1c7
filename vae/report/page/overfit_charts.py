"""The charts of the page: loss and KL, the accuracies, and the life line of every class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.ticker import MaxNLocator

from ...fitting.result import Record
from ...results.overfit_summary import RunSummary
from ..palette import palette
from .axes import (
    Chart,
    draw_line,
    explain_lines,
    scale_losses,
    scale_shares,
    span_of,
    stacked_axes,
    thinned,
    write_word,
)
from .inline_svg import ACCENT, AREA, FAINT, INK, SECOND, WRONG, inline_svg, page_style

LANES = 32
"""Classes with a life line; of more, those with the lowest accuracy."""


@page_style("curves")
def curves(history: Sequence[Record], run: RunSummary) -> Chart:
    """Loss, KL (where it was ever finite) and the accuracies over the steps."""
    drawn = thinned(history)
    steps = [record.step for record in drawn]
    losses = [record.loss for record in drawn]
    kls = [math.nan if record.kl is None else record.kl for record in drawn]
    with_kl = any(map(math.isfinite, kls))
    heights = (1.2, 0.8, 1.4) if with_kl else (1.2, 1.4)
    figure, rows = stacked_axes(2.0 * sum(heights), heights)
    loss, accuracy = rows[0], rows[-1]

    draw_line(loss, steps, losses, ACCENT, "-", "loss")
    lost = next((step for step, value in zip(steps, losses, strict=True) if not math.isfinite(value)), None)
    if lost is not None:
        loss.axvline(lost, color=WRONG, linewidth=1.5, linestyle="--")
        write_word(loss, 1.02, 0.5, f"not finite at step {lost}", WRONG, loss.transAxes)
    scale_losses(loss, losses)
    if with_kl:
        draw_line(rows[1], steps, kls, ACCENT, "-", "KL")
        rows[1].set_ylabel("KL, nats")
        rows[1].yaxis.set_major_locator(MaxNLocator(3))

    lines = (
        ("pixel accuracy", [r.accuracies.pixel for r in drawn], INK, "-"),
        ("macro accuracy", [r.accuracies.macro for r in drawn], ACCENT, "--"),
        ("worst class", [r.accuracies.worst for r in drawn], SECOND, "-."),
        ("background share", [run.background_share] * len(drawn), FAINT, ":"),
    )
    for name, values, colour, style in lines:
        draw_line(accuracy, steps, values, colour, style, name)
    accuracy.set_xlim(*span_of(steps))
    scale_shares(accuracy, "accuracy")
    accuracy.set_xlabel("step")
    explain_lines(accuracy)
    return Chart(inline_svg(figure, "curves", "Loss, KL and accuracies over the steps"), len(drawn))


@page_style("life")
def life_lines(history: Sequence[Record], run: RunSummary) -> Chart:
    """A lane for each class of the batch: its accuracy, and below it from when to when it was predicted."""
    held = [(accuracy, c) for c, accuracy in enumerate(run.class_accuracy) if accuracy is not None]
    shown = sorted(c for _, c in sorted(held)[:LANES])
    drawn = thinned(history)
    steps = [record.step for record in drawn]
    figure, (axes,) = stacked_axes(0.36 * len(shown) + 0.6, (1,))
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
        write_word(axes, -0.045, middle, f"class {c}", FAINT, beside, "right")
        write_word(axes, 1.015, middle, f"{accuracy:.3f}{' !' if weak else ''}", WRONG if weak else INK, beside)
        write_word(axes, 1.1, middle, said, FAINT, beside)
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
    axes.set_xlim(*span_of(steps))
    axes.set_ylim(len(shown) + 0.08, 0)
    axes.yaxis.set_visible(False)
    axes.set_xlabel("step")
    label = "Accuracy of each class over the steps, and when it was predicted; the table below has the numbers"
    return Chart(inline_svg(figure, "life", label), len(drawn), len(shown))
