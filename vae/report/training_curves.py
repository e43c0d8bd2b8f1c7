"""`curves.png` of a training run: loss and accuracies over the validations."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from .training_result import TrainSummary


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
