"""What is known of each class after training, a row a class."""

from __future__ import annotations

from dataclasses import dataclass

from ..training_result import TrainSummary
from .class_rows import hex_colours, log_bar, share_of


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
