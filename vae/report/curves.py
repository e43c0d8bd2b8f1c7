"""`curves.png`: the loss, and the accuracy of every class, over the steps."""

from __future__ import annotations

from pathlib import Path

import matplotlib.patheffects as effects
from matplotlib.figure import Figure

from ..result import OverfitResult
from .palette import palette


def draw_curves(result: OverfitResult, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    figure = Figure(figsize=(10, 7.5), dpi=110, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.7))
    steps = [r.step for r in result.history]
    top.plot(steps, [r.loss for r in result.history], color="#303030", label="objective on the fixed batch, z = mu")
    # where the step trains on other draws than are measured
    drawn = [(r.step, r.train_loss) for r in result.history if r.train_loss is not None]
    if any(loss != r.loss for (_, loss), r in zip(drawn, result.history, strict=False)):
        top.plot(*zip(*drawn, strict=True), color="#c08030", linewidth=0.8, label="objective of the grids drawn")
    if max(r.loss for r in result.history) > 0:
        top.set_yscale("log")
    top.set_ylabel("loss")
    top.legend(loc="upper right", frameon=False)
    top.set_title(f"{result.verdict}: {result.judgement.reason}", loc="left", fontsize=11, wrap=True)

    # pale colours need an edge on white paper
    edge = [effects.Stroke(linewidth=3.2, foreground="#444444"), effects.Normal()]
    for label, colour in enumerate(palette(len(result.class_accuracy))):
        if result.class_accuracy[label] is None:
            continue
        line = [r.accuracies.classes[label] for r in result.history]
        rgb = tuple(channel / 255 for channel in colour)
        bottom.plot(steps, line, color=rgb, linewidth=1.8, path_effects=edge, label=f"class {label}")
    pixel = [r.accuracies.pixel for r in result.history]
    bottom.plot(steps, pixel, color="#202020", linewidth=2.4, linestyle="--", label="pixel accuracy")
    bottom.axhline(
        result.shares.background,
        color="#888888",
        linewidth=1,
        linestyle=":",
        label="background share (no input needed)",
    )
    bottom.set_ylim(-0.03, 1.03)
    bottom.set_xlabel("updates")
    bottom.set_ylabel("accuracy")
    bottom.grid(alpha=0.25)
    if len(result.class_accuracy) <= 24:
        bottom.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(out, format="png")
