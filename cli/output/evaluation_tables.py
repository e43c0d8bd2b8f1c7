"""What an evaluation prints: the model and the grids, and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .overfit_tables import print_dataset
from .terminal import Terminal

if TYPE_CHECKING:
    from vaefit.vae.results.evaluation_summary import EvaluatedOn, EvaluationSummary

MOST = 16
"""Classes whose confusion counts fit into a table, and latent dimensions that are listed."""


def print_evaluated_on(terminal: Terminal, on: EvaluatedOn) -> None:
    """Which weights, and which grids."""
    after = "" if on.step is None else f" of update {on.step:,}"
    which = "last checkpoint" if on.checkpoint == "last" else "weights"
    terminal.line(f"run         {on.run}, {which}{after}")
    terminal.line(f"model       {on.model}: {on.adapter}")
    terminal.line(f"focal loss  {on.backend} ({on.backend_reason})")
    print_dataset(terminal, on.dataset)
    terminal.line(f"split       {on.split}, {on.grids:,} grids: {on.split_reason}")
    terminal.line()


def print_evaluation(terminal: Terminal, found: EvaluationSummary) -> None:
    """Accuracy of each class, what it was taken for, the latent dimensions, and the whole."""
    table = Table(title=f"accuracy per class on {found.on.split}, z = mu")
    for column in ("class", "cells", "accuracy", "most often taken for"):
        table.add_column(column, justify="right")
    for c, (accuracy, row) in enumerate(zip(found.class_accuracy, found.confusion, strict=True)):
        if accuracy is None:
            continue
        wrong = [0 if other == c else count for other, count in enumerate(row)]
        most = max(wrong)
        taken = f"{wrong.index(most)} ({most / sum(row):.2%})" if most else "-"
        table.add_row(str(c), f"{sum(row):,}", f"{accuracy:.4f}", taken)
    terminal.table(table)
    if len(found.confusion) <= MOST:
        _print_confusion(terminal, found)
    if found.kl_dimensions is not None:
        each = sorted(enumerate(found.kl_dimensions), key=lambda pair: -pair[1])
        listed = ", ".join(f"{dimension}: {kl:.3f}" for dimension, kl in each[:MOST])
        more = f", {len(each) - MOST} more below" if len(each) > MOST else ""
        active = f"{found.active_dimensions} of {len(each)} latent dimensions are active"
        terminal.line(f"latent      {active}, KL {found.kl or 0:.2f} nats a grid")
        terminal.line(f"            KL by dimension: {listed}{more}")
    skill = "none" if found.skill is None else f"{found.skill:.4f}"
    shares = f"{found.background_share:.4f} without looking at the input, {found.majority_share:.4f} by one class"
    terminal.line(f"pixel       {found.pixel_accuracy:.4f}; {shares}; skill {skill}")
    worst = f"worst class {found.worst_class_accuracy:.4f} (class {found.worst_class})"
    terminal.line(f"macro       {found.macro_accuracy:.4f}, {worst}", "bold")
    terminal.line(f"loss        {found.loss:.6g} with beta {found.beta:g}, focal {found.focal:.6g}")
    terminal.line(f"result      {found.run_dir}: reconstructions.png, result.json")


def _print_confusion(terminal: Terminal, found: EvaluationSummary) -> None:
    table = Table(title="confusion counts, row = target, column = prediction")
    table.add_column("", justify="right")
    for c in range(len(found.confusion)):
        table.add_column(str(c), justify="right")
    for c, row in enumerate(found.confusion):
        if sum(row):
            table.add_row(str(c), *(f"{count:,}" for count in row))
    terminal.table(table)
