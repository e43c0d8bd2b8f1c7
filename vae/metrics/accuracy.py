"""What is measured of a reconstruction: accuracies, the shares that need no input, skill and retrieval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracies:
    """What confusion counts (C, C) say; shares in 0..1."""

    pixel: float
    classes: tuple[float | None, ...]
    """Recall of each class; None for a class that the targets do not hold, which must not count as 0."""
    macro: float
    worst: float
    worst_class: int
    predicted: NDArray[np.int64]
    """(C,), cells predicted as each class."""

    @classmethod
    def from_confusion(cls, counts: NDArray[np.int64]) -> Accuracies:
        """Take them from counts, row = target, column = prediction; at least one cell must have been counted."""
        held = counts.sum(axis=1)
        present = held > 0
        recall = counts.diagonal()[present] / held[present]
        classes: list[float | None] = [None] * held.size
        for c, r in zip(np.flatnonzero(present).tolist(), recall.tolist(), strict=True):
            classes[c] = r
        return cls(
            pixel=float(counts.trace() / held.sum()),
            classes=tuple(classes),
            macro=float(recall.mean()),
            worst=float(recall.min()),
            worst_class=int(np.flatnonzero(present)[recall.argmin()]),
            predicted=counts.sum(axis=0),
        )

    @property
    def exact(self) -> bool:
        """Every cell is right."""
        return self.pixel == 1.0


@dataclass(frozen=True)
class BaselineShares:
    """What answers that do not look at the input score on targets (B, H, W)."""

    background: float
    """For each cell position, the batch's most frequent class."""
    majority: float
    """The batch's most frequent class everywhere."""
    cells: int
    """How many cells count."""

    @classmethod
    def from_targets(cls, targets: Labels, num_classes: int, ignore_index: int | None) -> BaselineShares:
        """Take them from the targets; at least one cell must not be ignored."""
        kept = _kept(targets, ignore_index)
        return cls.from_position_counts(np.stack([((targets == c) & kept).sum(axis=0) for c in range(num_classes)]))

    @classmethod
    def from_position_counts(cls, held: NDArray[np.int64]) -> BaselineShares:
        """Take them from (C, H, W), how many grids hold class c at a position; at least one must."""
        total = int(held.sum())
        return cls(int(held.max(axis=0).sum()) / total, int(held.sum(axis=(1, 2)).max()) / total, total)

    def skill(self, pixel_accuracy: float) -> float | None:
        """(accuracy - background share) / (1 - background share); None where one picture answers every grid."""
        if self.background == 1.0:
            return None
        # in whole cells: a skill of 3/4, as of 20 right and 17 background in 21, would else be rounded below 0.75
        background, right = round(self.background * self.cells), round(pixel_accuracy * self.cells)
        return (right - background) / (self.cells - background)


def retrieval(predictions: Labels, targets: Labels, ignore_index: int | None) -> float | None:
    """Share of predictions (B, H, W) that agree in more cells with their own target than with any other.

    Only cells that are not ignored are compared, in the own target and in the other: what a model puts into a cell that
    its own target ignores says nothing. Targets equal there count as own. None for a batch of one.
    """
    size = targets.shape[0]
    if size < 2:
        return None
    kept = _kept(targets, ignore_index).reshape(size, -1)
    flat, guesses = targets.reshape(size, -1), predictions.reshape(size, -1)
    hits = 0
    for i in range(size):
        own = kept[i]
        agree = ((guesses[i] == flat) & kept)[:, own].sum(axis=1)
        other = (flat != flat[i])[:, own].any(axis=1)
        hits += int(np.all(agree[i] > agree[other]))
    return hits / int(size)


def distinct(pictures: Labels) -> int:
    """How many different pictures (B, H, W) there are."""
    return len(np.unique(pictures.reshape(pictures.shape[0], -1), axis=0))


def _kept(targets: Labels, ignore_index: int | None) -> NDArray[np.bool_]:
    return np.ones(targets.shape, dtype=bool) if ignore_index is None else targets != ignore_index
