"""Result of an evaluation as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .metrics import ACCURACIES, BASELINES, SplitMetrics
from .overfit_summary import DatasetSummary

KIND = "evaluate"


@dataclass(frozen=True)
class EvaluatedOn:
    """The model and the data of an evaluation."""

    run: str
    """Folder of the run that made the model."""
    trained_by: str
    """`train` or `overfit`."""
    checkpoint: str
    """`best` or `last`."""
    step: int | None
    """Updates done when the model had these weights; None for an overfit run that is not finished."""
    split: str
    split_reason: str
    grids: int
    """Number of grids in the split."""
    changed: tuple[str, ...]
    """Differences of the data of the run from those at its start, in words."""
    dataset: DatasetSummary
    model: str
    """Class and size, in words."""
    adapter: str
    backend: str
    backend_reason: str
    device: str


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary(SplitMetrics):
    """Metrics of a trained model on every grid of a split."""

    KEYS: ClassVar[tuple[str, ...]] = ("kind", *ACCURACIES, "confusion", *BASELINES, "loss", "focal", "beta")
    NESTED: ClassVar[str] = "on"

    kind: str = KIND
    beta: float
    """Weight of the KL in `loss`: that of the update that would follow on the weights in the run."""
    on: EvaluatedOn
    seconds: float
    run_dir: str
