"""Picture `sweep.png`: a line for each setting, a dot for each run."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .outcome import SweepOutcome

# distinguishable without colour as well
_MARKS = {
    "MEMORISED": ("o", "#1b7f3b"),
    "LEARNING": ("^", "#c98a00"),
    "COLLAPSED": ("s", "#c02020"),
    "DIVERGED": ("X", "#5a2a82"),
    "ERROR": ("P", "#444444"),
}
_ROW_INCHES = 0.3
_MOST_INCHES = 40.0
_LABEL = 60


def draw_sweep(outcome: SweepOutcome, out: Path) -> None:
    """Write the picture as PNG to `out`."""
    names = [knob.name for knob in outcome.knobs]
    labels = [
        ", ".join(map("=".join, zip(names, s.values, strict=True)))[:_LABEL] or "all runs" for s in outcome.settings
    ]
    height = min(_MOST_INCHES, 2.2 + _ROW_INCHES * len(labels))
    figure = Figure(figsize=(12, height), dpi=100, layout="constrained")
    steps, accuracy = figure.subplots(1, 2, sharey=True)
    rows = {setting.values: row for row, setting in enumerate(outcome.settings)}
    longest = max(run.iterations for run in outcome.runs)
    never = 1.08 * max(longest, 1)
    for run in outcome.runs:
        # dots of one row side by side
        y = rows[run.values] + 0.5 * ((run.number + 0.5) / outcome.seeds - 0.5)
        marker, colour = _MARKS[run.verdict]
        style = {"marker": marker, "color": colour, "s": 26.0, "alpha": 0.8, "linewidths": 0}
        steps.scatter(never if run.worst_class_95 is None else run.worst_class_95, y, **style)
        if run.worst_class_accuracy is not None:
            accuracy.scatter(run.worst_class_accuracy, y, **style)
    if any(run.worst_class_95 is None for run in outcome.runs):
        steps.axvline(never, color="#bbbbbb", linestyle=":", zorder=0)
        steps.text(never, -0.7, "never", ha="center", va="bottom", color="#666666", fontsize=9)
    _axis(steps, "updates until every class is at 95 %", labels)
    _axis(accuracy, "worst class at the end", labels)
    steps.set_xlim(left=0)
    accuracy.set_xlim(-0.03, 1.03)
    seen = [verdict for verdict in _MARKS if any(run.verdict == verdict for run in outcome.runs)]
    keys = [Line2D([], [], marker=_MARKS[v][0], color=_MARKS[v][1], linestyle="", label=v) for v in seen]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    figure.suptitle(outcome.difference, fontsize=10, x=0.01, ha="left", wrap=True)
    figure.savefig(out, format="png")


def _axis(axes: Axes, label: str, rows: list[str]) -> None:
    axes.set_xlabel(label)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.8)
    axes.grid(alpha=0.25)
