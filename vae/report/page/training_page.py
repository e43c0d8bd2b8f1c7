"""Everything that the page of a training run shows, in plain types, and the page itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.overfit_signals import Reading
from ...results.training_signals import AFTER_DIVERGENCE, headline, pixel_meaning, recall_trade, training_readings
from ...results.training_summary import TrainSummary
from .axes import Chart
from .class_tables import TrainedClass, trained_classes
from .confusion_table import ConfusionTable
from .html import document
from .settings_tables import SettingsTables, training_facts
from .training_charts import LatentChart, latent_chart, training_curves

if TYPE_CHECKING:
    from ...training.validation import Validation

LARGEST_PICTURE = 1_000_000
"""Bytes of a picture that the page carries; a larger one is only named."""


@dataclass(frozen=True)
class TrainingPage:
    """What the template is given. Every number that `result.json` has comes from `run`, so that they agree."""

    run: TrainSummary
    name: str
    """The last part of the dataset's path."""
    headline: tuple[Reading, ...]
    readings: tuple[Reading, ...]
    meaning: str
    """What the pixel accuracy says."""
    trade: str | None
    """Why it is below the background share, where weights are the reason."""
    next: str | None
    curves: Chart
    latent: LatentChart | None
    """None where the model gives no mu and logvar."""
    classes: tuple[TrainedClass, ...]
    matrix: ConfusionTable
    facts: tuple[SettingsTables, ...]
    shown: int
    """Grids in the picture."""
    picture: str | None
    """`reconstructions.png` as a `data:` address; None for one that is too large."""

    @classmethod
    def from_run(cls, run: TrainSummary, found: Validation, config: dict[str, Any], picture: bytes) -> TrainingPage:
        """Take it from a run that ended.

        Args:
            run: its result.
            found: the validation of the best weights.
            config: what `config.json` holds.
            picture: what `reconstructions.png` holds.
        """
        coded = base64.b64encode(picture).decode("ascii") if len(picture) <= LARGEST_PICTURE else None
        return cls(
            run=run,
            name=Path(run.setup.dataset.path).name,
            headline=headline(run),
            readings=training_readings(run),
            meaning=pixel_meaning(run),
            trade=recall_trade(run),
            next=None if run.diverged is None else AFTER_DIVERGENCE,
            curves=training_curves(run),
            latent=_latent(found),
            classes=trained_classes(run),
            matrix=ConfusionTable.from_counts(run.confusion),
            facts=training_facts(run, config),
            shown=len(found.shown),
            picture=None if coded is None else f"data:image/png;base64,{coded}",
        )

    def page(self) -> bytes:
        """The page, whole: style and pictures are in it, no script is, and its policy forbids every request."""
        return document("training.html.jinja", pictures=True, page=self, run=self.run)


def _latent(found: Validation) -> LatentChart | None:
    active = found.active
    if found.kl_dimensions is None or active is None:
        return None
    return latent_chart(found.kl_dimensions, active)
