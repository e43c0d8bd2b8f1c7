"""Metrics of a reconstruction: accuracies, baseline shares, skill, variation and retrieval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracies:
    """Accuracies from confusion counts (C, C); shares in 0..1."""

    pixel: float
    classes: tuple[float | None, ...]
    """Recall of each class; None for a class that is absent from the targets, which must not count as 0."""
    macro: float
    worst: float
    worst_class: int
    predicted: NDArray[np.int64]
    """(C,) cells predicted as each class."""
    held: NDArray[np.int64]
    """(C,) cells of each class in the targets."""

    @classmethod
    def from_confusion(cls, counts: NDArray[np.int64]) -> Accuracies:
        """Return the accuracies of counts (C, C) with row = target, column = prediction, and at least one cell."""
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
            held=held,
        )

    @property
    def exact(self) -> bool:
        """True if every cell is right."""
        return self.pixel == 1.0


@dataclass(frozen=True)
class BaselineShares:
    """Accuracies of answers that ignore the input, on targets (B, H, W)."""

    background: float
    """Accuracy of the most frequent class of the batch at each cell position."""
    majority: float
    """Accuracy of the most frequent class of the batch everywhere."""
    cells: int
    """Number of cells that are not ignored."""

    @classmethod
    def from_targets(cls, targets: Labels, num_classes: int, ignore_index: int | None) -> BaselineShares:
        """Return the shares of targets with at least one cell that is not ignored."""
        return cls.from_position_counts(position_counts(targets, kept_cells(targets, ignore_index), num_classes))

    @classmethod
    def from_position_counts(cls, held: NDArray[np.int64]) -> BaselineShares:
        """Return the shares of counts (C, H, W): the grids that hold class c at a position, at least one in all."""
        total = int(held.sum())
        return cls(int(held.max(axis=0).sum()) / total, int(held.sum(axis=(1, 2)).max()) / total, total)

    def skill(self, pixel_accuracy: float) -> float | None:
        """Return (accuracy - background share) / (1 - background share); None if the background share is 1."""
        if self.background == 1.0:
            return None
        # in whole cells: 20 right and 17 background of 21 cells must give 0.75, and floats round it below
        background, right = round(self.background * self.cells), round(pixel_accuracy * self.cells)
        return (right - background) / (self.cells - background)


def position_counts(labels: Labels, kept: NDArray[np.bool_], num_classes: int) -> NDArray[np.int64]:
    """Return (C, H, W): the number of grids (B, H, W) that hold class c at each position, in kept cells."""
    _, height, width = labels.shape
    place = np.arange(height * width).reshape(height, width)
    found = (labels.astype(np.int64) * place.size + place)[kept]
    return np.bincount(found, minlength=num_classes * place.size).reshape(num_classes, height, width)


def variation(predictions: Labels, targets: Labels, num_classes: int, ignore_index: int | None) -> float | None:
    """Return how often two predictions (B, H, W) differ in a cell, over all pairs, divided by the same of the targets.

    0 is one picture for all inputs. A pair is compared in the cells that neither of its targets ignores. None where no
    two targets differ, as in a batch of one grid.
    """
    kept = kept_cells(targets, ignore_index)

    def different(labels: Labels) -> int:
        held = position_counts(labels, kept, num_classes)
        grids = held.sum(axis=0)
        return int(np.vdot(grids, grids) - np.vdot(held, held))

    of_targets = different(targets)
    return different(predictions) / of_targets if of_targets else None


def retrieval(predictions: Labels, targets: Labels, ignore_index: int | None) -> float | None:
    """Return the share of predictions (B, H, W) that agree in more cells with their own target than with any other.

    Cells that the own or the other target ignores are left out. Targets that are equal in the cells of the own target
    count as own. None for a batch of one grid.
    """
    size = targets.shape[0]
    if size < 2:
        return None
    kept = kept_cells(targets, ignore_index).reshape(size, -1)
    flat, guesses = targets.reshape(size, -1), predictions.reshape(size, -1)
    hits = 0
    for i in range(size):
        own = kept[i]
        agree = ((guesses[i] == flat) & kept)[:, own].sum(axis=1)
        other = (flat != flat[i])[:, own].any(axis=1)
        hits += int(np.all(agree[i] > agree[other]))
    return hits / int(size)


def distinct(pictures: Labels) -> int:
    """Return the number of different pictures in (B, H, W)."""
    return len(np.unique(pictures.reshape(pictures.shape[0], -1), axis=0))


def kept_cells(targets: Labels, ignore_index: int | None) -> NDArray[np.bool_]:
    """Return True for each cell that is not ignored; None ignores no cell."""
    return np.ones(targets.shape, dtype=bool) if ignore_index is None else targets != ignore_index
