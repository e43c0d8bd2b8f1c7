"""Page of a training run, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...results.signals import AFTER_DIVERGENCE, headline, pixel_meaning, recall_trade, training_readings
from ...results.training_summary import TrainSummary
from ..curves import DIMENSIONS, latent_figure, training_figure
from ..figure import POINTS, inline_svg
from .class_table import class_rows
from .confusion_table import ConfusionTable
from .html import document
from .settings_tables import training_settings

if TYPE_CHECKING:
    from ...training.validation import Validation

LARGEST_PICTURE = 1_000_000
"""Bytes of a picture inside the page. A larger picture is only named."""


def training_page(run: TrainSummary, found: Validation, config: dict[str, Any], picture: bytes) -> bytes:
    """Return the page of a run that ended.

    Every number of `result.json` comes from `run`, so that page and file agree. The page holds style and pictures but
    no script, and its security policy forbids every request.

    Args:
        found: the validation of the best weights.
        config: content of `config.json`.
        picture: content of `reconstructions.png`.
    """
    coded = base64.b64encode(picture).decode("ascii") if len(picture) <= LARGEST_PICTURE else None
    kl = found.kl_dimensions or ()
    page = {
        "name": Path(run.setup.dataset.path).name,
        "headline": headline(run),
        "readings": training_readings(run),
        "meaning": pixel_meaning(run),
        "trade": recall_trade(run),
        "next": None if run.diverged is None else AFTER_DIVERGENCE,
        "points": min(len(run.history), POINTS),
        "curves": inline_svg(training_figure(run), "curves", "Loss, KL and accuracies over the updates"),
        "latent": latent_chart(kl, found.active) if kl and found.active is not None else None,
        "dimensions": len(kl),
        "bars": min(len(kl), DIMENSIONS),
        "classes": class_rows(run),
        "matrix": ConfusionTable.from_counts(run.confusion),
        "settings": training_settings(run, config),
        "shown": len(found.shown),
        "picture": None if coded is None else f"data:image/png;base64,{coded}",
    }
    return document("training.html.jinja", pictures=True, page=page, run=run)


def latent_chart(kl: Sequence[float], active: Sequence[bool]) -> Markup:
    """Return the chart of the latent dimensions as SVG."""
    label = f"KL of each latent dimension; {sum(active)} of {len(active)} are active"
    return inline_svg(latent_figure(kl, active), "latent", label)
