"""Page of an overfit run, as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.overfit_summary import RunSummary
from ...results.signals import readings
from ..curves import overfit_figure
from ..figure import POINTS, inline_svg
from ..palette import MOST_CLASSES, hex_colours
from ..reconstructions import grid_names
from .animation import animation_data
from .class_table import class_rows
from .confusion_table import ConfusionTable
from .html import document
from .settings_tables import overfit_settings

if TYPE_CHECKING:
    from ...fitting.result import OverfitRun


def overfit_page(check: OverfitRun, config: dict[str, Any]) -> bytes:
    """Return the page of a finished check; `config` is the content of `config.json`.

    Every number of `result.json` comes from `RunSummary`, so that page and file agree. The page holds style, script
    and pictures, and its security policy forbids every request.
    """
    result, run = check.result, RunSummary.from_run(check)
    held = sum(accuracy is not None for accuracy in run.class_accuracy)
    colours = hex_colours(len(run.class_accuracy))
    classes = "Accuracy of each class over the steps, and when it was predicted; the table below has the numbers"
    curves = "Loss, KL and accuracies over the steps"
    page = {
        "name": Path(run.setup.dataset.path).name,
        "batch_size": len(result.batch.grids),
        "steps": len(result.history),
        "points": min(len(result.history), POINTS),
        "readings": readings(run),
        "classes": class_rows(run),
        "held": held,
        "lanes": min(held, MOST_CLASSES),
        "colours": colours,
        "matrix": ConfusionTable.from_counts(run.confusion or ()),
        "settings": overfit_settings(run, config),
        "class_chart": inline_svg(overfit_figure(result, curves=False), "life", classes),
        "curves": inline_svg(overfit_figure(result, classes=False), "curves", curves),
        "animation": animation_data(result, run, grid_names(result.batch), colours),
    }
    return document("overfit.html.jinja", script="animation.js", page=page, run=run)
