"""The charts of a training run's page: loss, KL and accuracies over the updates, and the latent dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from ...results.training_summary import TrainSummary
from .axes import Chart, Style, draw_line, explain_lines, scale_losses, scale_shares, span_of, stacked_axes, thinned
from .inline_svg import ACCENT, AREA, FAINT, GOOD, INK, SECOND, inline_svg, page_style

DIMENSIONS = 128
"""Latent dimensions with a bar; of more, those with most KL."""
LEAST_SKILL = -0.03
"""What lies lower is not drawn: an untrained model's skill, -14 say, would leave all else no room."""


@page_style("curves")
def training_curves(run: TrainSummary) -> Chart:
    """Loss, KL (where there is one) and the accuracies over the updates."""
    drawn = thinned(run.history)
    steps = [row.step for row in drawn]
    kls = _numbers([row.kl for row in drawn])
    with_kl = any(map(math.isfinite, kls))
    heights = (1.2, 0.7, 1.6) if with_kl else (1.2, 1.6)
    figure, rows = stacked_axes(2.0 * sum(heights), heights)
    loss, accuracy = rows[0], rows[-1]

    trained, measured = _numbers([row.train_loss for row in drawn]), _numbers([row.loss for row in drawn])
    draw_line(loss, steps, trained, SECOND, "--", "in training")
    draw_line(loss, steps, measured, INK, "-", "on validation")
    scale_losses(loss, [*trained, *measured])
    explain_lines(loss)
    if with_kl:
        draw_line(rows[1], steps, kls, INK, "-", "KL")
        rows[1].set_ylabel("KL, nats")
        rows[1].yaxis.set_major_locator(MaxNLocator(3))

    skills = [skill if skill >= LEAST_SKILL else math.nan for skill in _numbers([row.skill for row in drawn])]
    lines: tuple[tuple[str, Sequence[float], str, Style], ...] = (
        ("macro accuracy", [row.macro_accuracy for row in drawn], ACCENT, "--"),
        ("worst class", [row.worst_class_accuracy for row in drawn], SECOND, "-."),
        ("pixel accuracy", [row.pixel_accuracy for row in drawn], INK, "-"),
        ("skill", skills, GOOD, (0, (6, 1, 1, 1, 1, 1))),
        ("background share", [run.background_share] * len(drawn), FAINT, ":"),
    )
    for name, values, colour, style in lines:
        if any(map(math.isfinite, values)):
            draw_line(accuracy, steps, values, colour, style, name)
    for axes in rows:
        axes.axvline(run.best_step, color=FAINT, linewidth=1, linestyle=(0, (6, 3)), label="best weights")
    accuracy.set_xlim(*span_of(steps))
    scale_shares(accuracy, "on validation")
    accuracy.set_xlabel("update")
    explain_lines(accuracy)
    return Chart(inline_svg(figure, "curves", "Loss, KL and accuracies over the updates"), len(drawn))


@dataclass(frozen=True)
class LatentChart:
    """The KL of the latent dimensions."""

    svg: Markup
    dimensions: int
    shown: int


@page_style("latent")
def latent_chart(divergence: Sequence[float], active: Sequence[bool]) -> LatentChart:
    """A bar for the KL of each dimension, filled and with a mark above it where the dimension is active."""
    order = np.argsort(-np.array(divergence), kind="stable")[:DIMENSIONS]
    shown = np.sort(order).tolist()
    figure, (axes,) = stacked_axes(2.2, (1,))
    for state, colour, name in ((True, ACCENT, "active"), (False, AREA, "not active")):
        places = [place for place, i in enumerate(shown) if active[i] == state]
        if not places:
            continue
        heights = [divergence[shown[place]] for place in places]
        axes.bar(places, heights, width=0.75, color=colour, edgecolor=ACCENT, linewidth=0.8, label=name)
        if state:
            marks = [1.05] * len(places)
            above = axes.get_xaxis_transform()
            axes.plot(
                places, marks, color=INK, linestyle="none", marker="v", markersize=4, transform=above, clip_on=False
            )
    figure.subplots_adjust(top=0.9)
    axes.xaxis.set_major_formatter(lambda x, _: str(shown[int(x)]) if x == int(x) and 0 <= x < len(shown) else "")
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("KL, nats")
    axes.set_xlabel("latent dimension")
    explain_lines(axes)
    label = f"KL of each latent dimension; {sum(active)} of {len(active)} are active"
    return LatentChart(inline_svg(figure, "latent", label), len(divergence), len(shown))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
