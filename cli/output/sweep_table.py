"""The table of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .terminal import Terminal

if TYPE_CHECKING:
    from vaefit.vae.sweep.outcome import Spread, SweepOutcome


def print_sweep(terminal: Terminal, outcome: SweepOutcome) -> None:
    """Medians and spread of every setting, and which knob made the difference."""
    table = Table(title=f"median (smallest-largest) of {outcome.seeds} runs each")
    for knob in outcome.knobs:
        table.add_column(knob.name)
    for column in ("MEMORISED", "95 % pixel", "worst class 95 %", "every cell", "worst class"):
        table.add_column(column, justify="right")
    for setting in outcome.settings:
        style = None if setting.memorised == setting.runs else "red" if setting.memorised == 0 else "yellow"
        table.add_row(
            *setting.values,
            f"{setting.memorised}/{setting.runs}",
            *(_steps(spread) for spread in (setting.pixel_95, setting.worst_class_95, setting.exact)),
            _shares(setting.worst_class_accuracy),
            style=style,
        )
    terminal.table(table)
    explained = ", ".join(f"{effect.source} {100 * effect.share:.0f} %" for effect in outcome.effects)
    if explained:
        terminal.line(f"explained   {explained}")
    terminal.line(f"difference  {outcome.difference}")
    files = "sweep.png, sweep.csv, sweep.json and a folder for each run"
    terminal.line(f"sweep       {outcome.run_dir}: {files}; {outcome.seconds:.1f} s")


def _steps(spread: Spread) -> str:
    low, median, high = (_word(value) for value in (spread.low, spread.median, spread.high))
    return median if low == high else f"{median} ({low}-{high})"


def _word(value: float | None) -> str:
    return "never" if value is None else f"{value:g}"


def _shares(spread: Spread) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f}-{spread.high:.3f})"
