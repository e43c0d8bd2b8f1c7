"""`vaefit-cli show` and `vaefit-cli compare`: print runs again from their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options.parameters import OutputOptions

if TYPE_CHECKING:
    from vaefit.vae.run_folder.comparison import Comparison, Pair

    from ..output.terminal import Terminal

RunFolder = Annotated[Path, typer.Argument(readable=False, help="A run folder.")]


def show(run: RunFolder, output: OutputOptions = OutputOptions()) -> None:
    """Print a run or a sweep again, from its folder."""
    from vaefit.vae.results.training_summary import TrainSummary
    from vaefit.vae.run_folder.reader import StoredRun
    from vaefit.vae.sweep.folder import FILES, read_sweep

    from ..output import run_tables

    terminal = output.terminal()
    if any((run / name).exists() for name in FILES):
        outcome = read_sweep(run)
        run_tables.print_sweep(terminal, outcome)
        terminal.json(outcome.json())
        return
    summary = StoredRun.finished(run).summary
    if isinstance(summary, TrainSummary):
        run_tables.print_training_setup(terminal, summary.setup)
        run_tables.print_training(terminal, summary)
    else:
        run_tables.print_overfit_setup(terminal, summary.setup)
        run_tables.print_overfit(terminal, summary)
    terminal.json(summary.json())


def compare(first: RunFolder, second: RunFolder, output: OutputOptions = OutputOptions()) -> None:
    """Show the differences of two runs, overfit or train: objective, data, settings, machine and results."""
    from vaefit.vae.run_folder.comparison import Comparison
    from vaefit.vae.run_folder.reader import StoredRun

    terminal = output.terminal()
    comparison = Comparison.from_runs(StoredRun.finished(first), StoredRun.finished(second))
    _print(terminal, comparison)
    terminal.json(comparison.json())


def _print(terminal: Terminal, found: Comparison) -> None:
    terminal.line(f"objective  {_objective(found)}")
    terminal.line(f"A          {found.kinds[0]}: {found.runs[0]}")
    terminal.line(f"B          {found.kinds[1]}: {found.runs[1]}")
    terminal.line(f"data       {_digests(found.same_data, found.data, 'bytes')}")
    if found.batch is not None:
        terminal.line(f"batch      {_digests(found.same_batch, found.batch, 'grids')}")
    weights = found.weights[0] if found.same_weights else f"different: {found.weights[0]} | {found.weights[1]}"
    terminal.line(f"weights    {'the same: ' if found.same_weights else ''}{weights}")
    if found.kinds[0] == found.kinds[1]:
        step = found.first_different_step
        same = "the same at every step" if step is None else f"different from step {step} on"
        terminal.line(f"metrics    {same}")
    terminal.line()
    _table(terminal, "settings that differ", found.settings, "none")
    for letter, kind, own in zip("AB", found.kinds, found.own_settings, strict=True):
        if own:
            listed = ", ".join(f"{name} {_word(value)}" for name, value in own.items())
            terminal.line(f"only {kind} has (run {letter}): {listed}")
            terminal.line()
    _table(terminal, "machine and versions that differ", found.environment, "none")
    _table(terminal, "results", found.results, "")
    classes = {f"class {c}": pair for c, pair in enumerate(found.class_accuracy) if pair[0] != pair[1]}
    _table(terminal, "accuracy of classes that differ", classes, "none")


def _objective(found: Comparison) -> str:
    """Return in one line which parts of the objective are the same in both runs, and which differ."""
    same, different = [], []
    for name, (left, right) in found.objective.items():
        if left == right:
            same.append("weights (bytes equal)" if name == "weights" else f"{name} {_word(left)}")
        elif name == "weights":
            different.append(f"weights ({found.weights[0]} | {found.weights[1]})")
        else:
            different.append(f"{name} ({_word(left)} | {_word(right)})")
    if not different:
        return f"the same: {', '.join(same)}"
    return f"different: {', '.join(different)}; the same: {', '.join(same) or 'nothing'}"


def _digests(same: bool | None, digests: Pair, what: str) -> str:
    if same is None:
        return "unknown, a digest is missing"
    shown = [digest[:16] for digest in digests]
    return f"the same {what}, digest {shown[0]}" if same else f"different {what}, digests {shown[0]} | {shown[1]}"


def _table(terminal: Terminal, title: str, pairs: dict[str, Pair], empty: str) -> None:
    from ..output.terminal import new_table

    if not pairs:
        terminal.line(f"{title}: {empty}")
        return
    table = new_table(title, left=("",), right=("A", "B"))
    for name, (left, right) in pairs.items():
        table.add_row(name, _word(left), _word(right), style="yellow" if left != right else None)
    terminal.table(table)


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_word(part)}" for name, part in value.items())
    return "none" if value is None else str(value)
