"""Everything that the page shows, in plain types, and the page itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.json_values import plain
from ...results.overfit_signals import Reading, readings
from ...results.overfit_summary import RunSummary
from .animation import Animation
from .axes import Chart
from .class_tables import ClassRow, class_rows, hex_colours
from .confusion_table import ConfusionTable
from .html import document
from .overfit_charts import curves, life_lines
from .settings_tables import SettingsTables, facts

if TYPE_CHECKING:
    from ...fitting.result import OverfitRun


@dataclass(frozen=True)
class OverfitPage:
    """What the template is given. Every number that `result.json` has comes from `run`, so that they agree."""

    run: RunSummary
    name: str
    """The last part of the dataset's path."""
    batch_size: int
    measured: int
    """Steps that were measured."""
    readings: tuple[Reading, ...]
    classes: tuple[ClassRow, ...]
    held: int
    """Classes in the batch."""
    colours: tuple[str, ...]
    matrix: ConfusionTable
    facts: tuple[SettingsTables, ...]
    life: Chart
    curves: Chart
    reel: Animation | None
    film: dict[str, Any]
    """What the page's script reads; empty without a reel."""

    @classmethod
    def from_run(cls, check: OverfitRun, config: dict[str, Any]) -> OverfitPage:
        """Take it from a finished check; `config` is what `config.json` holds."""
        result, run = check.result, RunSummary.from_run(check)
        size = len(result.batch.grids)
        names = [f"grid {i}" for i in result.batch.indices] or [f"number {i}" for i in range(size)]
        colours = hex_colours(len(run.class_accuracy))
        reel = Animation.from_result(result, run)
        return cls(
            run=run,
            name=Path(run.setup.dataset.path).name,
            batch_size=size,
            measured=len(result.history),
            readings=readings(run),
            classes=class_rows(run),
            held=sum(accuracy is not None for accuracy in run.class_accuracy),
            colours=colours,
            matrix=ConfusionTable.from_counts(run.confusion or ()),
            facts=facts(run, config),
            life=life_lines(result.history, run),
            curves=curves(result.history, run),
            reel=reel,
            film={} if reel is None else plain(reel.json(names, colours)),
        )

    def page(self) -> bytes:
        """The page, whole: style, script and pictures are in it, and its security policy forbids every request."""
        return document("report.html.jinja", script="film.js", page=self, run=self.run)
