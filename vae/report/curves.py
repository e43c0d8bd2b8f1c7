"""Charts of a run: loss, KL and accuracies over the steps, the accuracy of each class, the KL of each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from ..fitting.result import OverfitResult
from ..results.training_summary import TrainSummary
from .figure import Line, add_legend, default_style, limit_steps, save_png, scale_losses, stacked_axes, thinned
from .palette import ACCENT, AREA, FAINT, GOOD, INK, MOST_CLASSES, SECOND, WRONG, palette

DIMENSIONS = 128
"""Latent dimensions with a bar. If the model has more, those with the largest KL are drawn."""
LEAST_SKILL = -0.03
"""Smaller skills are not drawn: the skill of an untrained model, such as -14, would hide the other lines."""
LANE = 0.36
"""Height of the row of one class, in inches."""
_LOSS, _KL, _ACCURACY = 2.1, 1.4, 2.7
"""Heights in inches."""


def draw_curves(result: OverfitResult, out: Path) -> None:
    """Write loss, KL, accuracies and the accuracy of each class of an overfit run as PNG to `out`."""
    save_png(overfit_figure(result, title=f"{result.verdict}: {result.judgement.reason}"), out)


def draw_training_curves(run: TrainSummary, out: Path) -> None:
    """Write loss, KL and accuracies of a training run as PNG to `out`."""
    end = f"best at update {run.best_step:,}, epoch {run.best_epoch}" if run.diverged is None else run.diverged
    title = f"macro accuracy {run.macro_accuracy:.4f}, pixel accuracy {run.pixel_accuracy:.4f}; {end}"
    save_png(training_figure(run, title), out)


@default_style()
def overfit_figure(result: OverfitResult, curves: bool = True, classes: bool = True, title: str = "") -> Figure:
    """Return the chart of an overfit run over the steps.

    Args:
        curves: draw loss, KL (if it was ever finite) and accuracies.
        classes: draw one row for each class of the batch.
    """
    records = thinned(result.history)
    steps = [record.step for record in records]
    losses = [Line("loss of the fixed batch", [r.loss for r in records], ACCENT)]
    if any(r.train_loss not in (None, r.loss) and np.isfinite(r.loss) for r in records):
        losses.append(Line("loss of the drawn grids", [r.train_loss for r in records], SECOND, "--"))
    kl = Line("KL", [r.kl for r in records], ACCENT)
    accuracies = (
        Line("pixel accuracy", [r.accuracies.pixel for r in records], INK),
        Line("macro accuracy", [r.accuracies.macro for r in records], ACCENT, "--"),
        Line("worst class", [r.accuracies.worst for r in records], SECOND, "-."),
        Line("background share", [result.shares.background] * len(records), FAINT, ":"),
    )
    shown = _classes_with_a_row(result)
    heights = (*(_curve_heights(kl) if curves else ()), *((LANE * len(shown),) if classes else ()))
    figure, rows = stacked_axes(heights, "step", title)
    if curves:
        lost = next((r.step for r in records if not np.isfinite(r.loss)), None)
        if lost is not None:
            rows[0].axvline(lost, color=WRONG, linewidth=1.5, linestyle="--", label=f"not finite at step {lost}")
        _draw_rows(rows[: len(heights) - classes], steps, losses, kl, accuracies, "accuracy")
    if classes:
        _draw_classes(rows[-1], steps, result, shown)
        if curves:
            name = "accuracy of each class; the line below runs from the first to the last step that predicts it"
            rows[-1].set_title(name, loc="left", fontsize=10, color=FAINT)
    limit_steps(rows[-1], steps)
    return figure


@default_style()
def training_figure(run: TrainSummary, title: str = "") -> Figure:
    """Return the chart of a training run over the updates: loss, KL (if the model has one) and accuracies."""
    history = thinned(run.history)
    steps = [row.step for row in history]
    losses = (
        Line("in training", [row.train_loss for row in history], SECOND, "--"),
        Line("on validation", [row.loss for row in history], INK),
    )
    kl = Line("KL", [row.kl for row in history], INK)
    skills = [None if row.skill is None or row.skill < LEAST_SKILL else row.skill for row in history]
    accuracies = (
        Line("macro accuracy", [row.macro_accuracy for row in history], ACCENT, "--"),
        Line("worst class", [row.worst_class_accuracy for row in history], SECOND, "-."),
        Line("pixel accuracy", [row.pixel_accuracy for row in history], INK),
        Line("skill", skills, GOOD, (0, (6, 1, 1, 1, 1, 1))),
        Line("background share", [run.background_share] * len(history), FAINT, ":"),
    )
    figure, rows = stacked_axes(_curve_heights(kl), "update", title)
    for axes in rows:
        axes.axvline(run.best_step, color=FAINT, linewidth=1, linestyle=(0, (6, 3)), label="best weights")
    _draw_rows(rows, steps, losses, kl, accuracies, "on validation")
    limit_steps(rows[-1], steps)
    return figure


@default_style()
def latent_figure(kl: Sequence[float], active: Sequence[bool]) -> Figure:
    """Return a bar chart of the KL of each latent dimension; active ones are filled and marked above the bar."""
    shown = np.sort(np.argsort(-np.array(kl), kind="stable")[:DIMENSIONS]).tolist()
    figure, (axes,) = stacked_axes((1.5,), "latent dimension")
    for state, colour, name in ((True, ACCENT, "active"), (False, AREA, "not active")):
        places = [place for place, i in enumerate(shown) if active[i] == state]
        if not places:
            continue
        heights = [kl[shown[place]] for place in places]
        axes.bar(places, heights, width=0.75, color=colour, edgecolor=ACCENT, linewidth=0.8, label=name)
        if state:
            above = axes.get_xaxis_transform()
            axes.plot(places, [1.05] * len(places), "v", color=INK, markersize=4, transform=above, clip_on=False)
    figure.subplots_adjust(top=0.9)
    axes.xaxis.set_major_formatter(lambda x, _: str(shown[int(x)]) if x == int(x) and 0 <= x < len(shown) else "")
    axes.set_xlim(-0.7, len(shown) - 0.3)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("KL, nats")
    add_legend(axes)
    return figure


def _curve_heights(kl: Line) -> tuple[float, ...]:
    return (_LOSS, _KL, _ACCURACY) if np.isfinite(kl.numbers).any() else (_LOSS, _ACCURACY)


def _draw_rows(
    rows: Sequence[Axes], steps: list[int], losses: Sequence[Line], kl: Line, accuracies: Sequence[Line], name: str
) -> None:
    """Draw the loss, the KL if there are three rows, and the accuracies; `name` labels the accuracies."""
    for line in losses:
        line.draw(rows[0], steps)
    scale_losses(rows[0], [value for line in losses for value in line.numbers])
    if len(rows) > 2:
        kl.draw(rows[1], steps)
        rows[1].set_ylabel("KL, nats")
        rows[1].yaxis.set_major_locator(MaxNLocator(3))
    for line in accuracies:
        line.draw(rows[-1], steps)
    rows[-1].set_ylim(-0.03, 1.03)
    rows[-1].yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    rows[-1].set_ylabel(name)
    for axes in (rows[0], rows[-1]):
        add_legend(axes)


def _classes_with_a_row(result: OverfitResult) -> list[int]:
    """Return the classes of the batch in order; of more than `MOST_CLASSES`, those with the lowest accuracy."""
    held = [(accuracy, c) for c, accuracy in enumerate(result.class_accuracy) if accuracy is not None]
    return sorted(c for _, c in sorted(held)[:MOST_CLASSES])


def _draw_classes(axes: Axes, steps: list[int], result: OverfitResult, shown: list[int]) -> None:
    """Draw one row for each class: its accuracy as an area, and below it the steps between which it was predicted."""
    beside = axes.get_yaxis_transform()  # x in shares of the width, y in rows
    records = thinned(result.history)
    tops, spans = [], []
    for row, c in enumerate(shown):
        floor, middle = row + 0.86, row + 0.5
        accuracies = [record.accuracies.classes[c] or 0.0 for record in records]
        tops.append([(step, floor - 0.72 * value) for step, value in zip(steps, accuracies, strict=True)])
        predicted = result.predicted_steps(c)
        span = "never predicted"
        if predicted is not None:
            spans.append([(step, floor + 0.06) for step in predicted])
            span = f"predicted {' to '.join(map(str, dict.fromkeys(predicted)))}"
        accuracy = result.class_accuracy[c] or 0.0
        weak = accuracy < result.recipe.target
        for x, text, colour, side in (
            (-0.045, f"class {c}", FAINT, "right"),
            (1.015, f"{accuracy:.3f}{' !' if weak else ''}", WRONG if weak else INK, "left"),
            (1.1, span, FAINT, "left"),
        ):
            axes.text(x, middle, text, transform=beside, color=colour, ha=side, va="center", fontsize=10)
    areas = [[(line[0][0], row + 0.86), *line, (line[-1][0], row + 0.86)] for row, line in enumerate(tops)]
    axes.add_collection(PolyCollection(areas, facecolors=AREA, edgecolors="none"), autolim=False)
    axes.add_collection(LineCollection(tops, colors=ACCENT, linewidths=1.6), autolim=False)
    axes.add_collection(LineCollection(spans, colors=INK, linewidths=1.0), autolim=False)
    ends = [end for span in spans for end in span]
    axes.plot([x for x, _ in ends], [y for _, y in ends], "|", color=INK, markersize=5)
    colours = [tuple(channel / 255 for channel in palette(len(result.class_accuracy))[c]) for c in shown]
    places = [-0.025] * len(shown), [row + 0.5 for row in range(len(shown))]
    axes.scatter(
        *places, s=48, marker="s", c=colours, edgecolors=FAINT, linewidths=0.8, transform=beside, clip_on=False
    )
    axes.set_ylim(len(shown) + 0.08, 0)
    axes.yaxis.set_visible(False)
