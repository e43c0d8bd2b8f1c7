"""Page of an overfit run: its contents as plain values, and the HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...results.json_values import plain
from ...results.overfit_signals import Reading, readings
from ...results.overfit_summary import RunSummary
from ..curves import overfit_figure
from ..figure import POINTS, inline_svg
from ..palette import MOST_CLASSES, hex_colours
from .animation import Animation
from .class_table import ClassRow, class_rows
from .confusion_table import ConfusionTable
from .html import document
from .settings_tables import SettingsTable, overfit_settings

if TYPE_CHECKING:
    from ...fitting.result import OverfitRun


@dataclass(frozen=True)
class OverfitPage:
    """Values of the template. Every number of `result.json` comes from `run`, so that page and file agree."""

    run: RunSummary
    name: str
    """Last part of the dataset's path."""
    batch_size: int
    steps: int
    """Measured steps."""
    readings: tuple[Reading, ...]
    classes: tuple[ClassRow, ...]
    held: int
    """Classes in the batch."""
    colours: tuple[str, ...]
    matrix: ConfusionTable
    settings: tuple[SettingsTable, ...]
    points: int
    """Steps drawn in a chart."""
    lanes: int
    """Classes drawn in the chart of classes."""
    class_chart: Markup
    curves: Markup
    animation: Animation | None
    """None if not even one grid fits into the page."""
    script_data: dict[str, Any]
    """Data of the animation's script."""

    @classmethod
    def from_run(cls, check: OverfitRun, config: dict[str, Any]) -> OverfitPage:
        """Return the page of a finished check; `config` is the content of `config.json`."""
        result, run = check.result, RunSummary.from_run(check)
        size = len(result.batch.grids)
        names = [f"grid {i}" for i in result.batch.indices] or [f"number {i}" for i in range(size)]
        colours = hex_colours(len(run.class_accuracy))
        held = sum(accuracy is not None for accuracy in run.class_accuracy)
        animation = Animation.from_result(result, run)
        classes = "Accuracy of each class over the steps, and when it was predicted; the table below has the numbers"
        return cls(
            run=run,
            name=Path(run.setup.dataset.path).name,
            batch_size=size,
            steps=len(result.history),
            readings=readings(run),
            classes=class_rows(run),
            held=held,
            colours=colours,
            matrix=ConfusionTable.from_counts(run.confusion or ()),
            settings=overfit_settings(run, config),
            points=min(len(result.history), POINTS),
            lanes=min(held, MOST_CLASSES),
            class_chart=inline_svg(overfit_figure(result, curves=False), "life", classes),
            curves=inline_svg(
                overfit_figure(result, classes=False), "curves", "Loss, KL and accuracies over the steps"
            ),
            animation=animation,
            script_data={} if animation is None else plain(animation.json(names, colours)),
        )

    def page(self) -> bytes:
        """Return the HTML. It holds style, script and pictures, and its security policy forbids every request."""
        return document("report.html.jinja", script="animation.js", page=self, run=self.run)
