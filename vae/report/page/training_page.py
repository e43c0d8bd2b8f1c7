"""Page of a training run: its contents as plain values, and the HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...results.overfit_signals import Reading
from ...results.training_signals import AFTER_DIVERGENCE, headline, pixel_meaning, recall_trade, training_readings
from ...results.training_summary import TrainSummary
from ..curves import DIMENSIONS, latent_figure, training_figure
from ..figure import POINTS, inline_svg
from .class_table import ClassRow, class_rows
from .confusion_table import ConfusionTable
from .html import document
from .settings_tables import SettingsTable, training_settings

if TYPE_CHECKING:
    from ...training.validation import Validation

LARGEST_PICTURE = 1_000_000
"""Bytes of a picture inside the page. A larger picture is only named."""


@dataclass(frozen=True)
class TrainingPage:
    """Values of the template. Every number of `result.json` comes from `run`, so that page and file agree."""

    run: TrainSummary
    name: str
    """Last part of the dataset's path."""
    headline: tuple[Reading, ...]
    readings: tuple[Reading, ...]
    meaning: str
    """Sentence on the pixel accuracy."""
    trade: str | None
    """Explains a pixel accuracy below the background share, if the weights are the reason."""
    next: str | None
    points: int
    """Validations drawn in the chart."""
    curves: Markup
    latent: Markup | None
    """Chart of the latent dimensions; None if the model gives no mu and logvar."""
    dimensions: int
    """Latent dimensions."""
    bars: int
    """Latent dimensions in the chart."""
    classes: tuple[ClassRow, ...]
    matrix: ConfusionTable
    settings: tuple[SettingsTable, ...]
    shown: int
    """Grids in the picture."""
    picture: str | None
    """`reconstructions.png` as a `data:` address; None for one that is too large."""

    @classmethod
    def from_run(cls, run: TrainSummary, found: Validation, config: dict[str, Any], picture: bytes) -> TrainingPage:
        """Return the page of a run that ended.

        Args:
            run: its result.
            found: the validation of the best weights.
            config: content of `config.json`.
            picture: content of `reconstructions.png`.
        """
        coded = base64.b64encode(picture).decode("ascii") if len(picture) <= LARGEST_PICTURE else None
        kl = found.kl_dimensions or ()
        return cls(
            run=run,
            name=Path(run.setup.dataset.path).name,
            headline=headline(run),
            readings=training_readings(run),
            meaning=pixel_meaning(run),
            trade=recall_trade(run),
            next=None if run.diverged is None else AFTER_DIVERGENCE,
            points=min(len(run.history), POINTS),
            curves=inline_svg(training_figure(run), "curves", "Loss, KL and accuracies over the updates"),
            latent=latent_chart(kl, found.active) if kl and found.active is not None else None,
            dimensions=len(kl),
            bars=min(len(kl), DIMENSIONS),
            classes=class_rows(run),
            matrix=ConfusionTable.from_counts(run.confusion),
            settings=training_settings(run, config),
            shown=len(found.shown),
            picture=None if coded is None else f"data:image/png;base64,{coded}",
        )

    def page(self) -> bytes:
        """Return the HTML. It holds style and pictures but no script, and its policy forbids every request."""
        return document("training.html.jinja", pictures=True, page=self, run=self.run)


def latent_chart(kl: Sequence[float], active: Sequence[bool]) -> Markup:
    """Return the chart of the latent dimensions as SVG."""
    label = f"KL of each latent dimension; {sum(active)} of {len(active)} are active"
    return inline_svg(latent_figure(kl, active), "latent", label)
