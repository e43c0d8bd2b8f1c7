"""What a training run prints: what is trained, and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .overfit_tables import agreement, print_classes, print_dataset
from .terminal import Terminal

if TYPE_CHECKING:
    from vaefit.vae.results.training_summary import TrainingSetup, TrainSummary

ROWS = 16
"""Most validations that the table shows."""


def print_training_setup(terminal: Terminal, setup: TrainingSetup) -> None:
    """What is trained: dataset, splits, model, batches and weights."""
    split = setup.split
    test = f", {split['test']:,} kept for a test" if split["test"] else ""
    terminal.line(f"focal loss  {setup.backend} ({setup.backend_reason})")
    print_dataset(terminal, setup.dataset)
    grids = f"{split['train']:,} grids to train on, {split['val']:,} to validate{test}"
    terminal.line(f"split       {grids}; {setup.split_reason}")
    terminal.line(f"model       {setup.model}: {setup.adapter}")
    terminal.line(f"preflight   {agreement(setup.backend, setup.preflight)}")
    noun = "epoch" if setup.epochs == 1 else "epochs"
    epochs = f"{setup.epochs:,} {noun} of {setup.updates_an_epoch:,} updates, batches of {setup.batch_size:,}"
    terminal.line(f"updates     {epochs}")
    over = f"; over {setup.ranks:,} processes" if setup.ranks > 1 else ""
    terminal.line(f"batches     {setup.loader}{over}")
    if setup.lr_reason is not None:
        terminal.line(f"rate        {setup.lr_reason}")
    terminal.line()
    print_classes(terminal, setup.dataset, setup.weights, None)


def print_training(terminal: Terminal, run: TrainSummary) -> None:
    """The validations, the accuracy of each class, and what to think of it."""
    from vaefit.vae.results.training_signals import AFTER_DIVERGENCE, recall_trade

    terminal.table(_validations(run))
    table = Table(title="accuracy per class")
    for column in ("class", "accuracy"):
        table.add_column(column, justify="right")
    for c, accuracy in enumerate(run.class_accuracy):
        if accuracy is not None:
            table.add_row(str(c), f"{accuracy:.4f}")
    terminal.table(table)
    terminal.line(f"on validation, weights of update {run.best_step:,}")
    terminal.line()
    for warning in run.warnings:
        terminal.line(f"warning  {warning}", "yellow")
    trade = recall_trade(run)
    if trade is not None:
        terminal.line(f"note  {trade}")
    if run.active_dimensions is not None and run.kl_dimensions is not None:
        latent = f"{run.active_dimensions} of {len(run.kl_dimensions)} latent dimensions are active"
        terminal.line(f"latent  {latent}, KL {run.kl or 0:.2f} nats a grid")
    end = f"after {run.iterations:,} updates, {run.seconds:.0f} s"
    if run.diverged is not None:
        terminal.line(f"DIVERGED {end}: {run.diverged}", "bold red")
        terminal.line(f"next  {AFTER_DIVERGENCE}")
    else:
        why = f": {run.stopped}" if run.stopped else ""
        skill = "none" if run.skill is None else f"{run.skill:.4f}"
        terminal.line(f"trained {end}{why}", "bold")
        terminal.line(
            f"best  epoch {run.best_epoch}: macro accuracy {run.macro_accuracy:.4f}, worst class "
            f"{run.worst_class_accuracy:.4f} (class {run.worst_class}), pixel {run.pixel_accuracy:.4f}, skill {skill}"
        )
    files = "report.html, reconstructions.png, curves.png, metrics.csv, model.safetensors, result.json"
    terminal.line(f"run   {run.run_dir}: {files}")


def _validations(run: TrainSummary) -> Table:
    table = Table(title="validation, z = mu")
    for column in ("epoch", "update", "loss", "pixel", "macro", "worst class", "skill", "KL"):
        table.add_column(column, justify="right")
    rows = run.history
    shown = rows if len(rows) <= ROWS else (*rows[:2], *rows[2 - ROWS :])
    for row in shown:
        numbers = (row.loss, row.pixel_accuracy, row.macro_accuracy, row.worst_class_accuracy, row.skill)
        cells = ["-" if value is None else f"{value:.4f}" for value in numbers]
        kl = "-" if row.kl is None else f"{row.kl:.2f}"
        best = "bold" if row.step == run.best_step else None
        table.add_row(str(row.epoch), f"{row.step:,}", *cells, kl, style=best)
    return table
