"""Rows of the table of classes: counts, weights and accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...results.overfit_summary import RunSummary
from ...results.training_summary import TrainSummary
from ..palette import hex_colours


@dataclass(frozen=True)
class ClassRow:
    """Row of one class that occurs in the dataset, in the measured grids or among the predictions."""

    label: int
    colour: str
    """Colour as `#rrggbb`."""
    dataset: int
    """Cells in the dataset; the next is their share of its cells that count, in 0..1."""
    dataset_share: float
    measured: int
    """Cells in the batch or in the validation grids; the next is their share."""
    measured_share: float
    weight: float
    weight_bar: float
    """Length in percent of the largest weight."""
    accuracy: float | None
    steps: tuple[int, int] | None
    """First and last step at which the class was predicted; None if never, and for a training run."""
    weak: bool
    """The accuracy is below the target of the batch; in a training run it is 0."""
    worst: bool


def class_rows(run: RunSummary | TrainSummary) -> tuple[ClassRow, ...]:
    """Return one row for each class that occurs anywhere."""
    counts, weights = run.setup.dataset.counts, run.setup.weights.values
    steps: Sequence[tuple[int, int] | None]
    if isinstance(run, RunSummary):
        measured, steps, least = run.setup.batch.counts, run.class_predicted_steps, run.target
        predicted = [found is not None for found in steps]
    else:
        measured, steps, least = tuple(map(sum, run.confusion)), [None] * len(counts), math.ulp(0.0)
        predicted = [any(column) for column in zip(*run.confusion, strict=True)]
    colours, largest = hex_colours(len(counts)), max(weights) or 1.0
    return tuple(
        ClassRow(
            label=c,
            colour=colours[c],
            dataset=counts[c],
            dataset_share=counts[c] / (sum(counts) or 1),
            measured=measured[c],
            measured_share=measured[c] / (sum(measured) or 1),
            weight=weights[c],
            weight_bar=100 * weights[c] / largest,
            accuracy=accuracy,
            steps=steps[c],
            weak=accuracy is not None and accuracy < least,
            worst=c == run.worst_class,
        )
        for c, accuracy in enumerate(run.class_accuracy)
        if counts[c] or measured[c] or predicted[c]
    )
