"""What is known of each class, a row a class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...results.overfit_summary import RunSummary
from ...results.training_summary import TrainSummary
from ..palette import palette


@dataclass(frozen=True)
class ClassRow:
    """One class that occurs in the dataset, in the batch or among the predictions."""

    label: int
    colour: str
    """As `#rrggbb`."""
    cells: int
    """In the whole dataset, as is `share`."""
    share: float
    batch_cells: int
    batch_share: float
    weight: float
    accuracy: float | None
    steps: tuple[int, int] | None
    """The first and the last at which it was predicted."""
    weak: bool
    """Its accuracy is below the target."""
    bar: float
    """Length of the dataset's bar in percent, as are the next two."""
    batch_bar: float
    weight_bar: float


def hex_colours(classes: int) -> tuple[str, ...]:
    """The colour of every class as `#rrggbb`."""
    return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(classes))


def class_rows(run: RunSummary) -> tuple[ClassRow, ...]:
    """The rows; classes that occur nowhere have none."""
    counts, here = run.setup.dataset.counts, run.setup.batch.counts
    weights, colours = run.setup.weights.values, hex_colours(len(counts))
    rows = []
    for c, accuracy in enumerate(run.class_accuracy):
        steps = run.class_predicted_steps[c]
        if not (counts[c] or here[c] or steps):
            continue
        rows.append(
            ClassRow(
                label=c,
                colour=colours[c],
                cells=counts[c],
                share=share_of(counts[c], counts),
                batch_cells=here[c],
                batch_share=share_of(here[c], here),
                weight=weights[c],
                accuracy=accuracy,
                steps=steps,
                weak=accuracy is not None and accuracy < run.target,
                bar=log_bar(share_of(counts[c], counts)),
                batch_bar=log_bar(share_of(here[c], here)),
                weight_bar=100 * weights[c] / (max(weights) or 1.0),
            )
        )
    return tuple(rows)


def share_of(count: int, counts: tuple[int, ...]) -> float:
    """The count as a share of all; 0 where there is nothing."""
    return count / (sum(counts) or 1)


def log_bar(share: float) -> float:
    """Length in percent: four decades up to a share of 1, so that rare classes are seen beside the background."""
    return 100 * max(0.02, 1 + math.log10(share) / 4) if share > 0 else 0.0


@dataclass(frozen=True)
class TrainedClass:
    """One class that occurs in the dataset or among the predictions."""

    label: int
    colour: str
    """As `#rrggbb`."""
    cells: int
    """In the whole dataset, as is `share`."""
    share: float
    weight: float
    held: int
    """Cells on validation."""
    accuracy: float | None
    lost: bool
    """No cell of it is right."""
    worst: bool
    bar: float
    """Length of the dataset's bar in percent, as are the next two."""
    weight_bar: float
    accuracy_bar: float


def trained_classes(run: TrainSummary) -> tuple[TrainedClass, ...]:
    """The rows; classes that occur nowhere have none."""
    counts, weights = run.setup.dataset.counts, run.setup.weights.values
    colours = hex_colours(len(counts))
    predicted = [sum(column) for column in zip(*run.confusion, strict=True)]
    rows = []
    for c, accuracy in enumerate(run.class_accuracy):
        if not (counts[c] or predicted[c]):
            continue
        rows.append(
            TrainedClass(
                label=c,
                colour=colours[c],
                cells=counts[c],
                share=share_of(counts[c], counts),
                weight=weights[c],
                held=sum(run.confusion[c]),
                accuracy=accuracy,
                lost=accuracy == 0,
                worst=c == run.worst_class,
                bar=log_bar(share_of(counts[c], counts)),
                weight_bar=100 * weights[c] / (max(weights) or 1.0),
                accuracy_bar=100 * (accuracy or 0.0),
            )
        )
    return tuple(rows)
