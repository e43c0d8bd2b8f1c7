"""`curves.png`: the loss, and the accuracy of every class, over the steps."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.patheffects as effects
from matplotlib.figure import Figure

from ..result import OverfitResult
from .palette import palette

FEW_STEPS = 5
LEGEND_ROWS = 26
MANY_STEPS = 150
"""Beyond these, lines are drawn thinner, or they hide one another."""


def draw_curves(result: OverfitResult, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    figure = Figure(figsize=(10, 7.5), dpi=110, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.7))
    steps = [r.step for r in result.history]
    # a line of one point is invisible
    marker = "o" if len(steps) <= FEW_STEPS else None
    losses = [r.loss for r in result.history]
    top.plot(steps, losses, color="#303030", marker=marker, label="objective on the fixed batch, z = mu")
    lost = [step for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)]
    for step in lost[:1]:
        top.axvline(step, color="#c02020", label=f"not finite from update {step} on")
    # where the step trains on other draws than are measured
    drawn = [(r.step, r.train_loss) for r in result.history if r.train_loss is not None]
    if any(loss != r.loss for (_, loss), r in zip(drawn, result.history, strict=False)):
        top.plot(*zip(*drawn, strict=True), color="#c08030", linewidth=0.8, label="objective of the grids drawn")
    if max((loss for loss in losses if math.isfinite(loss)), default=0.0) > 0:
        top.set_yscale("log")
    top.set_ylabel("loss")
    top.legend(loc="upper right", frameon=False)
    top.set_title(f"{result.verdict}: {result.judgement.reason}", loc="left", fontsize=11, wrap=True)

    # pale colours need an edge on white paper
    thick = 1.8 if len(steps) <= MANY_STEPS else 1.1
    edge = [effects.Stroke(linewidth=thick + 1.2, foreground="#444444"), effects.Normal()]
    for label, colour in enumerate(palette(len(result.class_accuracy))):
        if result.class_accuracy[label] is None:
            continue
        line = [r.accuracies.classes[label] for r in result.history]
        rgb = tuple(channel / 255 for channel in colour)
        bottom.plot(steps, line, color=rgb, linewidth=thick, marker=marker, path_effects=edge, label=f"class {label}")
    pixel = [r.accuracies.pixel for r in result.history]
    bottom.plot(steps, pixel, color="#202020", linewidth=2.4, linestyle="--", marker=marker, label="pixel accuracy")
    bottom.axhline(
        result.shares.background,
        color="#888888",
        linewidth=1,
        linestyle=":",
        label="background share",
    )
    bottom.set_ylim(-0.03, 1.03)
    bottom.set_xlabel("updates")
    bottom.set_ylabel("accuracy")
    bottom.grid(alpha=0.25)
    handles, labels = bottom.get_legend_handles_labels()
    if len(handles) > LEGEND_ROWS:  # the two lines that are not classes come last
        handles, labels = handles[-2:], [*labels[-2:]]
    bottom.legend(handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(out, format="png")
