"""Chart of the share of bandwidth over size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaefit.vae.errors import RunError

from .bench import KernelBench
from .inputs import OPS, Op
from .row import Row

# distinguishable without colour as well
_MARKS = {
    "ours": ("o", "#1b7f3b"), "naive": ("v", "#c02020"), "cross_entropy": ("^", "#c98a00"),
    "inductor": ("s", "#5a2a82"), "torchmetrics": ("X", "#1f6fb4"), "liger": ("D", "#6b6b6b"),
}  # fmt: skip
_DASHES = {"float32": "-", "bfloat16": "--", "float16": ":"}


def check_chart(out: Path) -> None:
    """Raise RunError where `out` could not be written, before anything is measured."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise RunError("the chart cannot be written there", "--chart", str(out), "Name a file in a folder that exists.")


def draw_kernels(bench: KernelBench, out: Path) -> None:
    """Write the chart as PNG to `out`: a panel for each operation, a line for each implementation and dtype."""
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flatten()
    for axes, op in zip(panels, OPS, strict=True):
        _panel(axes, op, [row for row in bench.rows if row.op == op])
    handles = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    by_label = {label: handle for handle, label in handles}
    # a column for each implementation
    labels = [f"{name}, {dtype}" for name in _MARKS for dtype in _DASHES if f"{name}, {dtype}" in by_label]
    if labels:
        columns = len({label.partition(",")[0] for label in labels})
        lines = [by_label[label] for label in labels]
        figure.legend(lines, labels, loc="outside lower center", ncols=columns, frameon=False)
    for axes in panels[2:]:
        axes.set_xlabel("logits (cells times classes)")
    for axes in panels[::2]:
        axes.set_ylabel("% of the bandwidth of a copy")
    place = bench.place
    threads = f", {place.threads} thread{'s' * (place.threads > 1)}" if place.device == "cpu" else ""
    title = (
        f"bytes of one pass over {place.clock}, against a copy at {place.copy / 1e9:.0f} GB/s: {place.name}{threads}"
    )
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.savefig(out, format="png")


def _panel(axes: Axes, op: Op, rows: list[Row]) -> None:
    axes.set_title(op, fontsize=10, loc="left")
    # shapes of other classes are other work: their points are not joined
    for dtype, classes in dict.fromkeys((row.dtype, row.shape[1]) for row in rows):
        for name, points in _lines([row for row in rows if (row.dtype, row.shape[1]) == (dtype, classes)]):
            marker, colour = _MARKS[name]
            label = f"{name}, {dtype}"
            axes.plot(*zip(*points, strict=True), _DASHES[dtype], marker=marker, color=colour, label=label, alpha=0.85)
    axes.axhline(100, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)


def _lines(rows: list[Row]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield each implementation's name and its points, by size; nothing for one without times."""
    for name in ["ours", *dict.fromkeys(name for row in rows for name in row.peers)]:
        points = []
        for row in rows:
            batch, classes, height, width = row.shape
            share = row.share(row.ours if name == "ours" else row.peers.get(name))
            if share is not None:
                points.append((batch * classes * height * width, 100 * share))
        if points:
            yield name, sorted(points)
