"""The tables of a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from .console import Terminal

if TYPE_CHECKING:
    from vaefit.vae.check import Check, Prepared

_STYLES = {"MEMORISED": "bold green", "LEARNING": "bold yellow", "COLLAPSED": "bold red", "DIVERGED": "bold red"}


def print_prepared(terminal: Terminal, prepared: Prepared) -> None:
    """What is fitted: dataset, batch and weights, with both distributions side by side."""
    dataset, weights, batch = prepared.dataset, prepared.weights, prepared.batch
    n, height, width = dataset.shape
    terminal.line(f"data        {dataset.location}: {n:,} grids of {height} x {width}, {dataset.classes} classes")
    known = f"cached in {dataset.cache_file}" if dataset.source == "cache" else f"scanned in {dataset.seconds:.2f} s"
    terminal.line(f"counts      {known}")
    swapped = f", {batch.swapped} swapped in for rare classes" if batch.swapped else ""
    terminal.line(f"batch       {len(batch.indices)} grids{swapped}, digest {batch.digest[:16]}")
    terminal.line(f"focal loss  {prepared.backend}")
    terminal.line()

    shown = np.flatnonzero((dataset.counts > 0) | (prepared.batch_counts > 0))
    table = Table(title="classes")
    table.add_column("class", justify="right")
    for column in ("dataset", "share", "batch", "share ", "weight"):
        table.add_column(column, justify="right")
    for c in shown.tolist():
        table.add_row(
            str(c),
            f"{dataset.counts[c]:,}",
            _share(dataset.counts, c),
            f"{prepared.batch_counts[c]:,}",
            _share(prepared.batch_counts, c),
            f"{weights.values[c]:.4f}",
        )
    terminal.table(table)
    hidden = dataset.classes - shown.size
    if hidden:
        terminal.line(f"{hidden} of {dataset.classes} classes never occur and are not listed")
    low, high = weights.values.min(), weights.values.max()
    origin = describe_weights(weights.scheme, weights.source)
    terminal.line(f"weights     {origin}: {low:.4f} to {high:.4f}, ratio {weights.ratio:.2f}")
    terminal.line()


def describe_weights(scheme: str, source: str) -> str:
    """Scheme and source in words."""
    words = {"none": "none, every class counts 1", "file": "from a file, used as they are"}
    return words.get(source, f"{scheme} of the {'whole dataset' if source == 'global' else 'batch'}")


def print_result(terminal: Terminal, check: Check) -> None:
    """What came out: accuracy per class, signals, verdict."""
    result, prepared = check.result, check.prepared
    table = Table(title="accuracy per class")
    for column in ("class", "cells in batch", "accuracy", "first predicted", "last predicted"):
        table.add_column(column, justify="right")
    for c, accuracy in enumerate(result.class_accuracy):
        steps = result.predicted_steps(c)
        if accuracy is None and steps is None:
            continue
        first, last = ("never", "never") if steps is None else (f"step {steps[0]}", f"step {steps[1]}")
        weak = accuracy is not None and accuracy < result.recipe.target
        table.add_row(
            str(c),
            f"{prepared.batch_counts[c]:,}",
            "not in batch" if accuracy is None else f"{accuracy:.4f}",
            first,
            last,
            style="red" if weak else None,
        )
    terminal.table(table)

    a, reached = result.accuracies, result.reached
    signals = Table(title="signals", show_header=False)
    signals.add_column(justify="left")
    signals.add_column(justify="right")
    signals.add_column(justify="left")
    rows = (
        ("pixel accuracy", f"{a.pixel:.4f}", "cells whose class is right"),
        ("majority share", f"{result.shares.majority:.4f}", "what one class everywhere would score"),
        ("background share", f"{result.shares.background:.4f}", "what the best single picture would score"),
        ("skill", _optional(result.skill), "share of the way from there to perfect"),
        ("macro accuracy", f"{a.macro:.4f}", "mean over the classes in the batch"),
        ("worst class", f"{a.worst:.4f}", f"class {a.worst_class}"),
        ("retrieval", _optional(result.retrieval), "reconstructions nearest to their own target"),
        ("distinct pictures", str(result.distinct_pictures), f"of {len(result.predictions)} reconstructions"),
        ("95 % pixel accuracy", _step(reached.pixel_95), ""),
        ("95 % in every class", _step(reached.worst_class_95), ""),
        ("every cell right", _step(reached.exact), ""),
    )
    for row in rows:
        signals.add_row(*row)
    terminal.table(signals)
    judgement = result.judgement
    terminal.line(
        f"{judgement.verdict} after {result.iterations} updates, {check.seconds:.1f} s", _STYLES[judgement.verdict]
    )
    terminal.line(f"why   {judgement.reason}")
    if judgement.next:
        terminal.line(f"next  {judgement.next}")
    terminal.line(f"run   {check.run_dir}: reconstructions.png, curves.png, metrics.csv, result.json")


def _share(counts: NDArray[np.int64], label: int) -> str:
    return f"{100 * counts[label] / counts.sum():.2f} %"


def _optional(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _step(step: int | None) -> str:
    return "never" if step is None else f"step {step}"
