"""Progress line of a command, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vaefit.vae.fitting.result import Record
    from vaefit.vae.training.loop import Training

LONG_SCAN = 64 << 20
"""Fewest cells of a scan that shows its progress."""


class ProgressLine:
    """Progress bar of the current kind of work; another kind replaces it, and `close` removes it."""

    def __init__(self, console: Console | None) -> None:
        """Show the bar on `console`; None shows nothing."""
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._work = ""

    def counting(self, done: int, total: int) -> None:
        """Show the counted cells of a long scan."""
        if total >= LONG_SCAN:
            self._show("counting classes", done, total, f"{done:,} of {total:,} cells")

    def fitting(self, record: Record, iterations: int) -> None:
        """Show the step, loss, pixel accuracy and worst class."""
        self._show("fitting", record.step, iterations, f"step {record.step}/{iterations}  {_numbers(record)}")

    def training(self, run: Training) -> None:
        """Show epoch, update, the training loss of the newest row, and the newest validation."""
        done, plan, row, found = run.progress.step, run.plan, run.newest, run.validation
        epochs = plan.updates // plan.epoch
        text = f"epoch {min(done // plan.epoch + 1, epochs)}/{epochs}  update {done:,}/{plan.updates:,}"
        if row is not None:
            text += f"  loss {row.average.loss:.4g}"
        if found is not None:
            text += f"  validation: macro {found.accuracies.macro:.4f}  pixel {found.accuracies.pixel:.4f}"
        self._show("training", done, plan.updates, text)

    def diagnosing(self, change: str, record: Record) -> None:
        """Show the change of a rerun of a failed run; the number of reruns is not known in advance."""
        self._show(f"why? {change}", record.step, None, f"step {record.step}  {_numbers(record)}")

    def sweeping(self, record: Record, done: int, runs: int, what: str) -> None:
        """Show the number of the current run of a sweep, and its step."""
        self._show(f"run {done + 1}/{runs}", done, runs, f"{what}  step {record.step}  {_numbers(record)}")

    def timing(self, done: int, total: int, what: str) -> None:
        """Show the current measurement."""
        self._show("measuring", done, total, what)

    def close(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._work = None, ""

    def _show(self, work: str, done: int, total: int | None, text: str) -> None:
        if self._console is None:
            return
        if work != self._work or self._bar is None:
            self.close()
            texts = TextColumn(work), TextColumn("{task.fields[text]}")
            columns = (texts[0], BarColumn(bar_width=24), texts[1], TimeRemainingColumn())
            self._bar, self._work = Progress(*columns, console=self._console, transient=True), work
            self._task = self._bar.add_task("", total=total, text=text)
            self._bar.start()
        self._bar.update(self._task, completed=done, text=text)


def _numbers(record: Record) -> str:
    a = record.accuracies
    return f"loss {record.loss:.4g}  pixel {a.pixel:.4f}  worst class {a.worst:.4f} (class {a.worst_class})"
