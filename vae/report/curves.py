"""`curves.png`: the loss, and the accuracy of every class, over the steps."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.patheffects as effects
from matplotlib.figure import Figure

from ..fitting.result import OverfitResult
from ..results.training_summary import TrainSummary
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


def draw_training_curves(run: TrainSummary, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    figure = Figure(figsize=(10, 7.5), dpi=110, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.7))
    rows = run.history
    steps = [row.step for row in rows]
    trained = [(row.step, row.train_loss) for row in rows if row.train_loss is not None]
    if trained:
        top.plot(*zip(*trained, strict=True), color="#c08030", marker="o", label="objective in training")
    measured = [(row.step, row.loss) for row in rows if row.loss is not None]
    if measured:
        top.plot(*zip(*measured, strict=True), color="#303030", marker="o", label="objective on validation, z = mu")
    if min((loss for _, loss in [*trained, *measured] if loss is not None), default=0.0) > 0:
        top.set_yscale("log")
    top.set_ylabel("loss")
    top.legend(loc="upper right", frameon=False)
    end = f"best at update {run.best_step:,}, epoch {run.best_epoch}" if run.diverged is None else run.diverged
    top.set_title(f"macro accuracy {run.macro_accuracy:.4f}, pixel {run.pixel_accuracy:.4f}; {end}", loc="left")

    lines = (
        ("macro accuracy", "#2060c0", "-", [row.macro_accuracy for row in rows]),
        ("worst class", "#c02020", "-", [row.worst_class_accuracy for row in rows]),
        ("pixel accuracy", "#202020", "--", [row.pixel_accuracy for row in rows]),
    )
    for label, colour, style, values in lines:
        bottom.plot(steps, values, color=colour, linestyle=style, marker="o", label=label)
    skills = [(row.step, row.skill) for row in rows if row.skill is not None and row.skill > -0.1]
    if skills:
        bottom.plot(*zip(*skills, strict=True), color="#208040", marker="o", label="skill")
    bottom.axhline(run.background_share, color="#888888", linewidth=1, linestyle=":", label="background share")
    bottom.axvline(run.best_step, color="#2060c0", linewidth=1, linestyle=":")
    bottom.set_ylim(-0.1, 1.03)
    bottom.set_xlabel("updates")
    bottom.set_ylabel("on validation")
    bottom.grid(alpha=0.25)
    bottom.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    figure.savefig(out, format="png")
